"""Which series of a study is meant: by its UID, number or description, or the largest axial one that is a volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from medvol.imaging.dicom.problems import (
    LocalizerError,
    NoDicomError,
    NoImageSeriesError,
    NoSuchSeriesError,
    SeveralSeriesError,
)
from medvol.imaging.dicom.slices import DicomSlice
from medvol.imaging.dicom.stack import is_axial, stack_slices
from medvol.imaging.formats.problems import RefusedScanError
from medvol.imaging.left_out import LeftOut

_MANY = 12


def choose_series(
    path: Path, slices: Iterable[DicomSlice], series: str | None
) -> tuple[list[DicomSlice], list[LeftOut]]:
    """Slices of one series, and what is not used: scout views among them, and series that nobody named.

    Args:
        path: Folder or archive to name in an error.
        slices: All slices found there.
        series: UID, number or description of the series; None chooses the axial series with most slices among those
            that are volumes, localizers left aside.

    Raises:
        NoImageSeriesError: There is no image.
        NoSuchSeriesError: No series answers to ``series``.
        SeveralSeriesError: More than one could be meant: the message lists them.
        ScanError: The only candidate is refused.
    """
    groups: dict[str, list[DicomSlice]] = {}
    for entry in slices:
        groups.setdefault(entry.series, []).append(entry)
    everything = list(groups.values())
    if not everything:
        raise NoImageSeriesError(path, "its DICOM files are reports, plans or segmentations; give a series of images")
    others: list[LeftOut] = []
    if series is not None:
        chosen = _named(path, everything, series.strip())
    elif len(everything) == 1:
        chosen = everything[0]
    else:
        chosen, others = _largest(path, everything)
    return chosen, [*(LeftOut(entry.file, "is a scout view") for entry in chosen if entry.localizer), *others]


def no_dicom(path: Path) -> NoDicomError:
    """The refusal of a folder or an archive without DICOM."""
    return NoDicomError(path, "it holds no DICOM file; name the folder or archive of one series, or one scan")


def _named(path: Path, groups: Sequence[list[DicomSlice]], name: str) -> list[DicomSlice]:
    for key in ("series", "number", "description"):
        found = [group for group in groups if getattr(group[0], key).casefold() == name.casefold()]
        if len(found) == 1:
            return found[0]
        if found:
            raise SeveralSeriesError(path, f"{len(found)} series answer to series={name!r}: {_list(found)}")
    raise NoSuchSeriesError(path, f"no series answers to series={name!r}; it holds {_list(groups)}")


def _largest(path: Path, groups: Sequence[list[DicomSlice]]) -> tuple[list[DicomSlice], list[LeftOut]]:
    """The largest axial volume, and what became of the other series."""
    images = [group for group in groups if not _all_scouts(group)]
    if not images:
        raise LocalizerError(path, f"all {len(groups)} series are scout views; give the series of slices")
    if len({group[0].study for group in images}) > 1:
        raise SeveralSeriesError(path, f"it holds several studies; name one series: {_list(images)}")
    candidates = [group for group in images if is_axial(_sections(group)[0])] or images
    refusals: dict[int, RefusedScanError] = {}
    for i, group in enumerate(candidates):
        try:
            stack_slices(path, group)
        except RefusedScanError as error:
            refusals[i] = error
    usable = [group for i, group in enumerate(candidates) if i not in refusals]
    if not usable:
        raise refusals[max(refusals, key=lambda i: len(candidates[i]))]
    most = max(map(_count, usable))
    largest = [group for group in usable if _count(group) == most]
    if len(largest) > 1:
        raise SeveralSeriesError(path, f"{len(largest)} series of {most} slices could be meant: {_list(largest)}")
    reasons = {id(candidates[i]): _passed_over(_count(candidates[i]) > most, error) for i, error in refusals.items()}
    others = [
        LeftOut(_tell(group), reasons.get(id(group), "is another series; set series to choose it"))
        for group in groups
        if group is not largest[0]
    ]
    return largest[0], others


def _passed_over(larger: bool, refusal: RefusedScanError) -> str:
    return f"is {'larger, but is ' if larger else ''}passed over: {refusal.detail}"


def _all_scouts(group: Sequence[DicomSlice]) -> bool:
    return all(entry.localizer for entry in group)


def _sections(group: Sequence[DicomSlice]) -> list[DicomSlice]:
    return [entry for entry in group if not entry.localizer]


def _count(group: Sequence[DicomSlice]) -> int:
    return len(_sections(group))


def _list(groups: Sequence[list[DicomSlice]]) -> str:
    numbers = Counter(group[0].number for group in groups)
    told = [_tell(group, numbers[group[0].number] > 1) for group in sorted(groups, key=len, reverse=True)[:_MANY]]
    rest = f" and {len(groups) - _MANY} more" if len(groups) > _MANY else ""
    return f"{'; '.join(told)}{rest}; set series to a number, a UID or a description"


def _tell(group: Sequence[DicomSlice], by_uid: bool = False) -> str:
    """A series in words; its description is free text, which may name a patient, and is left out.

    Args:
        group: Its slices.
        by_uid: Its number says too little.
    """
    first, count = (_sections(group) or group)[0], len(_sections(group) or group)
    name = first.number or first.series
    uid = f", UID {first.series}" if by_uid and first.number else ""
    kind = f"{'scout view' if first.localizer else 'slice'}{'s' if count != 1 else ''}"
    return f"series {name} ({first.modality}, {count} {kind} of {first.columns} x {first.rows}{uid})"
