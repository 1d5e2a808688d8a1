"""Corrected copies: problems of a file are corrected one after the other; the copy is kept if the reader accepts it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from medvol.checking.catalogue import PROBLEMS
from medvol.checking.header_mending import MENDERS, Mending
from medvol.checking.scans import check_scan
from medvol.core.atomic_files import write_whole
from medvol.imaging.file_names import NIFTI, ends_in

_ROUNDS = 6


def mend_copy(path: Path, target: Path, mending: Mending) -> list[str]:
    """Write a mended copy of a NIfTI file.

    Args:
        path: A file in which ``check_scan`` finds something.
        target: The copy; another path, so that nothing is mended in place. Its folder is made.
        mending: What is known beside the file.

    Returns:
        Names of the problems that were mended; none when one that is more than a warning cannot be, and then nothing is
        written.
    """
    if not ends_in(path, NIFTI) or target.resolve() == path.resolve():
        return []
    with tempfile.TemporaryDirectory() as folder:
        copy, mended, left = Path(folder) / path.name, [], set[str]()
        shutil.copyfile(path, copy)
        for _ in range(_ROUNDS):
            found = [finding.name for finding in check_scan(copy).findings]
            found = [name for name in found if name in MENDERS and name not in left]
            if not found:
                break
            if MENDERS[found[0]](copy, mending):
                mended.append(found[0])
            elif PROBLEMS[found[0]].warning:
                left.add(found[0])
            else:
                return []
        if not mended or not check_scan(copy).usable:
            return []
        with write_whole(target) as partial:
            shutil.copyfile(copy, partial)
    return mended
