"""From a scan and a query to a mask: ask the policy, read its anchor, propagate it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from medvol.core.errors import ConfigError, EvidenceParseError, PolicyError, RecordError
from medvol.core.grounding.grammar import parse_evidence
from medvol.core.grounding.prompts import build_prompts
from medvol.core.guard import ask_each, ask_policy, identify, propagate, read_knowledge, read_template
from medvol.core.imaging.volume_hash import hash_volume
from medvol.core.inference.confidence import judge_answer, read_warnings, require_trust
from medvol.core.inference.inputs import take_policy, take_propagator, take_queries, take_volume
from medvol.core.inference.records import EvidenceRecord
from medvol.core.progress import Work
from medvol.core.roles import Policy, Propagator
from medvol.core.types import Completion, Evidence, Prompt, Sampling, Segmentation, Volume

_HEAD = 160
_SAME_PX = 0.01
"""Boxes that lie closer than this are the same; a record rounds them to a thousandth."""

MAX_SAMPLES = 1000
"""Most further answers to one query; a number with a few zeros too many would fill the memory."""


class Segmenter:
    """Answers queries about scans.

    Args:
        policy: Writes the evidence anchor: a policy, the path of a model folder, or the name of a registered policy.
        propagator: Turns it into a mask: a propagator or its name; ``RegionPropagator`` when None.
        samples: Further answers to every query, drawn at random at temperature 1 in one call of the policy, which tell
            how far it agrees with itself; 0 draws none.
        strict: Refuse an answer that carries a warning, or whose policy does not tell what it was trained on.

    Raises:
        CheckpointError: There is no such model folder.
        ConfigError: The policy is an oracle, which needs the true mask; or an argument is of the wrong kind.
    """

    def __init__(
        self,
        policy: Policy | str | Path,
        propagator: Propagator | str | None = None,
        samples: int = 0,
        strict: bool = False,
    ) -> None:
        self.policy = take_policy(policy)
        if self.policy.needs_truth:
            raise ConfigError(
                f"{type(self.policy).__name__} answers with the true anchor, which a scan alone does not have; choose "
                "a trained policy, or use `medvol test` on a data set with masks"
            )
        self.propagator = take_propagator(propagator)
        if type(samples) is not int or samples < 0 or samples == 1 or samples > MAX_SAMPLES:
            raise ConfigError(f"samples is {samples!r}; it is 0, or 2 to {MAX_SAMPLES} answers to compare")
        self.samples = samples
        self.strict = strict

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
        volume = take_volume(scan)
        completions = self.ask(volume, queries, sampling)
        return [
            self.follow(volume, query, completion, sampling)
            for query, completion in zip(queries, completions, strict=True)
        ]

    def ask(self, volume: Volume, queries: Sequence[str], sampling: Sampling | None = None) -> list[Completion]:
        """Let the policy answer several queries about one volume; each answer carries its samples.

        Raises:
            QueryError: A query is empty.
            PolicyError: The policy failed.
        """
        prompts = build_prompts(volume, list(queries), read_template(self.policy))
        with Work("asking the policy"):
            completions = [answers[0] for answers in ask_policy(self.policy, prompts, 1, sampling)]
            return self._add_samples(prompts, completions, sampling)

    def ask_each(
        self, volume: Volume, queries: Sequence[str], sampling: Sampling | None = None
    ) -> list[Completion | PolicyError]:
        """Ask as ``ask`` does; a query that the policy fails on harms no other, and its error is in its place."""
        prompts = build_prompts(volume, list(queries), read_template(self.policy))
        with Work("asking the policy"):
            answers = ask_each(self.policy, prompts, sampling or Sampling())
            said = [(i, answer) for i, answer in enumerate(answers) if isinstance(answer, Completion)]
            sampled = self._add_samples([prompts[i] for i, _ in said], [answer for _, answer in said], sampling)
        for (i, _), answer in zip(said, sampled, strict=True):
            answers[i] = answer
        return answers

    def _add_samples(
        self, prompts: Sequence[Prompt], completions: list[Completion], sampling: Sampling | None
    ) -> list[Completion]:
        if not (self.samples and prompts):
            return completions
        drawn = ask_policy(self.policy, prompts, self.samples, _at_random(sampling))
        return [replace(answer, samples=tuple(rest)) for answer, rest in zip(completions, drawn, strict=True)]

    def follow(
        self, volume: Volume, query: str, completion: Completion | PolicyError, sampling: Sampling | None = None
    ) -> Segmentation:
        """Follow a completion to its mask; raises as ``follow_answer`` does."""
        return follow_answer(volume, query, completion, self.policy, self.propagator, sampling, self.strict)

    def accepts(self, record: EvidenceRecord) -> bool:
        """True when an earlier answer tells as much as is asked now, and is one that would not be refused."""
        agreement = record.confidence.get("agreement")
        drawn = agreement.get("samples") if isinstance(agreement, dict) else 0
        sampled = not self.samples or drawn == self.samples
        trusted = not read_warnings(record.confidence) and record.confidence.get("training_known") is True
        return sampled and (trusted or not self.strict)

    def identity(self) -> dict[str, Any]:
        """Identity of the policy and the propagator, as written to evidence records; loads the weights it hashes."""
        return {"policy": identify(self.policy), "propagator": identify(self.propagator)}


def follow_answer(
    volume: Volume,
    query: str,
    completion: Completion | PolicyError,
    policy: Policy,
    propagator: Propagator,
    sampling: Sampling | None = None,
    strict: bool = False,
) -> Segmentation:
    """Parse a policy's answer, judge it, and propagate its anchor.

    Args:
        volume: The scan.
        query: The question.
        completion: The answer, with its samples, or the error that kept the policy from answering.
        policy: Wrote it.
        propagator: Turns its anchor into a mask.
        sampling: How it was drawn; greedy when None.
        strict: Refuse an answer that carries a warning.

    Raises:
        PolicyError: It is the error that kept the policy from answering.
        EvidenceParseError: It does not follow the grammar; the message shows its beginning.
        UntrustedAnswerError: ``strict`` is set and it carries a warning; nothing was propagated.
        PropagationError: Its anchor could not be propagated.
    """
    if isinstance(completion, PolicyError):
        raise completion
    try:
        evidence = parse_evidence(completion.text, volume.shape)
    except EvidenceParseError as error:
        detail, head = str(error).removeprefix(f"{error.failure}: "), completion.text[:_HEAD]
        quoted = "" if head in detail else f"; it begins {head!r}"
        raise EvidenceParseError(error.failure, f"the answer to {query!r} cannot be used, {detail}{quoted}") from error
    confidence = judge_answer(completion, volume, query, read_knowledge(policy), type(policy).__name__)
    if strict:
        require_trust(confidence, query)
    identity = {"policy": identify(policy), "propagator": identify(propagator)}
    provenance = {**identity, "sampling": asdict(sampling or Sampling()), "edited": False}
    found = _propagate(volume, query.strip(), evidence, completion, propagator, provenance)
    return replace(found, confidence=confidence)


def repropagate(
    volume: Volume, record: EvidenceRecord, propagator: Propagator, allow_other_scan: bool = False
) -> Segmentation:
    """Propagate the anchor of a record, edited by a person or not; the policy is not asked.

    Args:
        volume: The scan.
        record: From ``read_record``; its slice and pixel boxes count.
        propagator: Turns the anchor into a mask.
        allow_other_scan: Accept a scan with other voxels or another geometry than the record was written for.

    Raises:
        RecordError: The record was written for another scan, or its anchor does not lie in this one.
        PropagationError: The anchor could not be propagated.
    """
    if not allow_other_scan and hash_volume(volume) != record.scan_sha256:
        raise RecordError(
            f"the record was written for another scan ({record.scan_path or 'made in memory'}, sha256 "
            f"{record.scan_sha256[:12]}...); give that scan, or allow another one with "
            "--allow_other_scan (in Python: allow_other_scan=True)"
        )
    _require_inside(volume, record.evidence)
    edited = record.edited or not _is_own_words(record, volume)
    provenance = {
        "policy": dict(record.policy),
        "propagator": identify(propagator),
        "sampling": dict(record.sampling),
        "edited": edited,
    }
    return _propagate(volume, record.query, record.evidence, Completion(record.completion), propagator, provenance)


def _propagate(
    volume: Volume,
    query: str,
    evidence: Evidence,
    completion: Completion,
    propagator: Propagator,
    provenance: Mapping[str, Any],
) -> Segmentation:
    mask = propagate(propagator, volume, evidence)
    return Segmentation(volume, query, mask, evidence, completion, provenance)


def _at_random(sampling: Sampling | None) -> Sampling:
    """How samples are drawn: as the answer was, but at temperature 1 where that was greedy."""
    sampling = sampling or Sampling()
    return replace(sampling, temperature=sampling.temperature or 1.0)


def _require_inside(volume: Volume, evidence: Evidence) -> None:
    """Refuse an anchor that does not lie in the volume."""
    if evidence.key_slice is None:
        return
    depth, height, width = volume.shape
    if evidence.key_slice >= depth:
        raise RecordError(f"evidence.key_slice is {evidence.key_slice}; the scan has the slices 0 to {depth - 1}")
    for box in evidence.boxes.tolist():
        if box[2] > width or box[3] > height:
            raise RecordError(f"evidence.boxes_px holds {box}; the scan's slices are {width} x {height} pixels")


def _is_own_words(record: EvidenceRecord, volume: Volume) -> bool:
    """True when the anchor is what the policy's completion says."""
    try:
        written = parse_evidence(record.completion, volume.shape)
    except EvidenceParseError:
        return False
    same_boxes = written.boxes.shape == record.evidence.boxes.shape and bool(
        np.allclose(written.boxes, record.evidence.boxes, rtol=0, atol=_SAME_PX)
    )
    return written.key_slice == record.evidence.key_slice and same_boxes
