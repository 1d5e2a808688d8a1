"""Evidence records: a JSON file beside every mask that a person can read, check and edit.

What counts when an edited record is read is ``evidence.key_slice`` and ``evidence.boxes_px``; the same place in the
stored file's axes, in the grammar's integers and in world millimetres is written beside it for other programs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import OutputError, RecordError, explain_error
from medvol.core.grounding.boxes import to_norm
from medvol.core.imaging.dicom.segmentation import write_dicom_seg
from medvol.core.imaging.file_names import METAIMAGE, NRRD, ends_in
from medvol.core.imaging.geometry import voxel_to_world
from medvol.core.imaging.volume_hash import hash_volume
from medvol.core.imaging.writing import write_mask
from medvol.core.inference.anchor_place import box_corners_mm, stored_slice
from medvol.core.inference.measurements import measure_mask
from medvol.core.inference.names import require_name, require_not_scan
from medvol.core.inference.overlay import render_overlay
from medvol.core.inference.record_fields import RecordFields
from medvol.core.json_file import read_json, to_json
from medvol.core.types import DicomSegKind, Evidence, Segmentation, Volume
from medvol.core.whole_file import require_no_folder, write_together

SCHEMA = "medvol-evidence/1"
"""Version of the record's layout."""

DICOM_SEG_SUFFIX = ".dcm"
"""Ending of a DICOM segmentation object beside a record."""

FAILED_SUFFIX = ".failed.json"
"""Ending of the file that keeps the words of an answer without a mask."""

_Extras = dict[str, Callable[[Path], object]]
_DECIMALS = 3
_REMEDY = "mend it, or segment the scan again"


@dataclass(frozen=True, eq=False)
class EvidenceRecord:
    """A record read back.

    Args:
        query: Text of the question.
        evidence: The anchor, boxes in pixels of the LPS volume's slice.
        completion: The policy's own words.
        scan_path: Scan it was written for; None for a volume made in memory.
        scan_sha256: Hash of that scan's voxels and geometry, see ``hash_volume``.
        series: What its DICOM series was named by; None when none was named.
        mask_file: Name of the mask beside the record.
        mask: What the mask measures, see ``measure_mask``.
        not_written: Why files that were asked for are not there, by their kind.
        policy: Identity of the policy.
        propagator: Identity of the propagator.
        sampling: How the completion was drawn.
        edited: True when the anchor is no longer what the completion says.
        confidence: What was known about how far it can be trusted; empty where the anchor came from a record.
        dicom_seg: Kind of the DICOM segmentation beside it, ``anonymous`` or ``with_patient``; None when there is none.
    """

    query: str
    evidence: Evidence
    completion: str
    scan_path: str | None
    scan_sha256: str
    mask_file: str
    policy: Mapping[str, Any] = field(default_factory=dict)
    propagator: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    edited: bool = False
    series: str | None = None
    mask: Mapping[str, Any] = field(default_factory=dict)
    not_written: Mapping[str, Any] = field(default_factory=dict)
    confidence: Mapping[str, Any] = field(default_factory=dict)
    dicom_seg: str | None = None


