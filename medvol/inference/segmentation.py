"""The segmentation: the answer to one query, and how it is written: mask, record and picture together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.atomic_files import file_sha256, require_no_folder, write_together
from medvol.core.errors import OutputError, explain_error
from medvol.core.json_file import to_json
from medvol.core.looks import last_region
from medvol.core.reprs import Brief
from medvol.core.types import Completion, Evidence, Volume
from medvol.imaging.dicom.links import require_origin
from medvol.imaging.dicom.outputs import NO_DICOM, DicomKind, DicomOutputs, ask_for
from medvol.imaging.writing import write_map, write_mask
from medvol.inference.answer_page import new_page, show_answer, write_page
from medvol.inference.confidence import Confidence
from medvol.inference.dicom_writers import dicom_writers
from medvol.inference.measurements import measure_mask
from medvol.inference.names import require_name, require_no_scan, scan_places
from medvol.inference.notebook import NotebookView, show_in_notebook
from medvol.inference.overlay import Picture, draw_overlay, render_overlay
from medvol.inference.readings import Reading
from medvol.inference.record_content import describe_evidence, describe_looks, describe_scan, digest_anchor
from medvol.inference.records import FAILED_SUFFIX, SCHEMA, answer_paths, find_record, mask_suffix, plain_values
from medvol.pages.answers import PageAnswer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Extras = dict[str, Callable[[Path], object]]


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(Brief):
    """The answer to one query about one volume.

    Args:
        volume: The scan.
        query: Text of the question.
        mask: (Z, Y, X) bool on the volume's grid; all False when the target is absent.
        evidence: The anchor the mask was propagated from.
        completion: The policy's own words.
        provenance: Identity of the policy and the propagator, as written to the evidence record.
        confidence: What is known about how far it can be trusted; None where the anchor comes from a record.
        reading: What a person made of it; None for an answer that nobody has read.
        agreement_map: (Z, Y, X) float32: share of the sampled answers whose mask holds a voxel; None without a map.
    """

    volume: Volume
    query: str
    mask: NDArray[np.bool_]
    evidence: Evidence
    completion: Completion
    provenance: Mapping[str, Any] = field(default_factory=dict)
    confidence: Confidence | None = None
    reading: Reading | None = None
    agreement_map: NDArray[np.float32] | None = None

    @property
    def picture(self) -> Picture:
        """What the overlay shows of it."""
        warnings = () if self.confidence is None else self.confidence.warnings
        edited = bool(self.provenance.get("edited"))
        region = last_region(self.completion.looks)
        return Picture(self.volume, self.query, self.mask, self.evidence, warnings, edited, region=region)

    def plot(self, context: bool = True) -> Figure:
        """The key slice with boxes and the mask's outline, as a figure of matplotlib.

        Args:
            context: Also show three slices through the mask's extent, close up.
        """
        return draw_overlay(self.picture, context)

    def view(self, height_px: int = 800) -> NotebookView:
        """The answer page for a notebook: slices to scroll, planes and 3D; at most about 8 MB.

        Args:
            height_px: Height of its frame.
        """
        page = new_page()
        page.add(self.show("segmentation"))
        return NotebookView(page.render(), height_px)

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        return show_in_notebook(self.picture)

    def show(self, name: str) -> PageAnswer:
        """What an answer page shows of it, when it is saved under a name."""
        files = {kind: path.name for kind, path in answer_paths(Path(), name, mask_suffix(self.volume)).items()}
        record = describe_segmentation(self, files["mask"], files["overlay"])
        region = last_region(self.completion.looks)
        return show_answer(self.volume, self.mask, self.evidence, record, files["record"], region)

    def save(
        self,
        folder: str | Path,
        name: str = "segmentation",
        dicom: Sequence[DicomKind] = (),
        with_patient: bool = False,
        html: bool = False,
    ) -> dict[str, Path]:
        """Write the mask in the scan's grid, the evidence record and the overlay picture, see ``save_segmentation``.

        Args:
            folder: Created when it does not exist.
            name: Stem of the files; earlier ones of that name are replaced.
            dicom: DICOM outputs to write too: ``seg``, ``sr`` (which needs ``seg``), ``rtstruct``, ``capture``.
            with_patient: Let them say who the patient is, as an archive needs it to file them.
            html: Write a page that shows the answer too.
        """
        return save_segmentation(self, Path(folder), name, ask_for(dicom, with_patient), html)


def save_segmentation(
    segmentation: Segmentation, folder: Path, name: str, dicom: DicomOutputs = NO_DICOM, html: bool = False
) -> dict[str, Path]:
    """Write mask, record and overlay together; the record appears last, so where it is the rest is too.

    Mask and record do not depend on the others: when the picture, the map of the agreement, a DICOM output or the page
    cannot be made or written, the record says so under ``not_written``.

    Args:
        segmentation: What to write.
        folder: Created when it does not exist.
        name: Stem of the files; earlier ones of that name are replaced.
        dicom: DICOM outputs to write too.
        html: Write a page that shows the answer too, see ``write_answer_page``.

    Returns:
        Path of each file: ``mask``, ``record``, ``overlay``; ``agreement`` when the segmentation has a map; ``page``
        and each DICOM output when it was asked for.

    Raises:
        ConfigError: DICOM outputs are asked for, and the scan was not read from DICOM.
        RecordError: The name cannot be a file name, or is the scan's own.
        OSError: Mask and record cannot be written; nothing is.
        OutputError: They were written, but something beside them could not be.
    """
    require_name(name, "the name of the files")
    paths = answer_paths(folder := Path(folder), name, mask_suffix(segmentation.volume))
    volume, picture = segmentation.volume, segmentation.picture
    require_no_scan(paths.values(), scan_places([None if volume.source is None else volume.source.path]))
    if dicom:
        require_origin(volume)
    outputs = _describe_dicom(dicom, paths)
    record = describe_segmentation(segmentation, paths["mask"].name, paths["overlay"].name, outputs)
    failures: dict[str, str] = {}
    extras = _find_extras(segmentation, picture)
    earlier = find_record(paths["record"])
    with write_together(folder, last=paths["record"].name) as place:
        partial = {kind: place / path.name for kind, path in paths.items()}
        write_mask(partial["mask"], segmentation.mask, volume)
        record["mask"]["sha256"] = file_sha256(partial["mask"])
        partial["record"].write_bytes(to_json(record))
        extras |= dicom_writers(picture, record["mask"], dicom, partial)
        if html:
            extras["page"] = lambda path: _write_page(path, segmentation, _note(failures, record), paths["record"].name)
        _write_extras(extras, partial, paths, failures)
        if failures:
            partial["record"].write_bytes(to_json(_note(failures, record)))
    former = set() if earlier is None else {*earlier.dicom, "page", "agreement"}.difference(extras)
    _remove([*(paths[kind] for kind in (*failures, *former)), folder / f"{name}{FAILED_SUFFIX}"])
    written = {kind: paths[kind] for kind in ("mask", "record", *extras) if kind not in failures}
    if failures:
        raise OutputError(written, failures)
    return written


def _find_extras(answer: Segmentation, picture: Picture) -> _Extras:
    """How to write picture and map, by their kind."""
    extras: _Extras = {"overlay": lambda path: path.write_bytes(render_overlay(picture))}
    if (shares := answer.agreement_map) is not None:
        extras["agreement"] = lambda path: write_map(path, shares, answer.volume)
    return extras


def _remove(paths: Iterable[Path]) -> None:
    """Remove files of an earlier answer that was replaced."""
    for path in paths:
        if not path.is_dir():
            path.unlink(missing_ok=True)


def _describe_dicom(dicom: DicomOutputs, paths: Mapping[str, Path]) -> dict[str, Any] | None:
    """What a record says of DICOM outputs; None when there are none."""
    files = {kind: paths[kind].name for kind in dicom.kinds}
    return {"files": files, "with_patient": dicom.with_patient} if files else None


def _write_page(path: Path, answer: Segmentation, record: Mapping[str, Any], record_file: str) -> None:
    page = new_page()
    region = last_region(answer.completion.looks)
    page.add(show_answer(answer.volume, answer.mask, answer.evidence, record, record_file, region))
    write_page(page, path)


def _note(failures: Mapping[str, str], record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an answer of which some files are not there."""
    overlay = {"file": None} if "overlay" in failures else record["overlay"]
    dicom = record["dicom"]
    if dicom is not None:
        files = {kind: file for kind, file in dicom["files"].items() if kind not in failures}
        dicom = {**dicom, "files": files} if files else None
    return {**record, "overlay": overlay, "dicom": dicom, "not_written": dict(failures)}


