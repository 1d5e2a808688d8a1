"""Which files a scan consists of, and whether they are still the ones that were read."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from medvol.core.settled_files import have_settled, stamp_file
from medvol.imaging.file_names import METAIMAGE, NRRD, ends_in


@dataclass(frozen=True)
class ScanStamp:
    """What the system says of all files of a scan.

    Args:
        text: Equal as long as no file is changed, added, removed, or replaced by another one.
        settled: Whether all files had rested before now; otherwise a change may leave ``text`` as it is.
    """

    text: str
    settled: bool


def scan_files(path: Path) -> list[Path]:
    """All files that a scan consists of.

    Args:
        path: A file of any format, or a folder of DICOM.

    Returns:
        Every file below a folder; otherwise the file itself, and behind it the files with the voxels that its header
        names. Where the header is refused, the file alone.
    """
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path, *voxel_files(path)]


def voxel_files(path: Path) -> tuple[Path, ...]:
    """Files with the voxels that a header names, besides its own; none where it is refused."""
    if not ends_in(path, (*NRRD, *METAIMAGE)):
        return ()
    from medvol.imaging.formats.metaimage import read_metaimage
    from medvol.imaging.formats.nrrd import read_nrrd

    read = read_nrrd if ends_in(path, NRRD) else read_metaimage
    try:
        return read(path, sys.maxsize, header_only=True).voxel_files
    except (ValueError, OSError):  # a scan that is refused, or no path at all
        return ()


def stamp_scan(path: Path) -> ScanStamp:
    """What the system says of the files of a scan now.

    Raises:
        OSError: The scan is not there.
    """
    files = scan_files(path)
    stamps = [stamp_file(file) for file in files]
    listing = [(relative_name(file, path), stamp) for file, stamp in zip(files, stamps, strict=True)]
    return ScanStamp(hashlib.blake2b(repr(listing).encode(), digest_size=20).hexdigest(), have_settled(stamps))


def relative_name(file: Path, scan: Path) -> str:
    """Name of a file of a scan, as seen from the scan; names of DICOM files may not be kept as they are."""
    return os.path.relpath(file, scan)
