"""Stored masks: those that lie beside an answer or a reading, each the mask of the anchor in its record."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.types import Evidence, Volume
from medvol.imaging.reading import read_mask
from medvol.inference.repropagation import lacks_its_mask, same_anchor
from medvol.viewing.entries import Entry
from medvol.viewing.reading_folder import Head

Mask = NDArray[np.bool_]


def find_mask(volume: Volume, evidence: Evidence, *places: Entry | Head) -> tuple[Mask, dict[str, Any]] | None:
    """The stored mask of an anchor.

    Args:
        volume: The scan.
        evidence: The anchor.
        places: Where its mask may lie; the first one that has it counts.

    Returns:
        The mask (Z, Y, X) and the identity of the propagator that made it; None where it is stored nowhere.
    """
    for place in places:
        if same_anchor(evidence, place.record.evidence):
            mask = _read(volume, place)
            if mask is not None:
                return mask, dict(place.record.propagator)
    return None


def _read(volume: Volume, place: Entry | Head) -> Mask | None:
    """The mask beside a record; empty for a failed answer, None where the anchor was changed in the file since."""
    if isinstance(place, Entry) and place.failure:
        return np.zeros(volume.shape, bool)
    if place.folder is None or not place.record.mask_file or lacks_its_mask(volume.shape, place.record):
        return None
    path = place.folder / place.record.mask_file
    return read_mask(path, volume) if path.is_file() else None
