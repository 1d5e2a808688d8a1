"""From a scan and a query to a mask: ask the policy, read its anchor, propagate it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medvol.core.devices import AUTO, require_device
from medvol.core.errors import (
    ConfigError,
    EvidenceParseError,
    MedvolError,
    UntrustedAnswerError,
)
from medvol.core.roles import Policy, Propagator
from medvol.core.types import Case, Query, Rollout, Sampling, Volume
from medvol.core.visible_text import quote
from medvol.guarding.guard import identify, read_knowledge, require_ready
from medvol.inference.confidence import Confidence, add_votes, judge_answer, read_warnings, require_trust
from medvol.inference.device import bring_to
from medvol.inference.inputs import take_policy, take_propagator, take_queries, take_sampling, take_volume
from medvol.inference.records import EvidenceRecord
from medvol.inference.segmentation import Segmentation
from medvol.inference.votes import Votes, take_votes
from medvol.rollouts.groups import Group, ask
from medvol.rollouts.masks import HELD_MIB, follow
from medvol.rollouts.samples import draw_samples, require_samples
from medvol.terminal.progress import Work

_HEAD = 160


class Segmenter:
    """Answers queries about scans.

    Args:
        policy: Writes the evidence anchor: a policy, the path of a model folder, ``bundled:best``, or the name of a
            registered policy. None takes ``bundled:best``, which comes with medvol and knows synthetic scans only.
        propagator: Turns it into a mask: a propagator or its name; ``RegionPropagator`` when None.
        samples: Further answers to every query, drawn at random at temperature 1 in one call of the policy, which tell
            how far it agrees with itself; 0 draws none.
        strict: Refuse an answer that carries a warning, or whose policy does not tell what it was trained on.
        agreement_map: Propagate the samples too, and map which share of them holds each voxel.
        device: Where the policy computes: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``xpu``. ``auto`` takes an NVIDIA
            GPU where there is one. A propagator has a setting of its own for this.

    Raises:
        CheckpointError: There is no such model folder.
        ConfigError: The policy is an oracle, which needs the true mask; or an argument is of the wrong kind.
    """

    def __init__(
        self,
        policy: Policy | str | Path | None = None,
        propagator: Propagator | str | None = None,
        samples: int = 0,
        strict: bool = False,
        agreement_map: bool = False,
        device: str = AUTO,
    ) -> None:
        self.policy = take_policy(policy)
        if self.policy.needs_truth:
            raise ConfigError(
                f"{type(self.policy).__name__} answers with the true anchor, which a scan alone does not have; choose "
                "a trained policy, or use `medvol test` on a data set with masks"
            )
        self.propagator = take_propagator(propagator)
        require_samples(samples)
        if agreement_map and not samples:
            raise ConfigError("a map of the agreement needs answers to compare; set samples to 2 or more, such as 8")
        self.samples = samples
        self.strict = strict
        self.agreement_map = agreement_map
        self.device = require_device(device)

    def segment(self, scan: Volume | str | Path, query: str, sampling: Sampling | None = None) -> Segmentation:
        """Answer one query.

        Args:
            scan: A volume, or the path of a scan, see ``read_volume``.
            query: The question, as a person would type it.
            sampling: Greedy when None.

        Returns:
            The mask with the anchor it was propagated from; the mask is empty when the answer says that the target is
            absent.

        Raises:
            ScanError: The scan cannot be read.
            QueryError: The query is empty, or no text.
            PolicyError: The policy failed.
            EvidenceParseError: The answer does not follow the grammar; the message shows its beginning.
            UntrustedAnswerError: The segmenter is strict, and the answer carries a warning.
            PropagationError: The anchor could not be propagated.
            InvalidComponentError: A component changed what it was given.
        """
        return self.segment_many(scan, [query], sampling)[0]

    def segment_many(
        self, scan: Volume | str | Path, queries: Sequence[str], sampling: Sampling | None = None
    ) -> list[Segmentation]:
        """Answer several queries from one drawing of the scan's slices; raises as ``segment`` does."""
        queries = take_queries(queries)
        sampling, volume = take_sampling(sampling), take_volume(scan)
        groups = self.ask(volume, queries, sampling)
        answers: dict[int, Segmentation] = {}
        for place, answer in self.follow(groups, sampling):
            if isinstance(answer, MedvolError):
                raise answer
            shared = any(answer.mask is other.mask for other in answers.values())
            answers[place] = replace(answer, mask=answer.mask.copy()) if shared else answer
        return [answers[place] for place in range(len(groups))]

    def ask(self, volume: Volume, queries: Sequence[str], sampling: Sampling | None = None) -> list[Group]:
        """Let the policy answer several queries about one volume; each answer carries its samples.

        Returns:
            A group of one rollout for each query; one that the policy fails on harms no other and carries the error.

        Raises:
            QueryError: A query is empty.
            CheckpointError: The propagator or the policy lacks its weights; nothing is asked then.
            ConfigError: The policy cannot compute on the device.
        """
        require_ready(self.propagator, self.policy)
        bring_to(self.device, self.policy)
        cases = [Case("", volume, Query(query)) for query in queries]
        with Work("asking the policy"):
            groups = ask(self.policy, cases, sampling)
            return draw_samples(self.policy, groups, sampling, self.samples) if self.samples else groups

    def follow(
        self, groups: Sequence[Group], sampling: Sampling | None = None
    ) -> Iterator[tuple[int, Segmentation | MedvolError]]:
        """Follow answers to their masks, see ``follow_answers``."""
        return follow_answers(groups, self.policy, self.propagator, sampling, self.strict, self.agreement_map)

    def accepts(self, record: EvidenceRecord) -> bool:
        """True when an earlier answer tells as much as is asked now, and is one that would not be refused."""
        agreement = record.confidence.get("agreement")
        drawn = agreement.get("samples") if isinstance(agreement, dict) else 0
        sampled = not self.samples or drawn == self.samples
        sampled = sampled and (record.has_agreement_map or not self.agreement_map)
        trusted = not read_warnings(record.confidence) and record.confidence.get("training_known") is True
        return sampled and (trusted or not self.strict)

    def identity(self) -> dict[str, Any]:
        """Identity of the policy and the propagator, as written to evidence records; loads the weights it hashes."""
        return {"policy": identify(self.policy), "propagator": identify(self.propagator)}


