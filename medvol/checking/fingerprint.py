"""Fingerprints: whether two files are the same file, and whether two scans are the same scan.

A file's fingerprint is a hash of its bytes. A scan's is a thumbnail: its field of view in 16 x 16 x 16 cells, each the
mean of its windowed intensities less those around it. Resampling hardly moves the means, and another axis order is one
of 48 turns of the cube, all of which are tried. A copy whose intensities were clipped and standardised without a known
window, as in M3D-Seg, is not recognised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medvol.core.atomic_files import file_sha256
from medvol.core.types import Volume
from medvol.imaging.scan_files import scan_files
from medvol.imaging.windows import apply_window, get_window, window_limits

CELLS = 16
"""Cells along each side of a thumbnail."""

SAME_SCAN = 0.96
"""Correlation from which two thumbnails show the same scan. Of 36 real scans and 12 phantoms, turned and resampled
copies reached 0.99; two different scans reached 0.79, and 0.91 where the field of view was left out."""

SAME_SIZE = 0.06
"""Share by which the sides of two fields of view may differ, besides a voxel, and still be the same."""

_PIECE = 65_536
_AROUND = 2.5
"""Standard deviation, in cells, of the surroundings that a cell is compared with."""


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """What a scan looks like from afar.

    Args:
        cells: (16, 16, 16) float32 of norm 1; all 0 for a constant scan.
        sides_mm: Field of view (z, y, x); None when its size is not known.
    """

    cells: NDArray[np.float32]
    sides_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Match:
    """Two scans that look the same.

    Args:
        first: Index of one of them.
        second: Index of the other.
        correlation: Of their thumbnails, in the turn that fits best.
    """

    first: int
    second: int
    correlation: float


def hash_file(path: Path) -> str:
    """SHA-256 of the bytes of a scan; of one of several files, over those of each, whatever they are called."""
    return _join(list(map(file_sha256, scan_files(path))))


def hash_pieces(path: Path) -> str:
    """SHA-256 of the start, the middle and the end of each file: equal scans agree, and most others do not."""
    return _join(list(map(_hash_file_pieces, scan_files(path))))


def _hash_file_pieces(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for start in (0, max(0, size // 2 - _PIECE), max(0, size - _PIECE)):
            file.seek(start)
            digest.update(file.read(_PIECE))
    return digest.hexdigest()


def scan_size(path: Path) -> int:
    """Bytes of all files of a scan."""
    return sum(file.stat().st_size for file in scan_files(path))


def _join(hashes: Sequence[str]) -> str:
    """One hash of the hashes of files; that of a single file as it is."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def make_thumbnail(volume: Volume, sized: bool = True) -> Thumbnail:
    """Thumbnail of a scan.

    Args:
        volume: The scan.
        sized: False when its spacing is not to be trusted.
    """
    low, high = window_limits(volume, get_window("soft_tissue"))
    down, rows, columns = (_cell_weights(size) for size in volume.shape)
    base = apply_window(volume.voxels[:1, 0, 0], low, high)  # a constant scan becomes zeros, and not rounding errors
    flat = np.stack([rows.T @ ((apply_window(axial, low, high) - base) @ columns) for axial in volume.voxels])
    means = np.tensordot(down, flat, (0, 0))
    relief = means - ndimage.gaussian_filter(means, _AROUND)
    norm = float(np.linalg.norm(relief))
    cells = np.asarray(relief / norm if norm > 1e-6 else np.zeros_like(relief), np.float32)
    z, y, x = (size * step for size, step in zip(volume.shape, volume.spacing, strict=True))
    return Thumbnail(cells, (z, y, x) if sized else None)


def find_matches(thumbnails: Sequence[Thumbnail]) -> list[Match]:
    """Pairs of thumbnails that show the same scan, whichever way their axes run."""
    if len(thumbnails) < 2:
        return []
    flat = np.stack([thumbnail.cells.ravel() for thumbnail in thumbnails])
    best = np.full((len(flat), len(flat)), -1.0, np.float32)
    for turn in _turns():
        turned = np.stack([_apply(turn, thumbnail.cells).ravel() for thumbnail in thumbnails])
        fits = _same_sides(thumbnails, turn[0])
        np.maximum(best, np.where(fits, flat @ turned.T, -1.0), out=best)
    pairs = np.argwhere(np.triu(best >= SAME_SCAN, 1)).tolist()
    return [Match(first, second, float(best[first, second])) for first, second in pairs]


Turn = tuple[tuple[int, ...], tuple[int, ...]]


def _turns() -> Iterator[Turn]:
    """The 48 orders and directions of three axes."""
    return product(permutations(range(3)), product((1, -1), repeat=3))


def _apply(turn: Turn, cube: NDArray[np.float32]) -> NDArray[np.float32]:
    order, signs = turn
    z, y, x = signs
    turned: NDArray[np.float32] = cube.transpose(order)[::z, ::y, ::x]
    return turned


def _same_sides(thumbnails: Sequence[Thumbnail], order: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether scan i and scan j with its axes in another order have fields of view of one size; unknown ones fit."""
    sides = np.array([t.sides_mm or (np.nan,) * 3 for t in thumbnails])
    turned = sides[:, order]
    apart = np.abs(np.log(sides[:, None] / turned[None])).max(axis=-1)
    fits: NDArray[np.bool_] = ~(apart > SAME_SIZE)
    return fits


def _cell_weights(size: int) -> NDArray[np.float32]:
    """Weights (size, 16) that turn an axis into means of 16 equal parts; a voxel counts by its share in each."""
    edges, voxels = np.linspace(0, size, CELLS + 1), np.arange(size)[:, None]
    inside = np.minimum(edges[1:], voxels + 1) - np.maximum(edges[:-1], voxels)
    weights: NDArray[np.float32] = (inside.clip(0) / (size / CELLS)).astype(np.float32)
    return weights
