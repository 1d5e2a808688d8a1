"""SecondLookPolicy: any policy, asked once about the whole scan and once about the region of its first answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

from medvol.core.errors import ConfigError, PolicyError
from medvol.core.looks import Look, Region, whole_region
from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.roles import Policy
from medvol.core.specs import identify_component
from medvol.core.training_data import TrainingData
from medvol.core.types import Completion, Sampling, Volume
from medvol.grounding.grammar import format_evidence
from medvol.grounding.prompts import build_prompts
from medvol.grounding.regions import RegionSettings, read_look, region_around
from medvol.guarding.guard import ask_policy
from medvol.imaging.crops import crop_volume
from medvol.rollouts.groups import ask_each
from medvol.rollouts.kept_outcomes import KeptOutcomes, Outcome

OnFailure = Literal["fail", "first"]
"""What happens when a second answer cannot be read: the whole answer fails, or the first one counts."""


@dataclass(frozen=True)
class _First:
    """A first answer that a second look follows."""

    completion: Completion
    look: Look
    prompt: int
    place: int


@dataclass(eq=False)
class _Again:
    """First answers that lead to one region of one scan."""

    volume: Volume
    region: Region
    firsts: list[_First] = field(default_factory=list)


class SecondLookPolicy(Policy):
    """Asks another policy twice: about the whole scan, and about the region around its first answer.

    The second prompt shows the region alone: its slices one by one as far as the prompt has room, and enlarged to the
    size of a whole slice. The answer is brought back to the whole scan, and both looks stay with it. An answer that
    says at first that the target is absent, or that cannot be read, is not looked at again. When the second look says
    that the target is absent, that counts. Every further completion has two looks of its own.

    Args:
        policy: Answers both times.
        region: How much of the scan the second look shows around the first answer.
        on_failure: ``fail`` lets an answer fail when its second look cannot be read; ``first`` then keeps the first
            answer, and a warning says so.

    Raises:
        ConfigError: The policy needs the true anchor or a scan itself, or ``on_failure`` is something else.
    """

    needs_volume: ClassVar[bool] = True

    def __init__(
        self, policy: Policy, region: RegionSettings = RegionSettings(), on_failure: OnFailure = "fail"
    ) -> None:
        if policy.needs_truth or policy.needs_volume:
            why = "answers with the true anchor" if policy.needs_truth else "looks at the scan itself"
            raise ConfigError(f"SecondLookPolicy asks a policy that reads slices; {type(policy).__name__} {why}")
        if on_failure not in get_args(OnFailure):
            raise ConfigError(f"on_failure is one of {', '.join(get_args(OnFailure))}; got {on_failure!r}")
        self.policy = policy
        self.region = region
        self.on_failure = on_failure
        self._kept = KeptOutcomes()

    @property
    def inner(self) -> Policy:
        """The policy that is asked."""
        return self.policy.inner

    @property
    def template(self) -> PromptTemplate:
        """That of the policy, for both looks."""
        return self.policy.template

    @property
    def training_data(self) -> TrainingData | None:
        """That of the policy."""
        return self.policy.training_data

    @training_data.setter
    def training_data(self, data: TrainingData | None) -> None:
        self.policy.training_data = data

    def identity(self) -> Mapping[str, Any]:
        """Its own settings, and the identity of the policy."""
        return {**identify_component(self, ["policy"]), "policy": dict(self.policy.identity())}

    def require_ready(self) -> None:
        """Find what the policy needs."""
        self.policy.require_ready()

    def generate(
        self, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Completion]]:
        """Look twice; the first looks share a prefix, and so do second looks at one region.

        Where one of several second looks gets no answer, the others are kept for the next call, see ``KeptOutcomes``.

        Raises:
            ConfigError: A prompt comes without its scan.
            PolicyError: A prompt got no answer.
        """
        return self._kept.answer(prompts, n, sampling, lambda: self._look(prompts, n, sampling))

    def _look(self, prompts: Sequence[Prompt], n: int, sampling: Sampling | None) -> list[Outcome]:
        """The answers to each prompt, or why its second look got none."""
        for prompt in prompts:
            _require_volume(prompt)
        first = ask_policy(self.policy, prompts, n, sampling)
        answers = [[self._close(prompt, said) for said in row] for prompt, row in zip(prompts, first, strict=True)]
        failed: dict[int, PolicyError] = {}
        for number, again in enumerate(self._plan(prompts, first)):
            own = None if sampling is None else replace(sampling, seed=sampling.seed + 1 + number)
            for found, completion in self._look_again(again, prompts, own):
                if isinstance(completion, PolicyError):
                    failed[found.prompt] = completion
                else:
                    answers[found.prompt][found.place] = completion
        return [failed.get(i, row) for i, row in enumerate(answers)]

    def _close(self, prompt: Prompt, said: Completion) -> Completion:
        """A first answer as the only one."""
        shape = prompt.slices.volume_shape
        look, _ = read_look(said.text, whole_region(shape), shape, prompt.template.max_anchors)
        return replace(said, looks=(look,))

    def _plan(self, prompts: Sequence[Prompt], first: Sequence[Sequence[Completion]]) -> list[_Again]:
        """Regions to look at again, in the order in which they were first named."""
        plan: dict[tuple[int, Region], _Again] = {}
        for i, (prompt, row) in enumerate(zip(prompts, first, strict=True)):
            volume = _require_volume(prompt)
            for place, said in enumerate(row):
                whole, most = whole_region(volume.shape), prompt.template.max_anchors
                look, evidence = read_look(said.text, whole, volume.shape, most)
                if evidence is None or evidence.absent:
                    continue
                region = region_around(evidence, volume.shape, volume.spacing, self.region)
                again = plan.setdefault((id(volume), region), _Again(volume, region))
                again.firsts.append(_First(said, look, i, place))
        return list(plan.values())

    def _look_again(
        self, again: _Again, prompts: Sequence[Prompt], sampling: Sampling | None
    ) -> list[tuple[_First, Completion | PolicyError]]:
        """Ask about one region: each query once for every first answer that led there."""
        by_prompt: dict[int, list[_First]] = {}
        for found in again.firsts:
            by_prompt.setdefault(found.prompt, []).append(found)
        crop = crop_volume(again.volume, again.region)
        asked = build_prompts(crop, [prompts[i].query for i in by_prompt], self.template)
        said = ask_each(self.policy, asked, max(map(len, by_prompt.values())), sampling)
        return [
            (found, row if isinstance(row, PolicyError) else self._join(found, row[k], again))
            for firsts, row in zip(by_prompt.values(), said, strict=True)
            for k, found in enumerate(firsts)
        ]

    def _join(self, first: _First, second: Completion, again: _Again) -> Completion:
        """The answer of both looks, in the indices of the whole scan."""
        shape = again.volume.shape
        look, evidence = read_look(second.text, again.region, shape, self.template.max_anchors)
        looks = (first.look, look)
        if evidence is None:  # as an answer about the whole scan it cannot be read either: all slices are the same
            return replace(second if self.on_failure == "fail" else first.completion, looks=looks)
        return replace(second, text=format_evidence(evidence, shape[1], shape[2]), looks=looks)


def _require_volume(prompt: Prompt) -> Volume:
    if prompt.volume is None:
        raise ConfigError("SecondLookPolicy looks at the scan again, and this prompt comes without it")
    return prompt.volume
