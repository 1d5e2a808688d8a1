"""Crops: a region of a scan as a volume of its own, with the same voxels, none of them resampled."""

from __future__ import annotations

import numpy as np

from medvol.core.errors import GeometryError
from medvol.core.looks import Region
from medvol.core.types import Volume


def crop_volume(volume: Volume, region: Region, volume_id: str | None = None) -> Volume:
    """Cut the rows and columns of a region out of a scan.

    All slices stay, so an index means the same slice in both; a policy is shown those of the region alone. A scan
    without Hounsfield units gets its intensity windows from the crop.

    Args:
        volume: The scan.
        region: Inside it.
        volume_id: Identity of the crop; made of that of the scan when None.

    Returns:
        The voxels (Z, height, width of the region), each where it was in the world.

    Raises:
        GeometryError: The region is empty, or does not lie inside the volume.
    """
    ranges = (region.z, region.y, region.x)
    for (first, stop), size in zip(ranges, volume.shape, strict=True):
        if not 0 <= first < stop <= size:
            shape = " x ".join(map(str, volume.shape))
            raise GeometryError(f"a region holds voxels of its volume, which has {shape} (z, y, x); got {region}")
    rows, columns = region.plane
    voxels = np.stack([volume.axial(z)[rows, columns] for z in range(volume.shape[0])]).astype(np.float32, copy=False)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :2] @ [region.x[0], region.y[0]]
    name = f"{volume.volume_id}@{','.join(f'{first}-{stop}' for first, stop in ranges)}"
    return Volume(voxels, affine, volume.modality, name if volume_id is None else volume_id, shown=region.z)