def save_segmentation(
    segmentation: Segmentation, folder: Path, name: str, dicom_seg: DicomSegKind | None = None
) -> dict[str, Path]:
    """Write mask, record and overlay together; the record appears last, so where it is the rest is too.

    Mask and record do not depend on the others: when the picture or the DICOM segmentation cannot be made or written,
    the record says so under ``not_written``.

    Args:
        segmentation: What to write.
        folder: Created when it does not exist.
        name: Stem of the files; earlier ones of that name are replaced.
        dicom_seg: Write a DICOM segmentation object too, see ``write_dicom_seg``.

    Returns:
        Path of each file: ``mask``, ``record``, ``overlay``, and ``dicom_seg`` when it was asked for.

    Raises:
        RecordError: The name cannot be a file name, or is the scan's own.
        OSError: Mask and record cannot be written; nothing is.
        OutputError: They were written, but something beside them could not be.
    """
    require_name(name, "the name of the files")
    paths = answer_paths(folder := Path(folder), name, mask_suffix(segmentation.volume))
    volume, mask = segmentation.volume, segmentation.mask
    require_not_scan(paths.values(), None if volume.source is None else volume.source.path)
    extras: dict[str, Callable[[Path], object]] = {
        "overlay": lambda path: path.write_bytes(render_overlay(segmentation))
    }
    if dicom_seg is not None:
        extras["dicom_seg"] = lambda path: write_dicom_seg(path, mask, volume, segmentation.query, dicom_seg)
    earlier = find_record(paths["record"])
    with write_together(folder, last=paths["record"].name) as place:
        partial = {kind: place / path.name for kind, path in paths.items()}
        write_mask(partial["mask"], mask, volume)
        _write_record(partial["record"], segmentation, paths, {}, dicom_seg)
        failures = _write_extras(extras, partial, paths)
        if failures:
            _write_record(partial["record"], segmentation, paths, failures, dicom_seg)
    written = {kind: paths[kind] for kind in ("mask", "record", *extras) if kind not in failures}
    replaced_seg = ["dicom_seg"] if dicom_seg is None and earlier is not None and earlier.dicom_seg else []
    for path in (paths[kind] for kind in (*failures, *replaced_seg) if not paths[kind].is_dir()):
        path.unlink(missing_ok=True)  # of an earlier answer that was replaced
    (folder / f"{name}{FAILED_SUFFIX}").unlink(missing_ok=True)
    if failures:
        raise OutputError(written, failures)
    return written


def _write_extras(extras: _Extras, partial: Mapping[str, Path], paths: Mapping[str, Path]) -> dict[str, str]:
    """Write what can be written; why the rest cannot, by its kind."""
    failures: dict[str, str] = {}
    for kind, write in extras.items():
        try:
            require_no_folder(paths[kind])
            write(partial[kind])
        except Exception as error:  # a library's, or the disk's
            partial[kind].unlink(missing_ok=True)
            refused = isinstance(error, OSError) and error.strerror  # its file name is the temporary one
            failures[kind] = refused or explain_error(error)
    return failures


def answer_paths(folder: Path, name: str, suffix: str) -> dict[str, Path]:
    """Where the files of an answer lie, by their kind; ``suffix`` is the mask's, see ``mask_suffix``."""
    endings = {"mask": suffix, "record": ".json", "overlay": ".png", "dicom_seg": DICOM_SEG_SUFFIX}
    return {kind: folder / f"{name}{ending}" for kind, ending in endings.items()}


def describe_segmentation(
    segmentation: Segmentation,
    mask_file: str,
    overlay_file: str | None,
    not_written: Mapping[str, str] | None = None,
    dicom_seg: DicomSegKind | None = None,
) -> dict[str, Any]:
    """Content of the record, as plain values; the same segmentation always gives the same content.

    Args:
        segmentation: The answer.
        mask_file: Name of its mask.
        overlay_file: Name of its picture; None when there is none.
        not_written: Why files that were asked for are not there, by their kind.
        dicom_seg: Kind of the DICOM segmentation that was asked for; None when there is none.
    """
    provenance, volume = segmentation.provenance, segmentation.volume
    unit = "HU" if volume.modality == "CT" else None
    return {
        "schema": SCHEMA,
        "medvol": version("medvol-r1"),
        "query": segmentation.query,
        "evidence": _describe_evidence(segmentation.evidence, volume),
        "edited": bool(provenance.get("edited", False)),
        "completion": segmentation.completion.text,
        "mask": {"file": mask_file, **measure_mask(volume.voxels, segmentation.mask, volume.spacing, unit)},
        "overlay": {"file": overlay_file},
        "dicom_seg": None if "dicom_seg" in (not_written or {}) else dicom_seg,
        "confidence": None if segmentation.confidence is None else segmentation.confidence.to_dict(),
        "not_written": dict(not_written or {}),
        "scan": _describe_scan(volume),
        **{key: plain_values(provenance.get(key, {})) for key in ("policy", "propagator", "sampling")},
    }


