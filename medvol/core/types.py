"""What flows through medvol: frozen dataclasses on NumPy arrays, no torch.

Axes are always (Z, Y, X); boxes are (x1, y1, x2, y2), half-open, in pixels of the volume's own slices.
Inside, every volume is in LPS orientation: x grows to the patient's left, y to the back, z to the head, so an axial
slice ``voxels[z]`` is ready for display, the patient's left on the image's right. World mm are as in NIfTI (RAS+).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError, MedvolError
from medvol.core.looks import Look
from medvol.core.ranges import require_choice
from medvol.core.reprs import Brief
from medvol.core.sampling import Sampling as Sampling

Modality = Literal["CT", "MR", "other"]  # CT promises Hounsfield units; the others are windowed by percentiles
QueryKind = Literal["implicit", "explicit", "side", "relational", "absent", "free"]


@dataclass(frozen=True, eq=False, repr=False)
class Source(Brief):
    """Where a volume came from, so that a mask can go back to the very same grid.

    Args:
        path: File, or folder of DICOM, that was read; None for a volume made in memory.
        affine: Stored affine, voxel (i, j, k) to world mm (RAS+), shape (4, 4), bit-equal to the file's.
        shape: Stored shape (I, J, K).
        orientation: nibabel orientation array from the stored to the canonical axes, shape (3, 2).
        header: Header to copy units and codes from, or None.
        series: What the caller named a DICOM series by; empty when none was named.
        read_with: What else the caller gave of ``modality``, ``assume_orientation`` and ``nan_to``, by name.
    """

    path: Path | None
    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    orientation: NDArray[np.float64]
    header: Any = None
    series: str = ""
    read_with: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Volume(Brief):
    """A scan in LPS orientation.

    Args:
        voxels: Intensities (Z, Y, X), float32; Hounsfield units when ``modality`` is ``CT``.
        affine: Voxel index (x, y, z, 1) to world mm (RAS+), shape (4, 4).
        modality: See ``Modality``.
        volume_id: Identity used for caching and grouping; equal ids mean equal voxels.
        source: Original geometry; None when the volume is already in its original grid.
        shown: Half-open range of the slices that a policy is shown, as far as its prompt has room; all when None.
    """

    voxels: NDArray[np.float32]
    affine: NDArray[np.float64]
    modality: Modality = "CT"
    volume_id: str = ""
    source: Source | None = None
    shown: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (Z, Y, X)."""
        z, y, x = self.voxels.shape
        return z, y, x

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size (z, y, x) in mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).tolist()
        return z, y, x

    def axial(self, z: int) -> NDArray[np.float32]:
        """One axial slice (Y, X); a volume kept on disk reads no other one for it."""
        return np.asarray(self.voxels[z])

    def percentiles(self, shares: Sequence[float]) -> list[float]:
        """Intensities at shares of 0 to 100, see ``voxel_percentiles``."""
        return voxel_percentiles(self.voxels, shares)

    @property
    def summary(self) -> str:
        """Kind, size and spacing in words."""
        shape, spacing = (" x ".join(f"{side:.4g}" for side in sides) for sides in (self.shape, self.spacing))
        return f"{self.modality}, {shape} voxels of {spacing} mm (z, y, x)"

    def _repr_html_(self) -> str:
        """What a notebook shows of it: three slices from feet to head, and what they are; no file name."""
        from medvol.core.volume_picture import draw_slices

        low, dark, bright, high = self.percentiles((0.0, 1.0, 99.0, 100.0))
        shown = [int(share * (self.shape[0] - 1)) for share in (0.25, 0.5, 0.75)]
        data = draw_slices([self.axial(z) for z in shown], (dark, bright), self.spacing[1:])
        facts = f"{escape(self.summary)}, {low:.4g} to {high:.4g}{' HU' if self.modality == 'CT' else ''}"
        return (
            f'<figure style="margin:0"><img style="max-width:100%" alt="three axial slices" '
            f'src="data:image/png;base64,{data}"><figcaption>{facts}; slices {", ".join(map(str, shown))}</figcaption>'
            "</figure>"
        )