def _write_extras(
    extras: _Extras, partial: Mapping[str, Path], paths: Mapping[str, Path], failures: dict[str, str]
) -> None:
    """Write what can be written, in order; ``failures`` takes why the rest cannot, by its kind."""
    for kind, write in extras.items():
        try:
            require_no_folder(paths[kind])
            write(partial[kind])
        except Exception as error:  # a library's, or the disk's
            partial[kind].unlink(missing_ok=True)
            refused = isinstance(error, OSError) and error.strerror  # its file name is the temporary one
            failures[kind] = refused or explain_error(error)


def describe_segmentation(
    segmentation: Segmentation,
    mask_file: str,
    overlay_file: str,
    dicom: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Content of the record, as plain values; the same segmentation always gives the same content.

    Args:
        segmentation: The answer.
        mask_file: Name of its mask.
        overlay_file: Name of its picture.
        dicom: Names of the DICOM outputs by their kind, and whether they say who the patient is; None without any.
    """
    provenance, volume = segmentation.provenance, segmentation.volume
    unit = "HU" if volume.modality == "CT" else None
    made_from = {"file": mask_file, "anchor_sha256": digest_anchor(segmentation.evidence)}
    return {
        "schema": SCHEMA,
        "medvol": version("medvol-r1"),
        "query": segmentation.query,
        "evidence": describe_evidence(segmentation.evidence, volume),
        "edited": bool(provenance.get("edited", False)),
        "completion": segmentation.completion.text,
        **describe_looks(segmentation.completion.looks),
        "mask": {**made_from, **measure_mask(volume.voxels, segmentation.mask, volume.spacing, unit)},
        "overlay": {"file": overlay_file},
        "dicom": None if dicom is None else dict(dicom),
        "confidence": None if segmentation.confidence is None else segmentation.confidence.to_dict(),
        "reading": None if segmentation.reading is None else segmentation.reading.to_dict(),
        "not_written": {},
        "scan": describe_scan(volume),
        **{key: plain_values(provenance.get(key, {})) for key in ("policy", "propagator", "sampling")},
    }
