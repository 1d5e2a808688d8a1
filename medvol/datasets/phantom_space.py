"""Body coordinates of a phantom, and the shapes drawn in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class BodySpace:
    """Where each voxel lies in the body.

    Args:
        x: (Y, X) -1 at the patient's right border of the field of view, 1 at the left.
        y: (Y, X) -1 at the front border, 1 at the back.
        z: (Z,) about 0 at the pelvic floor, about 1 at the dome of the diaphragm.
        spacing: Voxel size (z, y, x) in mm.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]
    spacing: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (Z, Y, X)."""
        return (len(self.z), *self.x.shape)

    def disc(self, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> NDArray[np.float32]:
        """Squared elliptic distance of each pixel from a centre, (Y, X); below 1 inside."""
        dx, dy = self.x - np.float32(centre[0]), self.y - np.float32(centre[1])
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        along, across = (dx * cos + dy * sin) / np.float32(radii[0]), (dy * cos - dx * sin) / np.float32(radii[1])
        return (along**2 + across**2).astype(np.float32, copy=False)

    def ellipsoid(
        self, centre: tuple[float, float, float], radii: tuple[float, float, float], angle: float = 0.0
    ) -> NDArray[np.bool_]:
        """Mask (Z, Y, X) of an ellipsoid turned by ``angle`` about the body axis."""
        mask = np.zeros(self.shape, bool)
        height = ((self.z - np.float32(centre[2])) / np.float32(radii[2])) ** 2
        cut = np.flatnonzero(height < 1)
        if len(cut):
            mask[cut] = self.disc(centre[:2], radii[:2], angle) < 1 - height[cut, None, None]
        return mask

    def tube(self, x: NDArray[np.float32] | float, y: float, radii: tuple[float, float]) -> NDArray[np.bool_]:
        """Mask (Z, Y, X) of a tube along the body; ``x`` may bend from slice to slice, (Z,)."""
        bend = np.broadcast_to(np.asarray(x, np.float32), self.z.shape)[:, None, None]
        across = ((self.y - np.float32(y)) / np.float32(radii[1])) ** 2
        mask: NDArray[np.bool_] = ((self.x - bend) / np.float32(radii[0])) ** 2 + across < 1
        return mask


def draw_space(rng: np.random.Generator, shape: tuple[int, int, int]) -> BodySpace:
    """Draw size, pose and scan range of a body, and sample it on a grid with slices from feet to head."""
    depth, height, width = shape
    field_mm, range_mm = rng.uniform(350, 400), rng.uniform(300, 370)
    half = min(height, width) / 2
    columns = (np.arange(width) - (width - 1) / 2) / half
    rows = (np.arange(height) - (height - 1) / 2) / half
    yy, xx = np.meshgrid(rows, columns, indexing="ij")
    turn, size = rng.uniform(-0.10, 0.10), rng.uniform(0.88, 1.12)
    size_x, size_y = size * rng.uniform(0.95, 1.05, 2)
    shift_x, shift_y = rng.uniform(-0.07, 0.07, 2)
    x = (xx * np.cos(turn) + yy * np.sin(turn) - shift_x) / size_x
    y = (yy * np.cos(turn) - xx * np.sin(turn) - shift_y) / size_y
    bend_x, bend_y = rng.uniform(0, 0.03, 2)
    phase_x, phase_y = rng.uniform(0, 2 * np.pi, 2)
    x = x + bend_x * np.sin(3 * y + phase_x)
    y = y + bend_y * np.sin(3 * x + phase_y)
    stature, level = rng.uniform(0.86, 1.14), rng.uniform(-0.07, 0.07)
    z = ((np.arange(depth) + 0.5) / depth - 0.5) / stature + 0.5 + level
    pixel = field_mm / min(height, width)
    return BodySpace(x.astype(np.float32), y.astype(np.float32), z.astype(np.float32), (range_mm / depth, pixel, pixel))
