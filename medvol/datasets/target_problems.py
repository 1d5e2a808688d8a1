"""Scans of a folder or a release that show none of its targets, and targets that none of its scans shows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from medvol.datasets.nifti_table import TargetRow
from medvol.datasets.table_problems import Problem


def find_target_problems(
    rows: Sequence[TargetRow], cases: Collection[str], unlabelled: Sequence[Path], root: str, min_voxels: int
) -> list[Problem]:
    """Name what is asked for nowhere; the questions themselves are only about what scans show.

    Args:
        rows: Targets that were found, and names of labels without a voxel as absent ones.
        cases: Names of all scans that were looked at.
        unlabelled: Scans that were not looked at, because they have no label map.
        root: Folder of the scans.
        min_voxels: Smaller targets are left out.
    """
    lonely = [("barren_scan", root, describe_unlabelled(unlabelled))] if unlabelled else []
    return [*lonely, *_find_unseen(rows, cases, root), *_find_barren(rows, cases, root, min_voxels)]


def describe_unlabelled(scans: Sequence[Path]) -> str:
    """How many scans have no label map, and which is the first."""
    if len(scans) == 1:
        return f"1 scan has no label map and is left out: {scans[0]}"
    return f"{len(scans)} scans have no label map and are left out, such as {scans[0]}"


def _find_unseen(rows: Sequence[TargetRow], cases: Collection[str], root: str) -> Iterator[Problem]:
    shown = {row.target for row in rows if not row.absent}
    unseen = dict.fromkeys(row.target for row in rows if row.absent and row.target not in shown)
    if unseen:
        names = ", ".join(map(repr, unseen))
        yield "unseen_target", root, f"none of {len(cases)} scans has a voxel of {names:.300}"


def _find_barren(rows: Sequence[TargetRow], cases: Collection[str], root: str, min_voxels: int) -> Iterator[Problem]:
    barren = sorted(set(cases) - {row.case for row in rows if not row.absent})
    if barren:
        some = ", ".join(barren[:8]) + (" and more" if len(barren) > 8 else "")
        what = f"{len(barren)} of {len(cases)} scans show no target of {min_voxels} voxels or more and are not asked"
        yield "barren_scan", root, f"{what}: {some}"
