"""Relational targets of a label map: the largest tumour, the only cyst of the left kidney, the kidney without lesion.

Each target is derived from the masks and the affine and kept only when it has one answer by a clear margin; the others
are counted. Its name is what the query bank knows it by (``largest {finding}``, ``{organ}: only {finding}``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from medvol.queries.instances import Instance, Point

CLEARLY_LARGER = 1.15
"""How many times more voxels the larger of two has at least."""

CLEARLY_HIGHER_MM = 5.0
"""How far apart centres lie at least, along the body, for one to be the higher."""

CLEARLY_NEARER_MM = 5.0
"""How much nearer to a structure the nearest lies at least than the next."""

_PAIR_SHARE = 0.1
_POINTS = 4000


@dataclass(frozen=True, eq=False)
class Relational:
    """A target that a relation picks out.

    Args:
        target: Its name in the query bank.
        instance: What it turns out to be.
        meaning: Plain name of that, such as ``left kidney`` or ``kidney tumour``; empty when the target's own is plain.
    """

    target: str
    instance: Instance
    meaning: str = ""


@dataclass(frozen=True, eq=False)
class Relations:
    """Relational targets of one scan.

    Args:
        found: Those with one answer.
        dropped: How many questions of each form have none.
    """

    found: tuple[Relational, ...]
    dropped: Counter[str]


class Relator:
    """Collects relations of one scan and counts what is ambiguous."""

    def __init__(self) -> None:
        self._found: list[Relational] = []
        self._dropped: Counter[str] = Counter()

    def relations(self) -> Relations:
        """What was collected."""
        return Relations(tuple(self._found), self._dropped)

    def relate_findings(self, name: str, findings: Sequence[Instance], prefix: str = "") -> None:
        """The only one of some findings, or the largest, smallest, highest and lowest.

        Args:
            name: What one of them is called: ``kidney tumour``.
            findings: All of them.
            prefix: Organ they lie in and a colon: ``left kidney: ``; empty for the whole scan.
        """
        if len(findings) == 1:
            self._found.append(Relational(f"{prefix}only {name}", findings[0], name))
        if len(findings) < 2:
            return
        complete = not any(finding.cut for finding in findings)
        by_size = sorted(findings, key=lambda finding: finding.size)
        by_height = sorted(findings, key=lambda finding: float(finding.centre_mm[2]))
        for form, (winner, next_best), clear in (
            ("largest", by_size[:-3:-1], _is_larger),
            ("smallest", by_size[:2], lambda winner, other: _is_larger(other, winner)),
            ("highest", by_height[:-3:-1], _is_higher),
            ("lowest", by_height[:2], lambda winner, other: _is_higher(other, winner)),
        ):
            self._keep(Relational(f"{prefix}{form} {name}", winner, name), form, complete and clear(winner, next_best))

    def relate_organs(self, organ: str, bearing: Mapping[str, Sequence[Instance]], pair: Sequence[Instance]) -> None:
        """The one of a pair with a finding, without it, and with one finding and another.

        Args:
            organ: What one of the pair is called: ``kidney``.
            bearing: For each finding, as it is called beside its organ (``tumour``), those of the pair that bear it.
            pair: Left and right, each with its name.
        """
        for name, bearers in bearing.items():
            others = [one for one in pair if one not in bearers]
            if bearers:
                self._keep_named(f"{organ} with {name}", "with", bearers)
                self._keep_named(f"{organ} without {name}", "without", others)
        names = [name for name, bearers in bearing.items() if bearers and name != "lesion"]
        if len(names) == 2:
            both = [one for one in pair if all(one in bearing[name] for name in names)]
            self._keep_named(f"{organ} with {names[0]} and {names[1]}", "with both", both)

    def rank_pair(self, organ: str, pair: Sequence[Instance]) -> None:
        """The larger, smaller, higher and lower of a pair: ``larger kidney``."""
        complete = not any(one.cut for one in pair)
        small, large = sorted(pair, key=lambda one: one.size)
        low, high = sorted(pair, key=lambda one: float(one.centre_mm[2]))
        for form, one, clear in (
            ("larger", large, _is_larger(large, small)),
            ("smaller", small, _is_larger(large, small)),
            ("higher", high, _is_higher(high, low)),
            ("lower", low, _is_higher(high, low)),
        ):
            self._keep(Relational(f"{form} {organ}", one, one.name), form, complete and clear)

    def relate_nearest(self, name: str, instances: Sequence[Instance], place: Instance) -> None:
        """The one of several that lies nearest to a named structure, between the nearest voxels of both."""
        if len(instances) < 2:
            return
        tree = cKDTree(_thin(place))
        gaps = [float(tree.query(_thin(one))[0].min()) for one in instances]
        first, second = np.argsort(gaps)[:2]
        clear = gaps[second] - gaps[first] >= CLEARLY_NEARER_MM
        nearest = instances[first]
        self._keep(Relational(f"{name} nearest to {place.name}", nearest, nearest.name or name), "nearest", clear)

    def drop(self, form: str) -> None:
        """Count a question that has no single answer."""
        self._dropped[form] += 1

    def _keep(self, relational: Relational, form: str, clear: bool) -> None:
        if clear:
            self._found.append(relational)
        else:
            self.drop(form)

    def _keep_named(self, target: str, form: str, candidates: Sequence[Instance]) -> None:
        if len(candidates) == 1:
            self._found.append(Relational(target, candidates[0], candidates[0].name))
        else:
            self.drop(form)


def split_pair(parts: Sequence[Instance], organ: str) -> tuple[Instance, Instance] | None:
    """Left and right of a pair, told by the affine; None unless there are two large parts, clearly side by side.

    Args:
        parts: Connected parts, the largest first; the pair are the first two, each with at least a tenth of the voxels.
        organ: What one of them is called; the results are named ``left kidney`` and ``right kidney``.
    """
    total = sum(part.size for part in parts)
    large = [part for part in parts if part.size >= _PAIR_SHARE * total]
    if len(large) != 2:
        return None
    left, right = sorted(large, key=lambda part: float(part.centre_mm[0]))
    apart = np.abs(right.centre_mm - left.centre_mm)
    if apart[0] < apart[1:].max():
        return None
    return replace(left, name=f"left {organ}"), replace(right, name=f"right {organ}")


def find_bearers(findings: Sequence[Instance], pair: Sequence[Instance]) -> list[Instance]:
    """Those of a pair that bear one of some findings, see ``assign_findings``."""
    return [one for one, own in zip(pair, assign_findings(findings, pair), strict=True) if own]


def assign_findings(findings: Iterable[Instance], pair: Sequence[Instance]) -> list[list[Instance]]:
    """Findings of each of a pair: the one that holds most of its voxels, or else the one with the nearest voxel."""
    trees = [cKDTree(_thin(one)) for one in pair]
    assigned: list[list[Instance]] = [[] for _ in pair]
    for finding in findings:
        gaps = [float(tree.query(_thin(finding))[0].min()) for tree in trees]
        shares = [(one.overlap(finding), -gap) for one, gap in zip(pair, gaps, strict=True)]
        assigned[shares.index(max(shares))].append(finding)
    return assigned


def _is_larger(large: Instance, small: Instance) -> bool:
    return large.size >= CLEARLY_LARGER * small.size


def _is_higher(high: Instance, low: Instance) -> bool:
    return bool(high.centre_mm[2] - low.centre_mm[2] >= CLEARLY_HIGHER_MM)


def _thin(instance: Instance) -> Point:
    """Voxel positions, at most a few thousand of them; a voxel's neighbour speaks for it."""
    points = instance.points_mm
    return points[:: max(1, len(points) // _POINTS)]
