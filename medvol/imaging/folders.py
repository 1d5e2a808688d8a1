"""What a folder holds: scans of every format, or one DICOM study; and what it holds besides."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medvol.core.errors import ScanError
from medvol.imaging.dicom.files import holds_dicom
from medvol.imaging.dicom.reading import holds_images, read_study
from medvol.imaging.file_names import is_archive, is_scan
from medvol.imaging.folder_walk import find_below
from medvol.imaging.label_maps import find_label_maps, is_named_label, looks_like_labels
from medvol.imaging.left_out import LeftOut, is_clutter, printable, tell_left_out
from medvol.imaging.scan_files import voxel_files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderContents:
    """What lies in a folder.

    Args:
        scans: Paths that ``read_volume`` takes, in the order of their names; only the folder itself when it is one
            scan; empty when there is none.
        left_out: What is not among them. What a folder of DICOM leaves out is known when it is read.
    """

    scans: list[Path]
    left_out: list[LeftOut]


def find_scans(folder: str | Path) -> list[Path]:
    """Find the scans of a folder by its content; a warning names what is not used.

    Files that are read by name (NIfTI, NRRD, MetaImage) and archives of DICOM are one scan each, but label maps beside
    their scans are none. Without any of them, a folder of DICOM images is one scan, its subfolders included, unless its
    subfolders hold several studies: then each of these is one scan. Segmentation objects, reports and captured pictures
    make no scan.

    Args:
        folder: Subfolders are searched for DICOM only.

    Returns:
        See ``FolderContents.scans``.
    """
    folder = Path(folder)
    contents = look_into(folder)
    tell_left_out(folder, contents.left_out)
    _tell_label_maps(contents.scans)
    return contents.scans


def look_into(folder: Path) -> FolderContents:
    """As ``find_scans``, in silence, with what is not used."""
    entries = sorted(entry for entry in folder.iterdir() if not is_clutter(entry.name))
    hidden = [LeftOut(entry.name, "is hidden") for entry in entries if entry.name.startswith(".")]
    entries = [entry for entry in entries if not entry.name.startswith(".")]
    files = [entry for entry in entries if entry.is_file()]
    subfolders = [entry for entry in entries if entry.is_dir()]
    named = [file for file in files if _is_one_scan(file)]
    voxels = {voxels for file in named for voxels in voxel_files(file)}
    rest = sorted({*files} - {*named, *voxels})
    dicom = [folder] if any(map(holds_images, rest)) else []
    studies = [] if dicom else _by_study(folder, subfolders)
    maps = find_label_maps(named, bool(dicom or studies))
    scans = sorted({*named} - {*maps})
    if scans and not dicom:
        studies = []
    found = [*dicom, *studies, *scans]
    if not found and any(map(holds_dicom, rest)):
        found = [folder]  # reading it tells why it is none
    if folder in found:
        return FolderContents(found, [])  # reading it tells what is left out
    left_out = [LeftOut(file.name, "is a label map; name the file itself to ask about it") for file in maps]
    left_out += [LeftOut(file.name, "is no scan") for file in rest]
    left_out += [
        LeftOut(entry.name, reason) for entry in subfolders if entry not in found and (reason := _what_else(entry))
    ]
    return FolderContents(found, [*left_out, *hidden])


def find_all_scans(folder: Path) -> list[Path]:
    """Scans of a folder and of every folder below it, links to folders and label maps included.

    Returns:
        Files that are read by name and archives of DICOM, wherever they lie; and the uppermost folders that hold images
        of DICOM, or what ``find_scans`` takes for scans in those without files of their own. Only ``folder`` itself
        when it is one scan.
    """
    below = sorted(find_below(folder))
    files = [path for path in below if path.is_file() and _is_one_scan(path)]
    children: dict[Path, list[Path]] = {}
    for path in below:
        if path.is_dir():
            children.setdefault(path.parent, []).append(path)
    return sorted({*files, *_find_dicom(folder, children)}) or look_into(folder).scans


def is_batch(path: Path) -> bool:
    """True for a folder whose scans are asked one after another; False for one scan, a folder of DICOM included."""
    return path.is_dir() and look_into(path).scans != [path]


def _find_dicom(folder: Path, children: Mapping[Path, list[Path]]) -> list[Path]:
    files = [entry for entry in sorted(folder.iterdir()) if entry.is_file() and not entry.name.startswith(".")]
    if not any(map(_is_one_scan, files)):
        return [scan for scan in look_into(folder).scans if holds_images(scan)]
    if any(holds_images(file) for file in files if not _is_one_scan(file)):
        return [folder]
    return [scan for place in children.get(folder, ()) for scan in _find_dicom(place, children)]


def _is_one_scan(file: Path) -> bool:
    return is_scan(file) or (is_archive(file) and holds_images(file))


def _what_else(folder: Path) -> str:
    """What a subfolder is that is no scan; empty where nothing in it is read as one."""
    if any(is_scan(path) for path in find_below(folder)) or holds_images(folder):
        return "is a folder with scans of its own; name it to ask about them"
    return "is a folder of DICOM without a scan" if holds_dicom(folder) else ""


def _tell_label_maps(files: Sequence[Path]) -> None:
    """Warn of scans that look like label maps and are asked all the same, since there is no scan beside them."""
    for file in files:
        if file.is_file() and is_named_label(file) and looks_like_labels(file):
            log.warning("%s looks like a label map, but is taken for a scan", printable(str(file)))


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
