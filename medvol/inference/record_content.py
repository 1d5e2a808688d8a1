"""What the record of an answer says, as plain values: question, anchors in every place, measures, who answered."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.types import Evidence, Volume
from medvol.grounding.boxes import to_norm
from medvol.imaging.geometry import voxel_to_world
from medvol.imaging.volume_hash import hash_volume
from medvol.inference.box_positions import box_corners_mm, stored_slice
from medvol.inference.measurements import measure_mask
from medvol.inference.records import SCHEMA, plain_values

if TYPE_CHECKING:
    from medvol.inference.segmentation import Segmentation

_DECIMALS = 3


def describe_segmentation(
    answer: Segmentation,
    mask_file: str,
    overlay_file: str,
    dicom: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Content of the record, as plain values; the same segmentation always gives the same content.

    Args:
        answer: What is recorded.
        mask_file: Name of its mask.
        overlay_file: Name of its picture.
        dicom: Names of the DICOM outputs by their kind, and whether they say who the patient is; None without any.
    """
    provenance, volume = answer.provenance, answer.volume
    unit = "HU" if volume.modality == "CT" else None
    return {
        "schema": SCHEMA,
        "medvol": version("medvol-r1"),
        "query": answer.query,
        "evidence": _describe_evidence(answer.evidence, volume),
        "edited": bool(provenance.get("edited", False)),
        "completion": answer.completion.text,
        "mask": {"file": mask_file, **measure_mask(volume.voxels, answer.mask, volume.spacing, unit)},
        "overlay": {"file": overlay_file},
        "dicom": None if dicom is None else dict(dicom),
        "confidence": None if answer.confidence is None else answer.confidence.to_dict(),
        "reading": None if answer.reading is None else answer.reading.to_dict(),
        "not_written": {},
        "scan": _describe_scan(volume),
        **{key: plain_values(provenance.get(key, {})) for key in ("policy", "propagator", "sampling")},
    }


def _describe_evidence(evidence: Evidence, volume: Volume) -> dict[str, Any]:
    if evidence.key_slice is None:
        return {"absent": True, "key_slice": None, "boxes_px": [], "rationale": evidence.rationale}
    said, *further = [
        (
            {"key_slice": key, "boxes_px": _rounded(anchor.boxes)},
            _place_anchor(volume, key, anchor.boxes),
        )
        for anchor in evidence.anchors
        if (key := anchor.key_slice) is not None
    ]
    listed = {"further": [{**boxes, **place} for boxes, place in further]} if further else {}
    return {"absent": False, **said[0], "rationale": evidence.rationale, **said[1], **listed}


def _place_anchor(volume: Volume, key: int, boxes: NDArray[np.float64]) -> dict[str, Any]:
    """Where an anchor lies in the stored file, in the grammar's integers and in the world."""
    _, height, width = volume.shape
    axis, index = stored_slice(volume, key)
    centre = voxel_to_world(volume.affine, [[(width - 1) / 2, (height - 1) / 2, key]])
    return {
        "stored_slice": {"axis": axis, "index": index},
        "slice_centre_mm": _rounded(centre[0]),
        "boxes_norm": to_norm(boxes, height, width).tolist(),
        "box_corners_mm": _rounded(box_corners_mm(volume, key, boxes)),
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
