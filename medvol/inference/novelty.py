"""Novelty: what a query or a scan has that a policy never met in its training."""

from __future__ import annotations

from dataclasses import dataclass

from medvol.core.training_data import Range, TrainingData
from medvol.core.traits import TRAITS, Trait, measure_traits
from medvol.core.types import Volume
from medvol.core.words import split_words

_SHOWN_WORDS = 8
_SPAN_SHARE = 0.25
"""Training scans are a sample of their kind: their range is widened by this part of itself, besides a trait's slack."""

_GROUPS = {
    "other_field_of_view": ("field of view", ("height_mm", "depth_mm", "width_mm")),
    "other_spacing": ("voxel size", ("slice_spacing_mm", "pixel_spacing_mm")),
    "other_tissue": ("body part or kind of picture", ("lung_share", "fat_share", "soft_share", "dense_share")),
    "other_intensities": ("body part or kind of picture", ("middle_share", "upper_share")),
}
"""Warnings about a scan: code, what is unlike, and the traits that tell."""


@dataclass(frozen=True)
class AnswerWarning:
    """A reason not to trust an answer.

    Args:
        code: Stable name.
        brief: A few words, for a picture.
        detail: One sentence with what was found and what was expected.
    """

    code: str
    brief: str
    detail: str


_DRAWN = AnswerWarning(
    "drawn_scans_only",
    "knows synthetic scans only",
    "the policy was trained on synthetic scans only, and what it says about a scan of a person is worth nothing",
)


def find_novelties(volume: Volume, query: str, training: TrainingData) -> tuple[list[AnswerWarning], list[str]]:
    """Compare a query and a scan with what a policy was trained on.

    Returns:
        Warnings, and sentences on what could not be compared.
    """
    warnings, unknown = _compare_words(query, training)
    warnings = [_DRAWN, *warnings] if training.drawn else warnings
    ranges = training.ranges.get(volume.modality)
    if ranges is not None:
        return warnings + _compare_scan(volume, ranges, training.drawn), unknown
    if not training.ranges:
        return warnings, [*unknown, "which scans the policy was trained on, so the scan was compared with nothing"]
    known = ", ".join(sorted(training.ranges))
    hint = "; --modality says what it is" if volume.modality == "other" else ""
    detail = f"the scan's modality is {volume.modality}, and the policy was trained on {known} only{hint}"
    return [*warnings, AnswerWarning("other_modality", f"{volume.modality}, trained on {known}", detail)], unknown


def is_like(value: float, seen: Range, trait: Trait) -> bool:
    """True when a value lies within what was seen, widened by a quarter of its span and by the trait's slack."""
    low, high = seen
    if trait.unit == "mm":
        factor = trait.slack * float((high / low) ** _SPAN_SHARE)
        return low / factor <= value <= high * factor
    more = trait.slack + _SPAN_SHARE * (high - low)
    return low - more <= value <= high + more


def _compare_words(query: str, training: TrainingData) -> tuple[list[AnswerWarning], list[str]]:
    if training.words is None:
        return [], ["which words are new to the policy: its training had more than are kept"]
    words = split_words(query)
    if not words:
        return [AnswerWarning("no_words", "no words", f"the query {query!r} has no words")], []
    new = [word for word in dict.fromkeys(words) if word not in training.words]
    if not new:
        return [], []
    more = f" and {len(new) - _SHOWN_WORDS} more" if len(new) > _SHOWN_WORDS else ""
    shown = ", ".join(new[:_SHOWN_WORDS]) + more
    detail = f"no training query had these words of the query: {shown}"
    return [AnswerWarning("new_words", f"new words: {shown}", detail)], []


def _compare_scan(volume: Volume, ranges: dict[str, Range], drawn: bool) -> list[AnswerWarning]:
    """A warning for each group of traits of which one is unlike all training scans of the modality."""
    traits = measure_traits(volume)
    whose = "the synthetic scans of its training had" if drawn else "its training scans had"
    warnings = []
    for code, (words, names) in _GROUPS.items():
        unlike = [
            f"{TRAITS[name].words} is {_write(traits[name], traits[name], name)}, {whose} {_write(*ranges[name], name)}"
            for name in names
            if name in traits and name in ranges and not is_like(traits[name], ranges[name], TRAITS[name])
        ]
        if unlike:
            detail = f"{words} unlike anything the policy was trained on: {'; '.join(unlike)}"
            warnings.append(AnswerWarning(code, f"{words} unlike training", detail))
    return warnings


def _write(low: float, high: float, name: str) -> str:
    """A range in its unit, or one value."""
    if TRAITS[name].unit == "%":
        first, last = f"{100 * low:.0f}", f"{100 * high:.0f}"
    else:
        first, last = f"{low:.3g}", f"{high:.3g}"
    return f"{first if first == last else f'{first} to {last}'} {TRAITS[name].unit}"
