"""A cache of scans and label maps on disk, from which a warm epoch reads only the slices that it draws.

An entry is found by what the scan's files hold, how they are read, and the versions that read them: a changed file,
another setting or another release never meets an old entry. To hash no file twice, the hash is kept beside what the
system says of files that have settled (see ``stamp_scan``), and is trusted while that stays the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvol.core.atomic_files import write_whole
from medvol.core.json_file import parse_json
from medvol.core.prompts import WINDOWS
from medvol.core.ranges import require_between
from medvol.core.types import Modality, Volume, voxel_percentiles
from medvol.imaging.cache.cached_volume import describe_volume, open_volume
from medvol.imaging.cache.slice_archive import DAMAGE, SliceArchive, write_slices
from medvol.imaging.file_names import DICOM, SCANS, ends_in
from medvol.imaging.reading import find_modality, read_labels, read_oriented, read_volume, to_intensities
from medvol.imaging.scan_files import relative_name, scan_files, stamp_scan
from medvol.imaging.volume_hash import hash_voxels

LAYOUT = 3
"""Version of what an entry holds."""

_SUFFIX = ".slices"
_EXACT = np.dtype(np.int16), np.dtype(np.uint16), np.dtype(np.int8), np.dtype(np.uint8)
_PIECE = 2**22
_STALE_SECONDS = 24 * 3600

log = logging.getLogger(__name__)


class SliceCache:
    """Reads scans as ``read_volume`` and ``read_labels`` do, the second time from its folder.

    Several processes may use one folder. Entries used longest ago are dropped when it outgrows its bound.

    Args:
        folder: Made when it is absent.
        max_gib: Bound on the size of all entries, in GiB.

    Raises:
        ConfigError: The bound is not above 0.
    """

    def __init__(self, folder: str | Path, max_gib: float = 50.0) -> None:
        require_between("(0, inf]", max_gib=max_gib)
        self.folder = Path(folder)
        self.max_gib = max_gib

    def read_volume(self, path: str | Path, modality: Modality | None = None) -> Volume:
        """Read a scan; equal to ``medvol.read_volume`` in every voxel, the affine, the identity and the header.

        Only what a DICOM segmentation refers to is not kept: it cannot be written for such a volume.

        Args:
            path: The scan.
            modality: As for ``read_volume``.

        Raises:
            ScanError: The file is refused; a refusal is not kept.
        """
        path = Path(path)
        try:
            if _is_kept(path):
                entry = self._entry(path, {"modality": modality})
                volume = self._kept_volume(entry, path)
                if volume is None and self._store(entry, path, modality):
                    volume = open_volume(entry, path)
                if volume is not None:
                    return volume
        except OSError as error:
            log.warning("%s is not kept in the cache (%s)", path, error.strerror)
        return read_volume(path, modality=modality)

    def read_labels(self, path: str | Path, volume: Volume) -> NDArray[np.int32]:
        """Read a label map on the grid of a volume, as ``read_labels`` does.

        Args:
            path: The label map.
            volume: The scan it belongs to.

        Raises:
            ScanError: The file is refused.
            GeometryError: It lies on another grid.
        """
        path = Path(path)
        try:
            if _is_kept(path):
                entry = self._entry(path, {"shape": volume.shape, "affine": volume.affine.tolist()})
                kept = self._kept_labels(entry, volume.shape)
                return self._store_labels(entry, read_labels(path, volume)) if kept is None else kept
        except OSError as error:
            log.warning("%s is not kept in the cache (%s)", path, error.strerror)
        return read_labels(path, volume)

    def _kept_volume(self, entry: Path, path: Path) -> Volume | None:
        """Volume of an entry; None when there is none that can be opened."""
        if not self._has(entry):
            return None
        try:
            return open_volume(entry, path)
        except Exception:  # what describes the scan may be damaged in any way, and the scan itself is at hand
            log.warning("%s is damaged and is made anew", entry)
            return None

    def _kept_labels(self, entry: Path, shape: tuple[int, int, int]) -> NDArray[np.int32] | None:
        """Labels of an entry; None when there is none of that shape that can be read."""
        if not self._has(entry):
            return None
        archive = SliceArchive(entry)
        try:
            if archive.shape != shape:
                raise ValueError(f"{archive.shape} is not {shape}")
            labels: NDArray[np.int32] = archive.read_all(np.int32)
        except DAMAGE:
            log.warning("%s is damaged and is made anew", entry)
            return None
        finally:
            archive.close()
        return labels

    def _store_labels(self, entry: Path, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        smallest = np.min_scalar_type(int(labels.max())) if labels.min() >= 0 else labels.dtype
        write_slices(entry, (plane.astype(smallest) for plane in labels), {})
        self._drop_oldest(entry)
        return labels

    def _store(self, entry: Path, path: Path, modality: Modality | None) -> bool:
        """Write an entry; False when the scan's header cannot be kept."""
        voxels, affine, source = read_oriented(path)
        if voxels.dtype not in _EXACT:
            voxels = to_intensities(path, voxels)
        kind = find_modality(path, voxels, source, modality)
        meta = describe_volume(affine, kind, hash_voxels(voxels, affine), source, _window_percentiles(voxels))
        if meta is None:
            return False
        kept = np.dtype(np.int16) if _is_short(voxels) else voxels.dtype.newbyteorder("<")
        write_slices(entry, (np.ascontiguousarray(plane.astype(kept)) for plane in voxels), meta)
        self._drop_oldest(entry)
        return True

    def _has(self, entry: Path) -> bool:
        """True for an entry that can be opened; it counts as used now."""
        try:
            SliceArchive(entry).close()
            os.utime(entry)
        except FileNotFoundError:
            return False
        except DAMAGE:
            log.warning("%s is damaged and is made anew", entry)
            return False
        return True

    def _entry(self, path: Path, settings: dict[str, Any]) -> Path:
        versions = [LAYOUT, version("medvol-r1"), version("blosc2"), version("numpy")]
        text = json.dumps([self._hash_content(path), settings, versions], sort_keys=True)
        return self.folder / f"{hashlib.blake2b(text.encode(), digest_size=20).hexdigest()}{_SUFFIX}"

    def _hash_content(self, path: Path) -> str:
        """Hash of the bytes of a scan's files, looked up while they stay as they are."""
        stamp = stamp_scan(path)
        name = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=20).hexdigest()
        index = self.folder / "hashes" / f"{name}.json"
        try:
            known = parse_json(index.read_text())
            if known["stamp"] == stamp.text and re.fullmatch(r"[0-9a-f]{40}", known["hash"]):
                return str(known["hash"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        digest = hashlib.blake2b(digest_size=20)
        for file in scan_files(path):
            digest.update(os.fsencode(relative_name(file, path)) + f":{file.stat().st_size};".encode())
            with file.open("rb") as stream:
                while piece := stream.read(_PIECE):
                    digest.update(piece)
        if stamp.settled:
            with write_whole(index, durable=False) as partial:
                partial.write_text(json.dumps({"stamp": stamp.text, "hash": digest.hexdigest()}))
        return digest.hexdigest()

    def _drop_oldest(self, newest: Path) -> None:
        """Keep to the bound; the entry that was just made stays in any case, what a killed process left does not."""
        for left in self.folder.glob(".partial-*"):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink(missing_ok=True)
        entries = sorted(self._entries(), key=lambda entry: entry[1])
        total = sum(size for _, _, size in entries)
        for path, _, size in entries:
            if total <= self.max_gib * 2**30:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size

    def _entries(self) -> Iterator[tuple[Path, float, int]]:
        """Path, time of last use and size of every entry; one that another process drops meanwhile is left out."""
        for path in self.folder.glob(f"*{_SUFFIX}"):
            try:
                state = path.stat()
            except FileNotFoundError:
                continue
            yield path, state.st_mtime, state.st_size


def _is_kept(path: Path) -> bool:
    """True for a scan that is there; what is none is refused by the reader."""
    return path.is_dir() or (ends_in(path, (*SCANS, *DICOM)) and path.is_file())


def _is_short(voxels: NDArray[Any]) -> bool:
    """True for float voxels that int16 holds without loss, such as Hounsfield units."""
    limits = np.iinfo(np.int16)
    if voxels.dtype.kind != "f" or voxels.min() < limits.min or voxels.max() > limits.max:
        return False
    return all(bool((plane == np.rint(plane)).all()) for plane in voxels)


def _window_percentiles(voxels: NDArray[Any]) -> dict[float, float]:
    """Percentiles that the preset windows ask for, and the smallest and the largest voxel."""
    shares = sorted({0.0, 100.0, *(share for window in WINDOWS.values() for share in window.percentiles)})
    return dict(zip(shares, voxel_percentiles(voxels, shares), strict=True))
