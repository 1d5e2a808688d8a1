"""Where ITK places the voxels of NRRD and MetaImage files, and masks written on such a grid.

SimpleITK fills what a truncated file lacks with zeros, so it only gives the meaning of the geometry here: the header is
judged first by ``nrrd`` and ``metaimage``, and the voxels are read by ``detached``.
"""

from __future__ import annotations

import errno
import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from medvol.imaging.formats.problems import BadHeaderError, ConflictingAffinesError, UnreadableScanError
from medvol.imaging.formats.stored_scan import check_affine, check_spacing

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Between ITK's world (LPS) and NIfTI's (RAS); its own inverse."""


class ItkGeometry(NamedTuple):
    """Where ITK places a grid, in its own world (LPS, mm).

    Args:
        spacing: Voxel size along (i, j, k).
        origin: Centre of voxel (0, 0, 0).
        direction: Row-major 3x3 matrix; columns are the axes.
        nrrd_fields: Lines of an NRRD header that say the same, word for word; empty for other files. SimpleITK splits
            each axis into spacing and direction, which does not give back the last bit of every number.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    nrrd_fields: tuple[str, ...] = ()


def read_geometry(path: Path, sizes: tuple[int, ...], reader_name: str) -> tuple[NDArray[np.float64], ItkGeometry]:
    """Affine (RAS+) and geometry that SimpleITK reads from a header.

    Args:
        path: The file.
        sizes: Voxels along each axis, as the header was understood.
        reader_name: SimpleITK's reader of the format.

    Raises:
        ScanError: SimpleITK does not read it or understands it otherwise, or the geometry is not sound.
    """
    if not _is_text(path):
        raise UnreadableScanError(path, "ITK takes names in UTF-8 only; rename the file or its folder")
    reader = sitk.ImageFileReader()
    reader.SetImageIO(reader_name)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Reason")][-1]
        raise BadHeaderError(path, f"SimpleITK does not read it: {reason}") from error
    if reader.GetNumberOfComponents() != 1 or reader.GetSize()[:3] != sizes[:3]:
        raise BadHeaderError(path, f"SimpleITK finds {reader.GetSize()} voxels in it, not {sizes}; save the scan again")
    axes = np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:3, :3]
    geometry = ItkGeometry(reader.GetSpacing()[:3], reader.GetOrigin()[:3], tuple(axes.ravel().tolist()))
    check_spacing(path, list(geometry.spacing))
    affine = np.eye(4)
    affine[:3, :3] = axes * geometry.spacing
    affine[:3, 3] = geometry.origin
    affine = RAS @ affine
    check_affine(path, affine)
    lengths = np.linalg.norm(axes, axis=0)
    if np.abs(lengths - 1).max() > 1e-3:
        raise ConflictingAffinesError(
            path, f"its axes have length {lengths.round(3).tolist()} beside their voxel size; write unit vectors"
        )
    return affine, geometry


def itk_geometry(affine: NDArray[np.float64]) -> ItkGeometry:
    """Geometry of an affine in NIfTI's world."""
    world = RAS @ affine
    spacing = np.linalg.norm(world[:3, :3], axis=0)
    direction = world[:3, :3] / spacing
    return ItkGeometry(tuple(spacing.tolist()), tuple(world[:3, 3].tolist()), tuple(direction.ravel().tolist()))


def _is_text(path: Path) -> bool:
    """False for a name that is no UTF-8, at which ITK would end the process."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def write_itk(path: Path, voxels: NDArray[np.uint8], geometry: ItkGeometry) -> None:
    """Write (I, J, K) voxels, compressed.

    Raises:
        OSError: It cannot be written.
    """
    if geometry.nrrd_fields and path.name.lower().endswith(".nrrd"):
        path.write_bytes(_format_nrrd(voxels, geometry.nrrd_fields))
        return
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    if not _is_text(path):
        raise OSError(errno.EILSEQ, "ITK takes names in UTF-8 only; choose another folder", str(path))
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:  # it does not say why
        raise OSError(
            errno.EIO, "it cannot be written; is the disk full, or the folder read-only?", str(path)
        ) from error


def _format_nrrd(voxels: NDArray[np.uint8], geometry_fields: tuple[str, ...]) -> bytes:
    lines = (
        *("NRRD0004", "type: unsigned char", "dimension: 3", f"sizes: {' '.join(map(str, voxels.shape))}"),
        *geometry_fields,
        *("kinds: domain domain domain", "encoding: gzip", "", ""),
    )
    return "\n".join(lines).encode("latin-1") + gzip.compress(voxels.tobytes(order="F"), compresslevel=6, mtime=0)
