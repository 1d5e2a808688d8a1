"""Case masks: which case a mask answers, by what its file is called.

``medvol test`` calls a mask by its case. ``medvol predict`` adds a digest of the question, ``CASE_3f9a1c0b7d2e``, so
that the answers of two policies have two names, and writes a record of that name beside the mask.
"""

from __future__ import annotations

import re
from pathlib import Path

from medvol.core.errors import DatasetError
from medvol.imaging.file_names import WHOLE_SCANS, ends_in, stem

DIGEST_LENGTH = 12
"""Hexadecimal digits that tell one question from another in the name of its answer."""

_ANSWER = re.compile(rf"(.+)_[0-9a-f]{{{DIGEST_LENGTH}}}", re.DOTALL)


def case_stem(mask: Path) -> str:
    """The name of a mask without its ending; without its digest too where a record says that it is an answer."""
    name = stem(mask.name)
    answer = _ANSWER.fullmatch(name)
    return answer[1] if answer and mask.with_name(f"{name}.json").is_file() else name


def find_case_masks(folder: str | Path) -> dict[str, Path]:
    """Masks of a folder by the names of their cases.

    Raises:
        DatasetError: Two masks answer one case.
    """
    found: dict[str, Path] = {}
    for path in sorted(path for path in Path(folder).glob("*") if ends_in(path, WHOLE_SCANS)):
        other = found.setdefault(case_stem(path), path)
        if other != path:
            raise DatasetError(f"case {case_stem(path)!r} is answered by {other} and by {path}; leave one of them out")
    return found
