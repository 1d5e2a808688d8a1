"""Volumes that stay on disk until all their voxels are asked for."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medvol.core.reprs import describe_settings
from medvol.core.types import Modality, Source, Volume
from medvol.imaging.cache.slice_archive import DAMAGE, SliceArchive
from medvol.imaging.dicom.reading import DicomOrigin
from medvol.imaging.formats.itk_geometry import ItkGeometry
from medvol.imaging.formats.problems import CorruptStreamError
from medvol.imaging.reading import read_volume
from medvol.imaging.volume_hash import remember_hash

log = logging.getLogger(__name__)


class CachedVolume(Volume):
    """A volume in a slice archive: its slices are read one by one, and all its voxels when ``voxels`` is asked for.

    It travels to another process as a path. Should the archive be dropped or damaged meanwhile, the scan is read from
    its own file again. Made by ``open_volume``.
    """

    _path: Path
    _shape: tuple[int, int, int]
    _percentiles: dict[float, float]

    @cached_property
    def voxels(self) -> NDArray[np.float32]:
        """Intensities (Z, Y, X), read on first use."""
        try:
            voxels: NDArray[np.float32] = self._archive.read_all(np.float32)
        except (OSError, *DAMAGE):
            return self._read_again()
        voxels.setflags(write=False)  # a component that asks for them first may not write to them either
        return voxels

    def __repr__(self) -> str:
        return describe_settings(self, *([f"{'x'.join(map(str, self._shape))} on disk"] if self._is_on_disk else []))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (Z, Y, X), known without reading."""
        return super().shape if "voxels" in vars(self) else self._shape

    def axial(self, z: int) -> NDArray[np.float32]:
        """One axial slice (Y, X)."""
        if "voxels" not in vars(self):
            try:
                return self._archive.read(z).astype(np.float32)
            except (OSError, *DAMAGE):
                vars(self)["voxels"] = self._read_again()
        return super().axial(z)

    def percentiles(self, shares: Sequence[float]) -> list[float]:
        """Intensities at shares of 0 to 100; those of the preset windows were kept."""
        if "voxels" not in vars(self) and all(share in self._percentiles for share in shares):
            return [self._percentiles[share] for share in shares]
        return super().percentiles(shares)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "voxels" or not self._is_on_disk}

    @property
    def _is_on_disk(self) -> bool:
        """False for a copy with a field replaced, which holds its own voxels."""
        return "_path" in vars(self)

    @property
    def _archive(self) -> SliceArchive:
        return _open_archive(self._path, os.getpid())

    def _read_again(self) -> NDArray[np.float32]:
        assert self.source is not None
        assert self.source.path is not None
        log.warning("%s cannot be read any more; %s is read instead", self._path, self.source.path)
        _open_archive.cache_clear()
        volume = read_volume(self.source.path, modality=self.modality)
        if volume.volume_id != self.volume_id:
            raise CorruptStreamError(self.source.path, "it changed while it was in use; start again")
        return volume.voxels


@lru_cache(maxsize=16)
def _open_archive(path: Path, process: int) -> SliceArchive:
    """The archives used last stay open, in each process by itself: a forked one would move the other's place."""
    return SliceArchive(path)


def open_volume(path: Path, source_path: Path) -> CachedVolume:
    """Open a volume that was written with the meta values of ``describe_volume``.

    Args:
        path: The archive.
        source_path: File that the volume was first read from, wherever it lies now.
    """
    archive = SliceArchive(path)
    archive.close()
    meta = archive.meta
    volume, identity = CachedVolume.__new__(CachedVolume), str(meta["volume_id"])
    vars(volume).update(
        affine=np.array(meta["affine"], np.float64).reshape(4, 4),
        modality=_require(meta["modality"], get_args(Modality)),
        volume_id=identity,
        source=_restore_source(meta["source"], source_path),
        _path=path,
        _shape=archive.shape,
        _percentiles={float(share): float(value) for share, value in meta["percentiles"].items()},
    )
    remember_hash(volume, identity)
    return volume


def _require(value: Any, choices: Sequence[str]) -> Any:
    if value not in choices:
        raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    return value


def describe_volume(
    affine: NDArray[np.float64], modality: str, volume_id: str, source: Source, percentiles: Mapping[float, float]
) -> dict[str, Any] | None:
    """Everything of a volume but its voxels as plain values; None when its header cannot be written so."""
    header = _describe_header(source.header)
    if header is None:
        return None
    return {
        "affine": affine.tolist(),
        "modality": modality,
        "volume_id": volume_id,
        "percentiles": {repr(float(share)): value for share, value in percentiles.items()},
        "source": {
            "affine": source.affine.tolist(),
            "shape": list(source.shape),
            "orientation": source.orientation.tolist(),
            "header": header,
        },
    }


def _describe_header(header: Any) -> dict[str, Any] | None:
    if isinstance(header, nib.Nifti1Header):
        block = base64.b64encode(header.binaryblock).decode()
        return {"kind": type(header).__name__, "order": header.endianness, "block": block}
    if isinstance(header, ItkGeometry):
        return {"kind": "ItkGeometry", **header._asdict()}
    return {"kind": "none"} if header is None or isinstance(header, DicomOrigin) else None


def _restore_source(meta: Mapping[str, Any], path: Path) -> Source:
    stored = dict(meta["header"])
    kind = stored.pop("kind")
    header: Any
    if kind == "none":
        header = None
    elif kind == "ItkGeometry":
        header = ItkGeometry(**{name: tuple(values) for name, values in stored.items()})
    else:
        layout = {"Nifti1Header": nib.Nifti1Header, "Nifti2Header": nib.Nifti2Header}[kind]
        header = layout(base64.b64decode(stored["block"]), stored["order"], False)  # type: ignore[no-untyped-call]
    i, j, k = meta["shape"]
    return Source(path, np.array(meta["affine"]), (i, j, k), np.array(meta["orientation"]), header)
