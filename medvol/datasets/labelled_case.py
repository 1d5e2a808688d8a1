"""LabelledCase: a case that also knows what everything else in its scan is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medvol.core.types import Case


@dataclass(frozen=True, eq=False, repr=False)
class LabelledCase(Case):
    """A case with the label map of its volume.

    Args:
        case_id: See ``Case``.
        volume: See ``Case``.
        query: See ``Case``.
        target: See ``Case``.
        patient_id: See ``Case``.
        surface_tolerance_mm: See ``Case``.
        anchor: See ``Case``.
        labels: Label map (Z, Y, X) on the volume's grid, 0 where nothing is named.
    """

    labels: NDArray[np.uint8] = field(kw_only=True)
