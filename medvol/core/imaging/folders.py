"""What a folder holds: scans of every format, or one DICOM study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medvol.core.errors import ScanError
from medvol.core.imaging.dicom.archives import is_archive
from medvol.core.imaging.dicom.files import holds_dicom
from medvol.core.imaging.dicom.reading import read_study
from medvol.core.imaging.reading import is_scan


def find_scans(folder: Path) -> list[Path]:
    """Scans of a folder, decided by what it holds.

    Files that are read by name (NIfTI, NRRD, MetaImage) and archives of DICOM are one scan each. Without any of them,
    a folder of DICOM is one scan, its subfolders included, unless its subfolders hold several studies: then each
    subfolder is one scan.

    Args:
        folder: Subfolders are searched for DICOM only.

    Returns:
        Paths that ``read_volume`` takes, in the order of their names; only ``folder`` itself when it is one scan;
        empty when there is none.
    """
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in entries if entry.is_file()]
    scans = [file for file in files if _is_one_scan(file)]
    if scans:
        return scans
    if any(holds_dicom(file) for file in files):
        return [folder]
    return _by_study(folder, [entry for entry in entries if entry.is_dir()])


def find_all_scans(folder: Path) -> list[Path]:
    """Scans of a folder and of every folder below it, label maps included.

    Returns:
        Files that are read by name and archives of DICOM, wherever they lie; and what ``find_scans`` takes for a scan
        in the uppermost folders that hold DICOM and no such file. Only ``folder`` itself when it is one scan.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and _is_one_scan(path)]
    return sorted({*files, *_find_dicom(folder)})


def is_batch(path: Path) -> bool:
    """True for a folder whose scans are asked one after another; False for one scan, a folder of DICOM included."""
    return path.is_dir() and find_scans(path) != [path]


def newest_change(scan: Path, besides: Path) -> float:
    """When a scan was last changed, or put where it is, in seconds; of a folder the newest file counts.

    Args:
        scan: File or folder.
        besides: Folder whose files do not count.
    """
    if not scan.is_dir():
        return _last_change(scan)
    own = besides.resolve()
    files = (file for file in scan.rglob("*") if file.is_file() and not file.resolve().is_relative_to(own))
    return max(map(_last_change, files), default=_last_change(scan))


def _last_change(path: Path) -> float:
    """The time of the content, or that of the name: a copy may keep the time of its original."""
    state = path.stat()
    return max(state.st_mtime, state.st_ctime)


def _find_dicom(folder: Path) -> list[Path]:
    found = find_scans(folder)
    if not any(scan.is_file() for scan in found):
        return found
    return [scan for below in sorted(folder.iterdir()) if below.is_dir() for scan in _find_dicom(below)]


def _is_one_scan(file: Path) -> bool:
    return is_scan(file) or (is_archive(file) and _may_hold_dicom(file))


def _may_hold_dicom(archive: Path) -> bool:
    try:
        return holds_dicom(archive)
    except ScanError:
        return True  # refused by name when its turn comes


def _by_study(folder: Path, subfolders: Sequence[Path]) -> list[Path]:
    studies: dict[Path, str] = {}
    for subfolder in subfolders:
        try:
            study = read_study(subfolder)
        except ScanError:
            study = ""
        if study is not None:
            studies[subfolder] = study or str(subfolder)
    if len(set(studies.values())) > 1:
        return list(studies)
    return [folder] if studies else []