def follow_answers(
    groups: Sequence[Group],
    policy: Policy,
    propagator: Propagator,
    sampling: Sampling | None = None,
    strict: bool = False,
    agreement_map: bool = False,
) -> Iterator[tuple[int, Segmentation | MedvolError]]:
    """Judge the answers to queries about one volume, and propagate their anchors together.

    Args:
        groups: The queries, each with one answer and its samples.
        policy: Wrote them.
        propagator: Turns their anchors into masks.
        sampling: How they were drawn; greedy when None.
        strict: Refuse an answer that carries a warning; nothing is propagated from it.
        agreement_map: Propagate the samples too, and map their agreement.

    Yields:
        For each query its place among the groups, and the answer or why there is none: the ``PolicyError`` that kept
        the policy from answering, an ``EvidenceParseError`` that shows the beginning of an answer that does not follow
        the grammar, an ``UntrustedAnswerError``, or a ``PropagationError``. Answers without a mask come first. Those
        with equal anchors share a mask.

    Raises:
        InvalidComponentError: A component changed what it was given.
    """
    trusted: dict[int, Confidence] = {}
    for place, group in enumerate(groups):
        judged = _judge(group, policy, strict)
        if isinstance(judged, Confidence):
            trusted[place] = judged
        else:
            yield place, judged
    if not trusted:
        return
    identity = {"policy": identify(policy), "propagator": identify(propagator)}
    provenance = {**identity, "sampling": asdict(sampling or Sampling()), "edited": False}
    places, volume = list(trusted), groups[0].case.volume
    for i, rollout in follow(volume, [groups[k].answer for k in places], propagator, held_mib=HELD_MIB):
        place = places[i]
        votes = take_votes(groups[place], propagator) if agreement_map and rollout.error is None else None
        yield place, rollout.error or _segmentation(groups[place], rollout, provenance, trusted[place], votes)


def _judge(group: Group, policy: Policy, strict: bool) -> Confidence | MedvolError:
    """What is known about an answer, or why it is none."""
    rollout, query = group.answer, group.prompt.query
    if rollout.evidence is None:
        return rollout.error or _quote(rollout, query)
    training, name = read_knowledge(policy), type(policy).__name__
    confidence = judge_answer(rollout.completion, group.case.volume, query, training, name, rollout.max_anchors)
    if strict:
        try:
            require_trust(confidence, query)
        except UntrustedAnswerError as error:
            return error
    return confidence


def _quote(rollout: Rollout, query: str) -> EvidenceParseError:
    """Why an answer cannot be read, with its beginning."""
    failure, head = str(rollout.failure), rollout.completion.text[:_HEAD]
    detail = rollout.detail.removeprefix(f"{failure}: ")
    quoted = "" if head in detail else f"; it begins {head!r}"
    return EvidenceParseError(failure, f"the answer to {quote(query)} cannot be used, {detail}{quoted}")


def _segmentation(
    group: Group, rollout: Rollout, provenance: Mapping[str, Any], confidence: Confidence, votes: Votes | None
) -> Segmentation:
    assert rollout.mask is not None
    assert rollout.evidence is not None
    volume, query, shares = group.case.volume, group.prompt.query, None
    if votes is not None:
        confidence, shares = add_votes(confidence, votes, rollout.mask), votes.shares
    said = rollout.completion
    return Segmentation(
        volume, query, rollout.mask, rollout.evidence, said, provenance, confidence, agreement_map=shares
    )
