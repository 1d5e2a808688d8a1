"""What ``medvol segment`` prints of an answer: what was found, what it measures, where the files lie."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvol.core.errors import OutputError
from medvol.core.visible_text import show
from medvol.inference.measurements import show_mm
from medvol.terminal.console import Console

if TYPE_CHECKING:
    from medvol.core.types import Volume
    from medvol.imaging.dicom.outputs import DicomOutputs
    from medvol.inference.answers import Answer
    from medvol.inference.segmentation import Segmentation
    from medvol.inference.summary import Status, Summary


def say_replaced(path: Path | None, console: Console) -> None:
    """Say, before the work, which file is there and will be another one where the work succeeds."""
    if path is not None:
        console.print(f"{show(path)} is there already; the new answer replaces it", soft_wrap=True)


def save_and_tell(
    segmentation: Segmentation,
    folder: Path,
    name: str,
    dicom: DicomOutputs,
    console: Console,
    html: bool = False,
) -> Path:
    """Write an answer and tell what it is; returns the path of its record.

    Args:
        segmentation: The answer.
        folder: Where its files go.
        name: Their stem.
        dicom: DICOM outputs to write too.
        console: Where it is told.
        html: Write a page that shows it too.

    Raises:
        OutputError: Something beside mask and record could not be written; raised when the rest is told.
    """
    from medvol.inference.segmentation import save_segmentation

    try:
        paths = save_segmentation(segmentation, folder, name, dicom, html)
    except OutputError as error:
        _tell(segmentation, error.paths, console)
        raise
    _tell(segmentation, paths, console)
    return paths["record"]


def sum_up(scan: Path, path: Path, status: Status) -> Summary:
    """What became of the one question of a command, in the form in which a batch tells of many.

    Args:
        scan: The scan that was asked about.
        path: Record of the answer.
        status: Whether it was written now.
    """
    from medvol.inference.jobs import Job
    from medvol.inference.outcomes import tell_answer
    from medvol.inference.records import read_record
    from medvol.inference.summary import Summary

    record = read_record(path)
    job = Job(scan, record.query, path.parent, path.stem, record.series)
    identity = {"policy": dict(record.policy), "propagator": dict(record.propagator)}
    return Summary((tell_answer(job, status, (path, record)),), identity)


def tell_before(answer: Answer, volume: Volume, console: Console) -> None:
    """Say that a question was answered before, and where its files lie; and whether the mask is still the old one."""
    from medvol.inference.repropagation import lacks_its_mask

    path, record = answer
    console.print(f"answered before: {show(path)}; --overwrite answers it again", soft_wrap=True)
    if lacks_its_mask(volume.shape, record):
        remedy = f"medvol segment --evidence {shlex.quote(str(path))}"
        console.print(f"warning: slice or boxes were changed since the mask was made; {show(remedy)}", soft_wrap=True)
    files = {"mask": path.with_name(record.mask_file), "overlay": path.with_suffix(".png")}
    for kind, file in ((kind, file) for kind, file in files.items() if file.is_file()):
        console.print(f"{kind:<8} {show(file)}", soft_wrap=True)


def show_before(answer: Answer, volume: Volume, path: Path, console: Console) -> None:
    """Write the page of an answer that lies on the disk, unless it is there and as new, and tell where it is."""
    from medvol.inference.answer_page import new_page, write_page
    from medvol.inference.batch_page import show_earlier

    record = answer[0]
    newest = max(file.stat().st_mtime_ns for file in (record, record.with_name(answer[1].mask_file)))
    if not path.is_file() or not path.stat().st_size or path.stat().st_mtime_ns < newest:
        page = new_page()
        page.add(show_earlier(volume, answer))
        write_page(page, path)
    console.print(f"page     {show(path)}", soft_wrap=True)


def _tell(segmentation: Segmentation, paths: Mapping[str, Path], console: Console) -> None:
    """Print what was found and where the files lie."""
    from medvol.inference.records import read_record

    evidence, mask = segmentation.evidence, read_record(paths["record"]).mask
    anchors = "; ".join(
        f"slice {anchor.key_slice}, {len(anchor.boxes)} box{'es' if len(anchor.boxes) != 1 else ''}"
        for anchor in evidence.anchors
    )
    found = "not in the scan" if evidence.absent else anchors
    console.print(f"{show(segmentation.query)}: {found}, {mask['voxels']} voxels{_measures(mask)}", soft_wrap=True)
    for sentence in segmentation.confidence.sentences() if segmentation.confidence else ():
        console.print(show(sentence), soft_wrap=True)
    for kind, path in paths.items():
        console.print(f"{kind:<8} {show(path)}", soft_wrap=True)


def _measures(mask: Mapping[str, Any]) -> str:
    """Volume, mean intensity and diameters of a mask that is not empty."""
    if not mask["voxels"]:
        return ""
    unit = "" if mask["intensity_unit"] is None else f" {mask['intensity_unit']}"
    longest, across = show_mm(mask["longest_diameter_mm"]), show_mm(mask["perpendicular_diameter_mm"])
    return f", {mask['volume_ml']:.4g} ml, mean {mask['mean_intensity']:.4g}{unit}, {longest} x {across} mm"
