"""The one place where components are called: what they raise, return and change is looked at, and named as theirs.

Whatever a component raises becomes one error that says which component it was and which distribution publishes it:
``PolicyError``, ``PropagationError``, ``RewardError`` or ``DatasetError``. Errors that tell of the set-up (a missing
extra, a model folder that cannot be read, a scan that is gone) pass as they are: they hold for every case alike.
``KeyboardInterrupt`` passes too, as it is how a run is stopped. Arrays are read-only while a component works; one that
changed what it was given all the same is an ``InvalidComponentError``, since nothing that follows could be trusted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np

from medvol.core.containment import contained, say
from medvol.core.errors import (
    CheckpointError,
    ComponentImportError,
    ConfigError,
    DatasetError,
    EngineError,
    InvalidComponentError,
    MedvolError,
    MissingExtraError,
    PolicyError,
    PropagationError,
    RewardError,
    ScanError,
)
from medvol.core.own_precision import own_precision
from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.publishers import owner_of
from medvol.core.roles import CaseDataset, Policy, Propagator, RewardTerm, RolloutEngine
from medvol.core.training_data import TrainingData
from medvol.core.types import Case, Completion, Evidence, Rollout, Sampling, Volume
from medvol.guarding.promises import BreachError, Mask, own_masks, read_answers, read_score
from medvol.guarding.snapshots import changed, locked, snapshot

_ROLES = {
    Policy: "policy",
    Propagator: "propagator",
    RewardTerm: "reward",
    CaseDataset: "data set",
    RolloutEngine: "rollout engine",
}
_SET_UP = (
    CheckpointError,
    ComponentImportError,
    ConfigError,
    DatasetError,
    EngineError,
    InvalidComponentError,
    MissingExtraError,
    ScanError,
)
_spoiled: dict[int, str] = {}
"""What was done to volumes, by ``id``: a plug-in's volume may have no hash."""


def name_component(component: object) -> str:
    """``the propagator X of medvol-x 1.0``: role, class, and the distribution that publishes it."""
    role = next((word for kind, word in _ROLES.items() if isinstance(component, kind)), "component")
    return f"the {role} {type(component).__name__} of {owner_of(component)}"


def require_ready(*components: Policy | Propagator | RewardTerm | RolloutEngine) -> None:
    """Refuse components that lack weights or an extra, before any work is begun.

    Raises:
        CheckpointError: Weights are missing.
        MissingExtraError: Something is not installed.
        EngineError: A server does not answer.
        InvalidComponentError: One of them failed in another way.
    """
    for component in components:
        with guarded(component, InvalidComponentError):
            component.require_ready()


def ask_policy(
    policy: Policy, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
) -> list[list[Completion]]:
    """Let a policy answer.

    Args:
        policy: Anybody's.
        prompts: Questions.
        n: Completions a prompt.
        sampling: Greedy when None.

    Returns:
        ``n`` completions for each prompt.

    Raises:
        PolicyError: It failed, or returned something else.
        InvalidComponentError: It changed the prompts.
    """
    with guarded(policy, PolicyError, prompts=list(prompts)):
        return read_answers(policy.generate(list(prompts), n, sampling), len(prompts), n)


def read_template(policy: Policy) -> PromptTemplate:
    """Layout of the prompts that a policy reads.

    Raises:
        InvalidComponentError: It has none.
    """
    with guarded(policy, InvalidComponentError):
        template: object = policy.template
        if not isinstance(template, PromptTemplate):
            raise BreachError(f"has the template {say(template)}; it is a PromptTemplate")
        return template


def propagate_many(
    propagator: Propagator,
    volume: Volume,
    evidences: Sequence[Evidence],
    z_ranges: Sequence[tuple[int, int] | None],
) -> list[Mask]:
    """Let a propagator follow anchors of one volume.

    Args:
        propagator: Anybody's.
        volume: The scan.
        evidences: Anchors.
        z_ranges: Half-open range of slices that may be filled for each; None for the whole volume.

    Returns:
        A mask (Z, Y, X) for each on the volume's grid, in memory of its own.

    Raises:
        PropagationError: It failed, or returned something else.
        InvalidComponentError: It changed the volume or an anchor, now or before.
    """
    _refuse_spoiled(volume)
    with guarded(propagator, PropagationError, volume=volume, evidences=list(evidences)), own_precision():
        masks = propagator.propagate_many(volume, list(evidences), z_ranges=list(z_ranges))
        return own_masks(masks, len(evidences), volume)


