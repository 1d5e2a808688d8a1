"""Anatomy of the phantom: a contrast-enhanced CT of the abdomen in Hounsfield units, organ by organ.

Lengths are in the body coordinates of ``BodySpace``. What is painted later covers what was painted before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.datasets.phantom_space import BodySpace, draw_space

LABEL_NAMES = (
    "background",
    "liver",
    "spleen",
    "left kidney",
    "right kidney",
    "pancreas",
    "aorta",
    "urinary bladder",
    "gallbladder",
    "stomach",
    "kidney lesion",
    "spine",
    "inferior vena cava",
    "nodule",
)
"""Name of each value of a phantom's label map."""

LABELS = {name: value for value, name in enumerate(LABEL_NAMES)}
"""Value of each name in a phantom's label map."""

_SIDES = {"left kidney": 1.0, "right kidney": -1.0}
_MIN_LESION_VOXELS = 60
_LESION_TRIES = 12
_NODULE_HEIGHTS = (0.15, 0.85)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic scan.

    Args:
        voxels: (Z, Y, X) float32, Hounsfield units.
        labels: (Z, Y, X) uint8, values of ``LABELS``.
        spacing: Voxel size (z, y, x) in mm.
    """

    voxels: NDArray[np.float32]
    labels: NDArray[np.uint8]
    spacing: tuple[float, float, float]


def draw_phantom(
    rng: np.random.Generator, shape: tuple[int, int, int], lesion_side: str | None = None, nodules: int = 0
) -> Phantom:
    """Draw a scan of a random body.

    Args:
        rng: Source of everything random.
        shape: (Z, Y, X).
        lesion_side: ``left kidney`` or ``right kidney`` for a tumour or cyst of that kidney; None for none.
        nodules: Bright nodules between the organs, each at another height.
    """
    painter = _Painter(draw_space(rng, shape), rng)
    painter.paint_frame()
    painter.paint_bowel()
    painter.paint_upper_abdomen()
    kidneys = painter.paint_kidneys()
    painter.paint_bile_and_bladder()
    painter.paint_vessels()
    if lesion_side is not None:
        painter.paint_lesion(lesion_side, *kidneys[lesion_side])
    painter.paint_nodules(nodules)
    return Phantom(painter.scan(), painter.labels, painter.space.spacing)


class _Painter:
    """Paints organs into a scan and its label map."""

    def __init__(self, space: BodySpace, rng: np.random.Generator) -> None:
        self.space = space
        self.rng = rng
        self.voxels = np.full(space.shape, -1000.0, np.float32)
        self.labels = np.zeros(space.shape, np.uint8)
        self.cavity = np.zeros(space.shape[1:], bool)

    def _draw(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def _near(self, *position: float, spread: float = 0.03) -> tuple[float, float, float]:
        """A position (x, y, z) that varies from body to body."""
        x, y, z = np.asarray(position) + self.rng.normal(0, spread, 3).clip(-2 * spread, 2 * spread)
        return float(x), float(y), float(z)

    def _paint(self, name: str, mask: NDArray[np.bool_], hounsfield: float) -> None:
        inside = mask & self.cavity
        self.voxels[inside] = hounsfield
        self.labels[inside] = LABELS[name]

    def paint_frame(self) -> None:
        """Skin, fat, muscle wall, cavity, spine, psoas and ribs."""
        space = self.space
        wide, deep, fat = self._draw(0.82, 0.90), self._draw(0.58, 0.68), self._draw(0.03, 0.10)
        body, wall, cavity = (space.disc((0, 0), (wide - d, deep - d)) < 1 for d in (0, fat, fat + 0.06))
        self.cavity = cavity
        self.voxels[:, body] = self._draw(-115, -95)
        self.voxels[:, wall] = self._draw(48, 62)
        self.voxels[:, cavity] = self._draw(-110, -90)
        for side in (-1, 1):
            psoas = space.disc((side * 0.2, 0.36), (0.09, 0.1)) < 1
            self.voxels[(space.z < 0.55)[:, None, None] & psoas] = 55
            back = (space.disc((side * 0.25, 0.5), (0.22, 0.09)) < 1) & body
            self.voxels[:, back] = 55
        spine = space.disc((0, 0.36), (0.13, 0.12)) < 1
        self.voxels[:, spine] = self._draw(280, 420)
        self.voxels[:, space.disc((0, 0.5), (0.04, 0.035)) < 1] = 30
        self.labels[:, spine] = LABELS["spine"]
        self._paint_ribs(wide - fat - 0.03, deep - fat - 0.03)

    def _paint_ribs(self, wide: float, deep: float) -> None:
        """Nine ribs a slice, cut obliquely, so that they wander around the wall from slice to slice."""
        space, phase = self.space, self._draw(0, 2 * np.pi)
        ring = np.abs(np.sqrt(space.disc((0, 0), (wide, deep))) - 1) < 0.045
        around = np.arctan2(space.y[ring] / deep, space.x[ring] / wide)
        chest = np.flatnonzero(space.z > 0.55)
        turn = phase + 1.5 * (space.z[chest, None] - 0.5)
        ribs = np.zeros((len(chest), *ring.shape), bool)
        ribs[:, ring] = np.cos(9 * (around - turn)) > 0.86
        self.voxels[chest] = np.where(ribs, np.float32(350), self.voxels[chest])

    def paint_bowel(self) -> None:
        """Loops without a label, some with gas: they look like organs and are none."""
        for _ in range(self.rng.integers(6, 12)):
            centre = self._draw(-0.5, 0.5), self._draw(-0.35, 0.12), self._draw(0.2, 0.55)
            radii = self._draw(0.06, 0.13), self._draw(0.05, 0.1), self._draw(0.03, 0.09)
            loop = self.space.ellipsoid(centre, radii, self._draw(0, 3))
            self.voxels[loop & self.cavity] = self._draw(15, 70)
            if self.rng.random() < 0.3:
                gas = self.space.ellipsoid((centre[0], centre[1] - 0.02, centre[2]), (0.05, 0.03, 0.03))
                self.voxels[gas & self.cavity] = -600

    def paint_upper_abdomen(self) -> None:
        """Stomach, liver, spleen and pancreas."""
        draw, ellipsoid = self._draw, self.space.ellipsoid
        radii = draw(0.18, 0.27), draw(0.15, 0.22), draw(0.09, 0.14)
        self._paint("stomach", ellipsoid(self._near(0.30, -0.25, 0.76), radii, draw(-0.5, 0.3)), draw(15, 45))
        centre, size = self._near(-0.40, -0.06, 0.76), draw(0.85, 1.12)
        right_lobe = ellipsoid(centre, (0.40 * size, 0.46 * size, 0.21 * size), draw(-0.2, 0.2))
        radii = draw(0.25, 0.36), draw(0.14, 0.2), draw(0.08, 0.13)
        left_lobe = ellipsoid((*self._near(-0.05, -0.26, 0)[:2], centre[2] + 0.03), radii, draw(-0.2, 0.2))
        self._paint("liver", right_lobe | left_lobe, draw(90, 118))
        radii = draw(0.14, 0.20), draw(0.19, 0.29), draw(0.10, 0.16)
        self._paint("spleen", ellipsoid(self._near(0.56, 0.14, 0.78), radii, draw(-0.35, 0.35)), draw(112, 142))
        self._paint("pancreas", self._pancreas(), draw(72, 98))

    def _pancreas(self) -> NDArray[np.bool_]:
        """A bent row of spheres from a thick head on the right to a thin tail on the left."""
        head, tail = self._near(-0.18, -0.06, 0.60), self._near(0.36, 0.0, 0.65)
        bend, thick = self._draw(0.03, 0.12), self._draw(0.058, 0.08)
        mask = np.zeros(self.space.shape, bool)
        for t in np.linspace(0, 1, 14):
            x, y, z = (1 - t) * np.asarray(head) + t * np.asarray(tail)
            radius = thick * (1.35 - 0.3 * t)
            mask |= self.space.ellipsoid((x, y - bend * np.sin(np.pi * t), z), (radius, radius, 0.07))
        return mask

    def paint_kidneys(self) -> dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]]:
        """Both kidneys, each with a hilum that opens to the middle; returns centre and radii of each."""
        hounsfield, drawn = self._draw(160, 215), {}
        for name, side in _SIDES.items():
            centre = self._near(side * 0.37, 0.27, 0.55 if side > 0 else 0.50, spread=0.025)
            radii = self._draw(0.105, 0.15), self._draw(0.13, 0.18), self._draw(0.12, 0.16)
            hilum = (centre[0] - side * radii[0] * 0.95, centre[1] - 0.03, centre[2])
            notch = self.space.ellipsoid(hilum, (radii[0] * 0.5, radii[1] * 0.35, 0.05))
            kidney = self.space.ellipsoid(centre, radii, side * self._draw(0.1, 0.6)) & ~notch
            self._paint(name, kidney, hounsfield)
            drawn[name] = (centre, radii)
        return drawn

    def paint_bile_and_bladder(self) -> None:
        """Gallbladder and urinary bladder: both hold fluid."""
        draw, ellipsoid = self._draw, self.space.ellipsoid
        radii = draw(0.06, 0.1), draw(0.07, 0.12), draw(0.045, 0.07)
        self._paint("gallbladder", ellipsoid(self._near(-0.27, -0.30, 0.58), radii, draw(-0.5, 0.5)), draw(0, 20))
        radii = draw(0.16, 0.28), draw(0.13, 0.22), draw(0.07, 0.12)
        centre = self._near(0.0, -0.08, 0.14, spread=0.02)
        self._paint("urinary bladder", ellipsoid(centre, radii), draw(0, 18))

    def paint_vessels(self) -> None:
        """Aorta, down to where it splits, and inferior vena cava, side by side before the spine."""
        space, sway, phase = self.space, self._draw(0, 0.03), self._draw(0, 2 * np.pi)
        aorta = space.tube(0.05 + sway * np.sin(8 * space.z + phase), 0.145, (0.075, 0.075))
        self._paint("aorta", aorta & (space.z > 0.32)[:, None, None], self._draw(150, 200))
        self._paint("inferior vena cava", space.tube(-0.13, 0.16, (0.065, 0.055)), self._draw(120, 145))

    def paint_lesion(self, kidney: str, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> None:
        """A tumour or cyst that grows outwards from the outer border of one kidney.

        It spares other organs, so a place may leave little room: the roomiest of a few places is taken.
        """
        hounsfield = self._draw(60, 95) if self.rng.random() < 0.5 else self._draw(-5, 15)
        free = ((self.labels == 0) | (self.labels == LABELS[kidney])) & self.cavity
        best = np.zeros(self.space.shape, bool)
        for _ in range(_LESION_TRIES):
            angle, radius = self._draw(-np.pi / 2, np.pi / 2), self._draw(0.07, 0.11)
            place = (
                centre[0] + _SIDES[kidney] * np.cos(angle) * radii[0],
                centre[1] + np.sin(angle) * radii[1],
                centre[2] + self._draw(-0.6, 0.6) * radii[2],
            )
            mask = self.space.ellipsoid(place, (radius, radius, radius * 0.75)) & free
            if mask.sum() > best.sum():
                best = mask
            if best.sum() >= _MIN_LESION_VOXELS:
                break
        self._paint("kidney lesion", best, hounsfield)

    def paint_nodules(self, count: int) -> None:
        """Bright nodules at even heights, so far apart that no slice shows two clearly; they spare organs and bone.

        The roomiest of many places is taken.
        """
        low, high = _NODULE_HEIGHTS
        step = (high - low) / max(count, 1)
        for i in range(count):
            z, radius = low + step * (i + self._draw(0.4, 0.6)), self._draw(0.1, 0.14)
            free = (self.labels == 0) & self.cavity
            masks = []
            for _ in range(2 * _LESION_TRIES):
                place = self._draw(-0.55, 0.55), self._draw(-0.35, 0.2), z
                masks.append(self.space.ellipsoid(place, (radius, radius, 0.06)) & free)
            self._paint("nodule", max(masks, key=np.count_nonzero), self._draw(250, 320))

    def scan(self) -> NDArray[np.float32]:
        """Noise, blur within the slice, and rounding to whole Hounsfield units."""
        noise = self.rng.standard_normal(self.space.shape, np.float32) * np.float32(self._draw(18, 30))
        blurred = ndimage.gaussian_filter(self.voxels + noise, (0, 0.6, 0.6))
        rounded: NDArray[np.float32] = np.rint(blurred).astype(np.float32)
        return rounded
