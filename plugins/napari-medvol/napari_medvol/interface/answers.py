"""Answers as the interface sends them: scan, anchors, masks and measures, each checked before it is used."""

from __future__ import annotations

import base64
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .anchors import Anchor

_MOST_VOXELS = 2**33
_GZIP = 16 + zlib.MAX_WBITS

Mask = NDArray[np.bool_]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Scan:
    """A scan's geometry, and how its voxels are sent.

    Args:
        scan_id: Names it in addresses.
        name: As people see it.
        shape: Voxels (Z, Y, X); the axes run to the head, to the back and to the patient's left.
        spacing_mm: Distance of voxels (z, y, x).
        affine_ras: 4 x 4, from voxel (x, y, z) to RAS millimetres.
        unit: Of its intensities; empty where they have none.
        slope: Intensity = slope * stored + intercept.
        intercept: See slope.
        windows: Name, lowest and highest intensity of each window.
    """

    scan_id: str
    name: str
    shape: Shape
    spacing_mm: tuple[float, float, float]
    affine_ras: NDArray[np.float64]
    unit: str
    slope: float
    intercept: float
    windows: dict[str, tuple[float, float]]

    @staticmethod
    def read(content: dict[str, Any]) -> Scan:
        """A scan from JSON.

        Raises:
            ValueError, TypeError, KeyError: It is none.
        """
        depth, height, width = (int(value) for value in content["shape_zyx"])
        z, y, x = (float(value) for value in content["spacing_zyx_mm"])
        affine = np.array(content["affine_ras"], np.float64)
        if min(depth, height, width) < 1 or depth * height * width > _MOST_VOXELS:
            raise ValueError(f"a scan of {depth} x {height} x {width} voxels")
        if (
            affine.shape != (4, 4)
            or not np.isfinite(affine).all()
            or not all(0 < length < np.inf for length in (z, y, x))
        ):
            raise ValueError("the geometry of the scan is none")
        windows = {str(item["name"]): (float(item["low"]), float(item["high"])) for item in content["windows"]}
        slope, intercept, unit = float(content["slope"]), float(content["intercept"]), str(content["unit"] or "")
        shape, spacing = (depth, height, width), (z, y, x)
        return Scan(str(content["scan"]), str(content["name"]), shape, spacing, affine, unit, slope, intercept, windows)

    def intensities(self, stored: NDArray[np.int16]) -> NDArray[Any]:
        """Intensities of stored numbers; whole numbers of 16 bits, as in CT, stay as they are."""
        if self.slope == 1.0 and self.intercept == 0.0:
            return stored
        return stored.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)


@dataclass(frozen=True)
class State:
    """An anchor with its mask.

    Args:
        anchor: Key slice and boxes.
        mask: Voxels (Z, Y, X).
        measures: ``volume_ml``, ``mean_intensity`` and others, see docs/how-to/view.md.
    """

    anchor: Anchor
    mask: Mask
    measures: dict[str, Any]

    @staticmethod
    def read(anchor: Anchor, content: dict[str, Any], shape: Shape) -> State:
        """What the interface sends about an anchor; raises as ``Answer.read`` does."""
        return State(anchor, unpack_mask(content["mask"], shape), dict(content["measures"]))

    def describe(self) -> str:
        """``8.64 ml, mean 62.0 HU, 38.4 mm by 37.5 mm on slice 2``."""
        known = self.measures
        if not known.get("voxels"):
            return "no voxel"
        parts = [f"{known['volume_ml']:.4g} ml"]
        if known.get("mean_intensity") is not None:
            parts.append(f"mean {known['mean_intensity']:.1f} {known.get('intensity_unit') or ''}".rstrip())
        longest, across = known.get("longest_diameter_mm"), known.get("perpendicular_diameter_mm")
        if longest is not None and across is not None:
            parts.append(f"{_show_mm(longest)} by {_show_mm(across)} on slice {known.get('diameter_slice')}")
        return ", ".join(parts)


