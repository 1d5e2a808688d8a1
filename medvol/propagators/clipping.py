"""What every propagator does with an anchor: check the slice, clip boxes and range, name it where a network failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import MedvolError, PropagationError
from medvol.core.types import Evidence, Volume


def describe_anchor(volume: Volume, evidence: Evidence) -> str:
    """Name a volume and an anchor in an error message."""
    boxes = [tuple(round(float(v), 1) for v in box) for box in evidence.boxes]
    return f"volume {volume.volume_id!r}, slice {evidence.key_slice}, boxes {boxes}"


def usable_boxes(volume: Volume, evidence: Evidence, min_side_px: float = 1.0) -> NDArray[np.float64]:
    """Clip the boxes of an anchor to the slice and leave out those that show too little.

    Args:
        volume: The scan.
        evidence: Anchor; an absent one has no boxes.
        min_side_px: Boxes with a shorter side after clipping are left out.

    Returns:
        (N, 4) pixels, half-open; (0, 4) when nothing is left.

    Raises:
        PropagationError: The key slice is not in the volume, or a coordinate is not finite.
    """
    if evidence.key_slice is None:
        return np.empty((0, 4), np.float64)
    depth, height, width = volume.shape
    boxes = np.asarray(evidence.boxes, np.float64).reshape(-1, 4)
    if not 0 <= evidence.key_slice < depth:
        raise PropagationError(
            f"{describe_anchor(volume, evidence)}: the volume has the slices 0 to {depth - 1}; choose one of them"
        )
    if not np.isfinite(boxes).all():
        raise PropagationError(f"{describe_anchor(volume, evidence)}: box coordinates must be finite numbers")
    clipped = np.clip(boxes, 0, [width, height, width, height])
    return clipped[(clipped[:, 2:] - clipped[:, :2] >= min_side_px).all(axis=1)]


@contextmanager
def blamed(volume: Volume, evidence: Evidence) -> Iterator[None]:
    """Name the anchor that a network failed on; errors that tell of the set-up pass, as they hold for every anchor.

    Raises:
        PropagationError: The code within failed.
    """
    try:
        yield
    except MedvolError:
        raise
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise PropagationError(f"{describe_anchor(volume, evidence)}: {type(error).__name__}: {error}") from error


def clip_range(depth: int, z_range: tuple[int, int] | None) -> range:
    """Slices that may be filled: the half-open ``z_range`` within the volume, all slices when it is None."""
    if z_range is None:
        return range(depth)
    return range(max(0, z_range[0]), min(depth, z_range[1]))


def slices_towards(key_slice: int, allowed: range, step: int) -> range:
    """Slices after the key slice in one direction (``step`` 1 or -1), up to the far end of the allowed range."""
    end = allowed.stop if step > 0 else allowed.start - 1
    return range(key_slice + step, end, step)