def score_terms(terms: Mapping[str, RewardTerm], rollout: Rollout, case: Case) -> dict[str, float]:
    """Score of each reward term, by the name it goes under.

    Raises:
        RewardError: A term failed, or its score is no number in [0, 1].
        InvalidComponentError: A term changed the rollout or the case.
    """
    scores: dict[str, float] = {}
    current = ""

    def refuse(cause: BaseException) -> RewardError:
        doing = f"failed on case {case.case_id!r}"
        answer = f" (on case {case.case_id!r}, the answer was {say(rollout.completion.text[:80])})"
        return RewardError(
            f"the reward {current} of {owner_of(terms[current])} {describe_cause(cause, doing)}"
            f"{answer if isinstance(cause, BreachError) else ''}"
        )

    whose = partial(_name_all, terms.values())
    with unchanged(whose, rollout=rollout, case=case), contained(refuse, KeyboardInterrupt), own_precision():
        for current, term in terms.items():
            scores[current] = read_score(term(rollout, case))
    return scores


def identify(component: Policy | Propagator) -> dict[str, Any]:
    """Identity of a component, as written to evidence records.

    Raises:
        InvalidComponentError: It has none.
    """
    with guarded(component, InvalidComponentError):
        identity: object = component.identity()
        if not isinstance(identity, Mapping):
            raise BreachError(f"has the identity {say(identity)}; it is a mapping of names to plain values")
        try:
            json.dumps(dict(identity), default=_write_plain, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:  # of values in a circle, or digits by the thousand
            raise BreachError(f"has an identity that cannot be written ({say(error)}); give plain values") from None
        return dict(identity)


def _write_plain(value: object) -> Any:
    """A path or a number of NumPy, which JSON does not have; others might look alike as texts and differ."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} is no plain value")


def read_knowledge(policy: Policy) -> TrainingData | None:
    """What a policy says that it was trained on.

    Raises:
        InvalidComponentError: It says something else.
    """
    with guarded(policy, InvalidComponentError):
        known: object = policy.training_data
        if known is not None and not isinstance(known, TrainingData):
            raise BreachError(f"has the training data {say(known)}; they are a TrainingData or None")
        return known


@contextmanager
def unchanged(whose: Callable[[], str], **given: Any) -> Iterator[None]:
    """Lock what components are given for the length of the block, and see that it is the same afterwards.

    Args:
        whose: Names them; asked only when something changed.
        **given: What they are given, by the names of the interface.

    Raises:
        InvalidComponentError: Something changed.
    """
    before = snapshot(given)
    try:
        with locked(given):
            yield
    finally:
        altered = changed(before, snapshot(given))
        if altered:
            _refuse_change(whose(), altered, given)


@contextmanager
def guarded(
    component: object,
    error: type[MedvolError],
    doing: str = "failed",
    passing: tuple[type[MedvolError], ...] = _SET_UP,
    **given: Any,
) -> Iterator[None]:
    """Call a component within: what it raises becomes an error that names it, and what it is given stays as it is.

    Args:
        component: It.
        error: Kind of the error.
        doing: What it did wrong, to follow its name.
        passing: Errors that pass as they are.
        **given: What it is given, by the names of the interface.
    """

    def refuse(cause: BaseException) -> MedvolError:
        return error(f"{name_component(component)} {describe_cause(cause, doing)}")

    with contained(refuse, KeyboardInterrupt, *passing), unchanged(lambda: name_component(component), **given):
        yield


def describe_cause(cause: BaseException, doing: str = "failed") -> str:
    """What a component did wrong, to follow its name."""
    if isinstance(cause, BreachError):
        return str(cause)
    hint = "; what a component is given is read-only: work on a copy" if "read-only" in say(cause) else ""
    own = str(cause) if isinstance(cause, PropagationError | PolicyError) else say(cause)
    return f"{doing}: {own}{hint}"


def _name_all(terms: Iterable[RewardTerm]) -> str:
    """The terms that may have changed something: strangers', and medvol's own where there is no stranger."""
    names = dict.fromkeys(map(name_component, terms))
    strangers = [name for name in names if " of medvol-r1 " not in name]
    return " or ".join(strangers or names)


def _refuse_change(whose: str, altered: Sequence[str], given: Mapping[str, Any]) -> None:
    sentence = (
        f"{whose} changed what it was given ({', '.join(altered[:3])}), so nothing that follows could be trusted; let "
        "it work on a copy"
    )
    for value in given.values():
        volume = value.volume if isinstance(value, Case) else value
        if isinstance(volume, Volume):
            _spoiled[id(volume)] = sentence
            finalize(volume, _spoiled.pop, id(volume), None)
    raise InvalidComponentError(sentence)


def _refuse_spoiled(volume: Volume) -> None:
    if id(volume) in _spoiled:
        raise InvalidComponentError(_spoiled[id(volume)])