def _show_mm(length: float) -> str:
    return f"{length:.1f} mm" if length >= 1 else f"{length:.2g} mm"


@dataclass(frozen=True)
class Answer:
    """An answer that was opened.

    Args:
        answer_id: Names it in addresses.
        query: What was asked.
        scan: About which scan.
        window: Name of the window that suits the question.
        original: As the policy answered.
        current: As the last reader left it.
        sha256: Of the record that ``current`` stands in; a reading names it as its parent.
        draft: Anchor that somebody began and did not finish; None where there is none.
        remark: Of the draft.
        revision: Of the draft; 0 where there is none.
        notes: Warnings and other sentences that a reader should see.
        completion: The policy's own words.
        verdict: Of the last reading; empty where there is none.
    """

    answer_id: str
    query: str
    scan: Scan
    window: str
    original: State
    current: State
    sha256: str
    draft: Anchor | None
    remark: str
    revision: int
    notes: tuple[str, ...]
    completion: str
    verdict: str

    @property
    def several(self) -> bool:
        """Whether its boxes may lie on several slices: they do in the answer, in the last reading, or in the draft."""
        known = (self.original.anchor, self.current.anchor, self.draft)
        return any(anchor is not None and anchor.further for anchor in known)

    @staticmethod
    def read(content: dict[str, Any]) -> Answer:
        """An answer from JSON.

        Raises:
            ValueError, TypeError, KeyError: It is none.
        """
        scan, draft = Scan.read(content["scan"]), content["draft"]
        states = [State.read(Anchor.read(content[name]), content[name], scan.shape) for name in ("original", "current")]
        notes = [f"warning: {text}" for text in content["warnings"]]
        if content["failure"]:
            notes.append(f"the answer gave no mask: {content['failure']}")
        if not content["same_propagator"]:
            notes.append("the answer was made by another propagator, or with other settings")
        if draft is not None and draft["parent_sha256"] != content["current"]["sha256"]:
            notes.append("the draft was begun before the last reading, and is shown in its place")
        return Answer(
            str(content["id"]),
            str(content["query"]),
            scan,
            str(content["window"]),
            states[0],
            states[1],
            str(content["current"]["sha256"]),
            None if draft is None else Anchor.read(draft),
            "" if draft is None else str(draft["remark"]),
            0 if draft is None else int(draft["revision"]),
            tuple(notes),
            str(content["completion"]),
            str(content["verdict"] or ""),
        )


def unpack_mask(packed: dict[str, Any], shape: Shape) -> Mask:
    """The mask (Z, Y, X) whose bounding box the interface sends.

    Raises:
        ValueError: It does not fit into a scan of this shape, or has other bits than it says.
    """
    mask = np.zeros(shape, np.bool_)
    origin, own = ([int(value) for value in packed[name]] for name in ("origin_zyx", "shape_zyx"))
    if (
        len(origin) != 3
        or len(own) != 3
        or any(origin[i] < 0 or own[i] < 0 or origin[i] + own[i] > shape[i] for i in range(3))
    ):
        raise ValueError(f"a mask at {origin} of shape {own} does not fit into {list(shape)}")
    count = math.prod(own)
    if not count:
        return mask
    unpacker = zlib.decompressobj(_GZIP)
    length = (count + 7) // 8
    try:
        bits = unpacker.decompress(base64.b64decode(packed["bits"], validate=True), length + 1)
    except zlib.error as error:
        raise ValueError(f"the bits of a mask are damaged ({error})") from error
    if len(bits) != length:
        raise ValueError(f"a mask of {count} voxels has {len(bits)} bytes")
    values = np.unpackbits(np.frombuffer(bits, np.uint8), count=count, bitorder="little").astype(np.bool_)
    mask[tuple(slice(origin[i], origin[i] + own[i]) for i in range(3))] = values.reshape(own)
    return mask
