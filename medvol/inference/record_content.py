"""What a record says of anchors and of the scan, as plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.looks import AXES, Look
from medvol.core.types import Evidence, Volume
from medvol.grounding.boxes import to_norm
from medvol.imaging.geometry import voxel_to_world
from medvol.imaging.volume_hash import hash_volume
from medvol.inference.box_positions import box_corners_mm, stored_slice

_DECIMALS = 3


def describe_evidence(evidence: Evidence, volume: Volume) -> dict[str, Any]:
    """Anchors in pixels, in the stored file, in the grammar's integers and in the world; the first is not in a list."""
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


def digest_anchor(evidence: Evidence) -> str:
    """Hexadecimal digits that tell slices and boxes from others, as a record keeps them; their order does not count."""
    anchors = [(anchor.key_slice, _rounded(anchor.boxes)) for anchor in evidence.anchors]
    return hashlib.sha256(json.dumps(sorted(anchors, key=str)).encode()).hexdigest()


def describe_looks(looks: Sequence[Look]) -> dict[str, Any]:
    """Every look of a policy that looks more than once; nothing for another policy."""
    listed = [
        {
            "region": {axis: list(getattr(look.region, axis)) for axis in AXES},
            "answer": look.answer,
            "failure": look.failure,
        }
        for look in looks
    ]
    return {"looks": listed} if listed else {}


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


def describe_scan(volume: Volume) -> dict[str, Any]:
    """Where a scan was read, which one it is, and its geometry."""
    source = volume.source
    return {
        "path": None if source is None or source.path is None else str(source.path),
        "series": (source.series or None) if source is not None else None,
        "sha256": hash_volume(volume),
        "modality": volume.modality,
        "read_with": {} if source is None else dict(source.read_with),
        "shape_zyx": list(volume.shape),
        "spacing_zyx_mm": list(volume.spacing),
        "affine_stored": (volume.affine if source is None else source.affine).tolist(),
        "affine_ras": volume.affine.tolist(),
    }


def _rounded(values: NDArray[np.float64]) -> list[Any]:
    rounded: list[Any] = (np.round(values, _DECIMALS) + 0.0).tolist()
    return rounded
