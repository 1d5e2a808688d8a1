"""Evidence records: a JSON file beside every mask that a person can read, check and edit.

What counts when an edited record is read is ``evidence.key_slice`` and ``evidence.boxes_px``; the same place in the
stored file's axes, in the grammar's integers and in world millimetres is written beside it for other programs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import RecordError
from medvol.core.evaluation.metrics import volume_ml
from medvol.core.grounding.boxes import to_norm
from medvol.core.imaging.dicom.segmentation import DicomSegKind, write_dicom_seg
from medvol.core.imaging.geometry import voxel_to_world
from medvol.core.imaging.reading import METAIMAGE_SUFFIXES, NRRD_SUFFIXES
from medvol.core.imaging.writing import write_mask
from medvol.core.inference.overlay import render_overlay
from medvol.core.inference.record_fields import RecordFields
from medvol.core.json_file import read_json
from medvol.core.types import Evidence, Segmentation, Volume
from medvol.core.whole_file import write_whole

SCHEMA = "medvol-evidence/1"
"""Version of the record's layout."""

DICOM_SEG_SUFFIX = ".dcm"
"""Ending of a DICOM segmentation object beside a record."""

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
        policy: Identity of the policy.
        propagator: Identity of the propagator.
        sampling: How the completion was drawn.
        edited: True when the anchor is no longer what the completion says.
        confidence: What was known about how far it can be trusted; empty where the anchor came from a record.
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
    confidence: Mapping[str, Any] = field(default_factory=dict)


def save_segmentation(
    segmentation: Segmentation, folder: Path, name: str, dicom_seg: DicomSegKind | None = None
) -> dict[str, Path]:
    """Write mask, record and overlay, whole or not at all; the record appears last, so where it is the rest is too.

    Args:
        segmentation: What to write.
        folder: Created when it does not exist.
        name: Stem of the files; earlier ones of that name are replaced.
        dicom_seg: Write a DICOM segmentation object too, see ``write_dicom_seg``.

    Returns:
        Path of each file: ``mask``, ``record``, ``overlay``, and ``dicom_seg`` when it was asked for.

    Raises:
        RecordError: The name cannot be a file name.
        ConfigError: A DICOM segmentation of a scan that was not read from DICOM.
    """
    if not name or name.startswith(".") or any(character in name for character in "/\\\0"):
        raise RecordError(f"{name!r} cannot be the name of files; use letters, digits, '-' and '_'")
    folder = Path(folder)
    paths = {
        "mask": folder / f"{name}{mask_suffix(segmentation.volume)}",
        "record": folder / f"{name}.json",
        "overlay": folder / f"{name}.png",
    }
    content = describe_segmentation(segmentation, paths["mask"].name, paths["overlay"].name)
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    picture = render_overlay(segmentation)
    with ExitStack() as stack:  # leaving it renames in reverse order: mask, overlay, record
        partial = {kind: stack.enter_context(write_whole(paths[kind])) for kind in ("record", "overlay", "mask")}
        write_mask(partial["mask"], segmentation.mask, segmentation.volume)
        partial["overlay"].write_bytes(picture)
        if dicom_seg is not None:
            paths["dicom_seg"] = folder / f"{name}{DICOM_SEG_SUFFIX}"
            write_dicom_seg(paths["dicom_seg"], segmentation.mask, segmentation.volume, segmentation.query, dicom_seg)
        partial["record"].write_text(text, encoding="utf-8")
        paths["record"].unlink(missing_ok=True)
    return paths


def describe_segmentation(segmentation: Segmentation, mask_file: str, overlay_file: str) -> dict[str, Any]:
    """Content of the record, as plain values; the same segmentation always gives the same content."""
    provenance = segmentation.provenance
    return {
        "schema": SCHEMA,
        "medvol": version("medvol-r1"),
        "query": segmentation.query,
        "evidence": _describe_evidence(segmentation.evidence, segmentation.volume),
        "edited": bool(provenance.get("edited", False)),
        "completion": segmentation.completion.text,
        "mask": {
            "file": mask_file,
            "voxels": int(segmentation.mask.sum()),
            "volume_ml": round(volume_ml(segmentation.mask, segmentation.volume.spacing), _DECIMALS),
        },
        "overlay": {"file": overlay_file},
        "confidence": None if segmentation.confidence is None else segmentation.confidence.to_dict(),
        "scan": _describe_scan(segmentation.volume),
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
        mask_file=fields.text("mask.file"),
        policy=fields.mapping("policy"),
        propagator=fields.mapping("propagator"),
        sampling=fields.mapping("sampling"),
        edited=fields.flag("edited"),
        confidence=fields.mapping("confidence") if fields.content.get("confidence") is not None else {},
    )


def hash_volume(volume: Volume) -> str:
    """Hash of the shape, geometry and voxels of a volume; it does not depend on the file's name or compression."""
    digest = hashlib.sha256()
    for array in (np.array(volume.shape, np.int64), volume.affine, volume.voxels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they come back from JSON: tuples become lists, anything that JSON lacks becomes text."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(values), default=str))
    return plain


def mask_suffix(volume: Volume) -> str:
    """Format of the mask: the scan's own where it is NRRD or MetaImage, else NIfTI."""
    path = None if volume.source is None else volume.source.path
    name = "" if path is None else path.name.lower()
    if name.endswith(NRRD_SUFFIXES):
        return ".nrrd"
    return ".mha" if name.endswith(METAIMAGE_SUFFIXES) else ".nii.gz"


def stored_slice(volume: Volume, key_slice: int) -> tuple[int, int]:
    """Axis of the stored file that the slices lie along, and the index of a slice there.

    Args:
        volume: The scan.
        key_slice: Index in the LPS volume.
    """
    if volume.source is None:
        return 2, key_slice
    orientation = volume.source.orientation
    axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
    return axis, key_slice if orientation[axis, 1] > 0 else volume.source.shape[axis] - 1 - key_slice


def box_corners_mm(volume: Volume, key_slice: int, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners of boxes in world mm (RAS+), (N, 4, 3), clockwise from the first.

    Boxes run along the outer edges of their pixels, half a pixel beyond the centres, which voxel indices mean.
    """
    x1, y1, x2, y2 = boxes.T - 0.5
    z = np.full(len(boxes), float(key_slice))
    corners = np.stack([np.stack([x, y, z], axis=-1) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))], axis=1)
    return voxel_to_world(volume.affine, corners).reshape(-1, 4, 3)


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
