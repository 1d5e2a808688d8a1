"""Writing volumes, and masks in the scan's own grid, whole or not at all."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medvol.core.atomic_files import write_whole
from medvol.core.errors import GeometryError
from medvol.core.types import Volume
from medvol.imaging.file_names import NIFTI, WHOLE_SCANS, ends_in
from medvol.imaging.formats.itk_geometry import ItkGeometry, itk_geometry, write_itk
from medvol.imaging.formats.problems import UnknownFormatError
from medvol.imaging.geometry import invert_orientation

Number = TypeVar("Number", np.uint8, np.float32)

_GEOMETRY = (
    *("xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


def write_volume(path: str | Path, volume: Volume) -> Path:
    """Write a volume as a scan, such as one that was drawn: float32 voxels, lossless, with its geometry in mm.

    Args:
        path: Ends in ``.nii`` or ``.nii.gz``.
        volume: Written on its own grid, with axes to the patient's left, back and head.

    Returns:
        The path.

    Raises:
        UnknownFormatError: The name says another format.
    """
    path = Path(path)
    if not ends_in(path, NIFTI):
        raise UnknownFormatError(path, "a volume is written as .nii or .nii.gz; choose one of them")
    image = nib.Nifti1Image(volume.voxels.transpose(2, 1, 0), volume.affine)
    image.header.set_xyzt_units("mm")
    with write_whole(path) as partial:
        partial.write_bytes(_to_bytes(image, path))
    return path


def write_mask(path: str | Path, mask: NDArray[np.bool_], volume: Volume) -> Path:
    """Write a mask as uint8 in the grid, axis order and geometry of the file that the volume was read from.

    Args:
        path: Ends in ``.nii``, ``.nii.gz``, ``.nrrd`` or ``.mha``.
        mask: (Z, Y, X) bool on the volume's grid.
        volume: Its affine goes back bit-equal when both files are NIfTI, or both are read by ITK.

    Returns:
        The path.

    Raises:
        GeometryError: The mask has another shape than the volume.
        UnknownFormatError: The name says no format that is written.
    """
    path = Path(path)
    if mask.shape != volume.shape:
        raise GeometryError(f"the mask has shape {mask.shape} (Z, Y, X), its volume {volume.shape}; they must agree")
    if not ends_in(path, WHOLE_SCANS):
        raise UnknownFormatError(path, "a mask is written as .nii, .nii.gz, .nrrd or .mha; choose one of them")
    stored = to_stored_axes(mask, volume)
    with write_whole(path) as partial:
        if ends_in(path, NIFTI):
            _write_nifti(partial, stored, volume)
        else:
            _write_itk(partial, stored, volume)
    return path


def write_map(path: str | Path, values: NDArray[np.float32], volume: Volume) -> Path:
    """Write numbers, one a voxel, as float32 NIfTI in the grid and axis order that the volume was read from.

    Args:
        path: Ends in ``.nii`` or ``.nii.gz``.
        values: (Z, Y, X) on the volume's grid.
        volume: Its affine goes back bit-equal when its file is NIfTI.

    Returns:
        The path.

    Raises:
        GeometryError: The values have another shape than the volume.
        UnknownFormatError: The name says another format.
    """
    path = Path(path)
    if values.shape != volume.shape:
        raise GeometryError(f"the map has shape {values.shape} (Z, Y, X), its volume {volume.shape}; they must agree")
    if not ends_in(path, NIFTI):
        raise UnknownFormatError(path, "a map is written as .nii or .nii.gz; choose one of them")
    with write_whole(path) as partial:
        _write_nifti(partial, _to_stored(values.astype(np.float32, copy=False), volume), volume)
    return path


def to_stored_axes(mask: NDArray[np.bool_], volume: Volume) -> NDArray[np.uint8]:
    """Take a mask (Z, Y, X) back to the axis order of the file, (I, J, K) uint8."""
    return _to_stored(mask.astype(np.bool_).astype(np.uint8), volume)


def _to_stored(voxels: NDArray[Number], volume: Volume) -> NDArray[Number]:
    """Voxels (Z, Y, X) in the axis order of the file, (I, J, K)."""
    turned = voxels.transpose(2, 1, 0)
    if volume.source is None:
        return turned
    back = invert_orientation(volume.source.orientation)
    stored: NDArray[Number] = np.ascontiguousarray(nib.orientations.apply_orientation(turned, back))
    return stored


def write_stack(path: str | Path, masks: Sequence[NDArray[np.bool_]], volume: Volume) -> Path:
    """Write masks on one grid as uint8 NIfTI (F, I, J, K), one after another along the first axis.

    Args:
        path: Ends in ``.nii`` or ``.nii.gz``.
        masks: F masks (Z, Y, X) on the volume's grid, at least one.
        volume: (I, J, K) are the axes of the file that it was read from. Its affine is written too, although axes of
            such a stack are one off.

    Returns:
        The path.

    Raises:
        GeometryError: A mask has another shape than the volume.
    """
    path = Path(path)
    for mask in masks:
        if mask.shape != volume.shape:
            raise GeometryError(f"a mask has shape {mask.shape} (Z, Y, X), its volume {volume.shape}; they must agree")
    stack = np.stack([to_stored_axes(mask, volume) for mask in masks])
    with write_whole(path) as partial:
        partial.write_bytes(_to_bytes(nib.Nifti1Image(stack, _stored_affine(volume)), path))
    return path


def pack_nifti(voxels: NDArray[np.uint8], affine: NDArray[np.float64]) -> bytes:
    """Voxels as gzip-compressed NIfTI-1 for a program that reads them from memory; equal voxels give equal bytes.

    Args:
        voxels: (Z, Y, X).
        affine: Voxel index (x, y, z, 1) to world mm (RAS+), shape (4, 4).
    """
    image = nib.Nifti1Image(voxels.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _write_nifti(path: Path, stored: NDArray[Number], volume: Volume) -> None:
    header = None if volume.source is None else volume.source.header
    if isinstance(header, nib.Nifti1Header) and (header["sform_code"] > 0 or header["qform_code"] > 0):
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        image = kind(stored, None, _geometry_header(header, stored.dtype))  # type: ignore[no-untyped-call]
    else:
        image = nib.Nifti1Image(stored, _stored_affine(volume))
        image.header.set_xyzt_units("mm")
    path.write_bytes(_to_bytes(image, path))


def _to_bytes(image: nib.Nifti1Image, path: Path) -> bytes:
    """A NIfTI file, packed where its name says so; the same image always gives the same bytes."""
    data: bytes = image.to_bytes()
    return gzip.compress(data, compresslevel=6, mtime=0) if path.name.lower().endswith(".gz") else data


def _geometry_header(header: nib.Nifti1Header, dtype: np.dtype[Any]) -> nib.Nifti1Header:
    """Header of a mask: the scan's geometry and nothing else, since free text may name the patient."""
    bare = type(header)(endianness=header.endianness)
    bare.set_data_dtype(dtype)
    bare["pixdim"][:4] = header["pixdim"][:4]
    for field in _GEOMETRY:
        bare[field] = header[field]
    return bare


def _write_itk(path: Path, stored: NDArray[np.uint8], volume: Volume) -> None:
    geometry = None if volume.source is None else volume.source.header
    if not isinstance(geometry, ItkGeometry):
        geometry = itk_geometry(_stored_affine(volume))
    write_itk(path, stored, geometry)


def _stored_affine(volume: Volume) -> NDArray[np.float64]:
    return volume.affine if volume.source is None else volume.source.affine
