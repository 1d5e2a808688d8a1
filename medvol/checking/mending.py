"""Corrected copies: problems of a file are corrected one after the other; the copy is kept if the reader accepts it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from medvol.checking.findings import Finding
from medvol.checking.header_mending import MENDERS, Mending
from medvol.checking.scans import check_scan
from medvol.core.atomic_files import write_whole
from medvol.core.notices import keep_quiet
from medvol.imaging.file_names import NIFTI, ends_in

_ROUNDS = 6


def mend_copy(path: Path, target: Path, mending: Mending) -> list[str]:
    """Write a mended copy of a NIfTI file.

    Args:
        path: A file in which ``check_scan`` finds something.
        target: The copy; another path, so that nothing is mended in place. Its folder is made.
        mending: What is known beside the file.

    Returns:
        Names of the problems that were mended; none when nothing was written: one that is more than a warning cannot be
        mended, or one is as it was after it was mended.
    """
    if not ends_in(path, NIFTI) or target.resolve() == path.resolve():
        return []
    with tempfile.TemporaryDirectory() as folder, keep_quiet():
        copy, mended, left = Path(folder) / path.name, dict[Finding, None](), set[str]()
        shutil.copyfile(path, copy)
        for _ in range(_ROUNDS):
            found = [finding for finding in check_scan(copy).findings if finding.name in MENDERS]
            found = [finding for finding in found if finding.name not in left]
            if not found:
                break
            first = found[0]
            if first in mended:
                return []
            if MENDERS[first.name](copy, mending):
                mended[first] = None
            elif first.problem.warning:
                left.add(first.name)
            else:
                return []
        if not mended or not check_scan(copy).usable:
            return []
        with write_whole(target) as partial:
            shutil.copyfile(copy, partial)
    return [finding.name for finding in mended]
