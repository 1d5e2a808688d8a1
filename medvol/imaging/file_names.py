"""Names of scan files: which ending means which format, and what a file is called without it.

Endings count in upper and lower case alike. A folder of DICOM has no ending, and is known by what it holds.
"""

from __future__ import annotations

from pathlib import Path

NIFTI = (".nii.gz", ".nii")
NRRD = (".nrrd", ".nhdr")
METAIMAGE = (".mha", ".mhd")

SCANS = (*NIFTI, *NRRD, *METAIMAGE)
"""Files that hold one scan each, or its header."""

WHOLE_SCANS = (".nii", ".nii.gz", ".nrrd", ".mha")
"""Files that hold a scan and its header; masks are written as one of them."""

ARCHIVE = ".zip"

DICOM_FILES = (".dcm", ".dicom", ".ima")
"""Single files that are taken for DICOM; in folders and archives names do not matter."""

DICOM = (ARCHIVE, *DICOM_FILES)
"""Files that are read as DICOM; a folder is too."""


def ends_in(path: Path, endings: str | tuple[str, ...]) -> bool:
    """True for a file name with one of some endings."""
    return path.name.lower().endswith(endings)


def is_scan(path: Path) -> bool:
    """True for a file name that ``read_volume`` takes; folders and archives of DICOM are known by what they hold."""
    return ends_in(path, SCANS) and not path.name.startswith(".")


def is_archive(path: Path) -> bool:
    """True for the name of a zip archive."""
    return ends_in(path, ARCHIVE)


def stem(name: str) -> str:
    """A file name, or a path as text, without the ending of a scan; ``ct.nii`` of ``ct.nii.nrrd``."""
    lower = name.lower()
    ending = max((ending for ending in (*SCANS, *DICOM) if lower.endswith(ending)), key=len, default="")
    return name[: len(name) - len(ending)]