def voxel_percentiles(voxels: NDArray[Any], shares: Sequence[float]) -> list[float]:
    """Intensities at shares of 0 to 100, over about two million voxels spread evenly; 0 and 100 are those of all."""
    sample = voxels.flat[:: max(1, voxels.size // 2_000_000)].astype(np.float32)
    values: NDArray[np.float32] = np.percentile(sample, shares).astype(np.float32)
    ends = {0.0: np.min, 100.0: np.max}
    return [float(np.float32(ends[q](voxels))) if q in ends else float(v) for q, v in zip(shares, values, strict=True)]


@dataclass(frozen=True, repr=False)
class Query(Brief):
    """A free-form question about a scan.

    Args:
        text: The question, as a person would type it.
        target: Name of what is asked for (``left kidney``); empty when it is not known.
        kind: How the question points at its target; ``absent`` asks for something the scan does not show.
        held_out: True for a phrasing that no training query uses.
        modality: The one modality that the text speaks of; None when it suits every scan.
        meaning: Structure that a relational query means in its scan (``left kidney``); training answers reason with it.
    """

    text: str
    target: str = ""
    kind: QueryKind = "free"
    held_out: bool = False
    modality: Modality | None = None
    meaning: str = ""

    def __post_init__(self) -> None:
        require_choice(QueryKind, "query", kind=self.kind)
        if self.modality is not None:
            require_choice(Modality, "query", modality=self.modality)


@dataclass(frozen=True, eq=False, repr=False)
class Case(Brief):
    """One query about one volume, with the answer when it is known.

    Args:
        case_id: Unique within a data set.
        volume: The scan.
        query: The question.
        target: True mask (Z, Y, X) bool on the volume's grid; None when unknown; all False when the target is absent.
        patient_id: Cases of one patient must stay in one split; intervals are by patient.
        surface_tolerance_mm: Tolerance of the surface Dice that a challenge sets for this target, or None.
        anchor: True anchor that a reader gave, which SFT teaches; worked out from the mask when None.
    """

    case_id: str
    volume: Volume
    query: Query
    target: NDArray[np.bool_] | None = None
    patient_id: str = ""
    surface_tolerance_mm: float | None = None
    anchor: Evidence | None = None


def require_target(case: Case) -> NDArray[np.bool_]:
    """The true mask of a case.

    Raises:
        DatasetError: It has none, or an empty one that the case does not declare absent: ``[]`` would be taught.
    """
    if case.target is not None and case.query.kind != "absent" and not case.target.any():
        raise DatasetError(
            f"case {case.case_id!r} asks for {case.query.target or case.query.text!r}, and its mask is empty; "
            "correct the mask, or let query.kind be 'absent' where the scan does not show it"
        )
    if case.target is None:
        raise DatasetError(
            f"case {case.case_id!r} has no target mask, which scoring needs; use `medvol predict` for scans without one"
        )
    return case.target


@dataclass(frozen=True, eq=False, repr=False)
class Evidence(Brief):
    """The evidence anchor: one key slice and 2D boxes on it.

    Args:
        key_slice: Index of the slice in the volume; None when the answer says that the target is absent.
        boxes: (N, 4) float64, pixels of the volume's slice, x1, y1, x2, y2, half-open; (0, 4) when absent.
        rationale: The text between the think tags.
        further: Further anchors of the same answer, each on another slice; only where the prompt allows several.
    """

    key_slice: int | None
    boxes: NDArray[np.float64]
    rationale: str = ""
    further: tuple[Evidence, ...] = ()

    @property
    def anchors(self) -> tuple[Evidence, ...]:
        """Each anchor of the answer alone, at least one; an absent one is the only one."""
        return (replace(self, further=()), *self.further) if self.further else (self,)

    @property
    def key_slices(self) -> list[int]:
        """Key slices of all anchors, ascending; none for an absent one."""
        return sorted(anchor.key_slice for anchor in self.anchors if anchor.key_slice is not None)

    @property
    def absent(self) -> bool:
        """True when the answer says that the target is not in the scan."""
        return self.key_slice is None


@dataclass(frozen=True, eq=False, repr=False)
class SliceStack(Brief):
    """The axial slices that a policy sees.

    Args:
        indices: Index of each slice in the volume, ascending, length S.
        pixels: (S, 3, H, W) float32 in [0, 1]: three intensity windows as channels, resized to the template's size.
        volume_shape: (Z, Y, X) of the volume the slices were taken from.
    """

    indices: tuple[int, ...]
    pixels: NDArray[np.float32]
    volume_shape: tuple[int, int, int]


@dataclass(frozen=True, eq=False, repr=False)
class Completion(Brief):
    """One answer of a policy.

    Args:
        text: Decoded text, special tokens left out.
        token_ids: (T,) int64, with the end token when it was written; empty for a policy without tokens, -1 where
            a server does not tell.
        log_probs: (T,) float32 log-probability of each token when it was drawn, or None.
        samples: Further answers to the same prompt, drawn at random, to see how sure the policy is.
        looks: Every look of a policy that looks more than once, the first at the whole scan; empty for other policies.
            Tokens and log-probabilities are then those of the look that the text comes from.
    """

    text: str
    token_ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    log_probs: NDArray[np.float32] | None = None
    samples: tuple[Completion, ...] = ()
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Rollout(Brief):
    """A completion followed to its mask.

    Args:
        case_id: Case that was asked.
        completion: The policy's answer.
        evidence: What the answer says; None when it could not be parsed.
        failure: Name of the failure of the policy, the parser or the propagator; None when there was none.
        mask: (Z, Y, X) bool propagated from the evidence; None when nothing needed it or the answer failed.
        detail: The failure in words; empty when there was none.
        error: What the policy or the propagator raised; None if they raised nothing.
        max_anchors: Most anchors that the prompt allowed in the answer.
    """

    case_id: str
    completion: Completion
    evidence: Evidence | None = None
    failure: str | None = None
    mask: NDArray[np.bool_] | None = None
    detail: str = ""
    error: MedvolError | None = None
    max_anchors: int = 1
