"""Deformations: a random turn, stretch, cut and smooth bend of a body, as the places where a scan is sampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from medvol.core.errors import ConfigError
from medvol.core.ranges import require_between, require_share
from medvol.core.reprs import Brief

MAX_BEND = 0.4
"""Largest ``bend``. Cubic B-splines whose control points move by less than 0.403 of their distance never fold space.

Source: Choi and Lee, Injectivity conditions of 2D and 3D uniform cubic B-spline functions, Graphical Models 62 (2000).
"""

_DEGREE = 3


@dataclass(frozen=True, repr=False)
class DeformationSettings(Brief):
    """How strongly the body and the field of view change.

    Args:
        turn_degrees: Largest rotation about the axis of the body.
        tilt_degrees: Largest rotation about the two other axes.
        stretch: Largest change of a length, on each axis apart: 0.2 is a factor from 1/1.2 to 1.2.
        bend: Largest movement of a control point of the smooth bend, as a share of the distance to the next: 0 to 0.4.
        bend_mm: Distance between control points, about.
        field: Smallest and largest field of view within a slice, as a factor of the source's.
        shift: Largest movement of that field, as a share of the source's.
        height: Smallest and largest run of slices that is kept, as a share of the source's height.
        mirror: Share of scans that are mirrored from left to right. Left and right then change their names, but an
            organ that lies on one side moves to the other, so it suits pairs only, such as lungs or knees.

    Raises:
        ConfigError: A value is out of its range.
    """

    turn_degrees: float = 12.0
    tilt_degrees: float = 3.0
    stretch: float = 0.2
    bend: float = 0.35
    bend_mm: float = 60.0
    field: tuple[float, float] = (0.8, 1.4)
    shift: float = 0.08
    height: tuple[float, float] = (0.6, 1.0)
    mirror: float = 0.0

    def __post_init__(self) -> None:
        angles = {"turn_degrees": self.turn_degrees, "tilt_degrees": self.tilt_degrees}
        require_between("[0, inf)", "deformation", **angles, stretch=self.stretch, bend=self.bend, shift=self.shift)
        require_share("deformation", mirror=self.mirror)
        if self.bend > MAX_BEND:
            raise ConfigError(f"deformation.bend is {self.bend}; above {MAX_BEND} a bend may fold the body; lower it")
        require_between("(0, inf)", "deformation", bend_mm=self.bend_mm)
        for name, (low, high), most in (("field", self.field, np.inf), ("height", self.height, 1.0)):
            if not (0 < low <= high <= most and np.isfinite(high)):
                limit = "" if most == np.inf else f" of at most {most:g}"
                raise ConfigError(
                    f"deformation.{name} is two numbers above 0{limit}, the smaller first; got {(low, high)}"
                )


@dataclass(frozen=True, eq=False)
class Deformation:
    """Where each voxel of a made scan lies in its source.

    Args:
        places: (3, Z, Y, X) float32, index (z, y, x) in the source; z never leaves the source, y and x may.
        spacing: Voxel size (z, y, x) of the made scan in mm.
        voxel_mm3: Volume in the source that a voxel of the made scan stands for, but for the bend.
        mirrored: Left and right are exchanged.
    """

    places: NDArray[np.float32]
    spacing: tuple[float, float, float]
    voxel_mm3: float
    mirrored: bool


def sample_deformation(
    rng: np.random.Generator,
    settings: DeformationSettings,
    source: tuple[int, int, int],
    spacing: tuple[float, float, float],
    shape: tuple[int, int, int],
) -> Deformation:
    """Choose a deformation at random.

    Args:
        rng: Source of everything random.
        settings: How strong it is.
        source: Shape (Z, Y, X) of the source.
        spacing: Voxel size (z, y, x) of the source in mm.
        shape: Shape (Z, Y, X) of the made scan.
    """
    size = np.array(source) * np.array(spacing)
    stretch = (1 + settings.stretch) ** rng.uniform(-1, 1, 3)
    height, zoom = rng.uniform(*settings.height), rng.uniform(*settings.field)
    field = size * np.array([height, zoom / stretch[1], zoom / stretch[2]])
    move = rng.uniform(-1, 1, 3) * np.array([(1 - height) / 2, settings.shift, settings.shift]) * size
    tilts = rng.uniform(-1, 1, 2) * settings.tilt_degrees
    angles = rng.uniform(-1, 1) * settings.turn_degrees, *tilts
    turn = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()[::-1, ::-1]
    mirrored = bool(rng.random() < settings.mirror)
    axes = [(np.arange(count) + 0.5) / count - 0.5 for count in shape]
    straight = np.stack(np.meshgrid(*(axis * length for axis, length in zip(axes, field, strict=True)), indexing="ij"))
    bent = straight + _sample_bend(rng, settings, field, shape)
    if mirrored:
        bent[2] *= -1
    turned = np.tensordot(turn, bent, 1) + move[:, None, None, None]
    places = turned / np.array(spacing)[:, None, None, None] + (np.array(source)[:, None, None, None] - 1) / 2
    places[0] = places[0].clip(0, source[0] - 1)
    made = field * stretch / np.array(shape)
    return Deformation(
        places.astype(np.float32),
        (float(made[0]), float(made[1]), float(made[2])),
        float(np.prod(field / np.array(shape))),
        mirrored,
    )


def _sample_bend(
    rng: np.random.Generator, settings: DeformationSettings, field: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Displacement (3, Z, Y, X) in mm: cubic B-splines over control points that move at random."""
    spans = np.maximum(1, np.rint(field / settings.bend_mm).astype(int))
    reach = settings.bend * field / spans
    moves = rng.uniform(-1, 1, (3, *(spans + _DEGREE))) * reach[:, None, None, None]
    z, y, x = (_weights(count, span) for count, span in zip(shape, spans.tolist(), strict=True))
    bend: NDArray[np.float64] = np.einsum("aijk,zi,yj,xk->azyx", moves, z, y, x, optimize=True)
    return bend


def _weights(count: int, spans: int) -> NDArray[np.float64]:
    """Weight (count, spans + 3) of every control point in every voxel along an axis."""
    places = (np.arange(count) + 0.5) / count * spans
    knots = np.arange(-_DEGREE, spans + _DEGREE + 1)
    weights: NDArray[np.float64] = BSpline.design_matrix(places, knots, _DEGREE).toarray()
    return weights