def read_record(path: str | Path) -> EvidenceRecord:
    """Read a record that a person may have edited; every field is checked.

    Raises:
        RecordError: The file is missing or not JSON, or a field is missing, of the wrong type or out of range; the
            message names the field, the value received and what to do.
    """
    path = Path(path)
    fields = RecordFields(path, read_json(path, "`medvol segment` writes one beside every mask", _REMEDY))
    schema = fields.text("schema")
    if schema != SCHEMA:
        raise RecordError(f"{path}: schema is {schema!r}; this version of medvol reads {SCHEMA!r}")
    return EvidenceRecord(
        query=fields.text("query"),
        evidence=fields.evidence("evidence"),
        completion=fields.text("completion", may_be_empty=True),
        scan_path=fields.optional_text("scan.path"),
        scan_sha256=fields.text("scan.sha256"),
        series=fields.optional_text("scan.series") if "series" in fields.get("scan") else None,
        mask_file=fields.file_name("mask.file"),
        mask=fields.mapping("mask"),
        not_written=fields.mapping("not_written"),
        policy=fields.mapping("policy"),
        propagator=fields.mapping("propagator"),
        sampling=fields.mapping("sampling"),
        edited=fields.flag("edited"),
        confidence=fields.mapping("confidence") if fields.content.get("confidence") is not None else {},
        dicom_seg=fields.optional_text("dicom_seg") if "dicom_seg" in fields.content else None,
    )


def find_record(path: Path) -> EvidenceRecord | None:
    """A record, or None where there is none that can be read."""
    try:
        return read_record(path)
    except (RecordError, OSError):
        return None


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they come back from JSON: tuples become lists, anything that JSON lacks becomes text."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return plain


def mask_suffix(volume: Volume) -> str:
    """Format of the mask: the scan's own where it is NRRD or MetaImage, else NIfTI."""
    path = None if volume.source is None else volume.source.path
    if path is not None and ends_in(path, NRRD):
        return ".nrrd"
    return ".mha" if path is not None and ends_in(path, METAIMAGE) else ".nii.gz"


def _describe_evidence(evidence: Evidence, volume: Volume) -> dict[str, Any]:
    if evidence.key_slice is None:
        return {"absent": True, "key_slice": None, "boxes_px": [], "rationale": evidence.rationale}
    _, height, width = volume.shape
    key = evidence.key_slice
    axis, index = stored_slice(volume, key)
    centre = voxel_to_world(volume.affine, [[(width - 1) / 2, (height - 1) / 2, key]])
    return {
        "absent": False,
        "key_slice": key,
        "boxes_px": _rounded(evidence.boxes),
        "rationale": evidence.rationale,
        "stored_slice": {"axis": axis, "index": index},
        "slice_centre_mm": _rounded(centre[0]),
        "boxes_norm": to_norm(evidence.boxes, height, width).tolist(),
        "box_corners_mm": _rounded(box_corners_mm(volume, key, evidence.boxes)),
    }


def _describe_scan(volume: Volume) -> dict[str, Any]:
    source = volume.source
    return {
        "path": None if source is None or source.path is None else str(source.path),
        "series": (source.series or None) if source is not None else None,
        "sha256": hash_volume(volume),
        "modality": volume.modality,
        "shape_zyx": list(volume.shape),
        "spacing_zyx_mm": list(volume.spacing),
        "affine_stored": (volume.affine if source is None else source.affine).tolist(),
        "affine_lps": volume.affine.tolist(),
    }


def _rounded(values: NDArray[np.float64]) -> list[Any]:
    rounded: list[Any] = (np.round(values, _DECIMALS) + 0.0).tolist()
    return rounded


def _write_record(
    path: Path,
    segmentation: Segmentation,
    paths: Mapping[str, Path],
    failures: Mapping[str, str],
    dicom_seg: DicomSegKind | None,
) -> None:
    overlay = None if "overlay" in failures else paths["overlay"].name
    path.write_bytes(to_json(describe_segmentation(segmentation, paths["mask"].name, overlay, failures, dicom_seg)))
