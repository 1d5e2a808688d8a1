"""The list of ReXGroundingCT: which findings each scan of a split shows, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvol.core.errors import DatasetError
from medvol.datasets.splits import read_json

CATEGORIES = {
    "1a": "bronchial wall thickening",
    "1b": "bronchiectasis",
    "1c": "emphysema",
    "1d": "septal thickening",
    "1e": "micronodules",
    "1f": "other non-focal finding",
    "2a": "linear opacity",
    "2b": "atelectasis or consolidation",
    "2c": "ground-glass opacity",
    "2d": "pulmonary nodule or mass",
    "2e": "pleural effusion or thickening",
    "2f": "honeycombing",
    "2g": "pneumothorax",
    "2h": "other focal finding",
}
"""What the categories of findings are called here, by the codes of the release."""

PARTS = ("train", "val", "test")
"""Lists of the file."""

_NAME = re.compile(r"((?:train|valid)_\d+)_[a-z]+_\d+\.nii\.gz")
_LONGEST = 2000


@dataclass(frozen=True)
class Finding:
    """One finding of a scan.

    Args:
        text: The report's own words.
        category: Its code, a key of ``CATEGORIES``.
        voxels: Size of its mask as the list states it; None where it does not.
    """

    text: str
    category: str
    voxels: int | None


@dataclass(frozen=True)
class ListedScan:
    """One scan of the list.

    Args:
        file: Name of the scan's file and of its masks: ``train_1741_b_2.nii.gz``.
        patient: Start of that name: ``train_1741``.
        part: One of ``PARTS``.
        findings: In the order of the masks along the first axis of their file.
    """

    file: str
    patient: str
    part: str
    findings: tuple[Finding, ...]

    @property
    def case(self) -> str:
        """Start of the ids of its cases: ``train_1741_b_2``."""
        return self.file.removesuffix(".nii.gz")


def read_list(path: Path) -> list[ListedScan]:
    """Read ``dataset.json`` or ``MICCAI_challenge_dataset.json``.

    Raises:
        DatasetError: It is missing or has another layout; the message names the entry.
    """
    content = read_json(path)
    parts = [part for part in PARTS if isinstance(content, dict) and isinstance(content.get(part), list)]
    if not parts:
        raise DatasetError(f"{path}: expected lists of scans under {', '.join(PARTS)}; download the release's own file")
    scans = [
        _read_scan(f"{path}: {part} {place}", part, entry)
        for part in parts
        for place, entry in enumerate(content[part])
    ]
    seen: set[str] = set()
    for scan in scans:
        if scan.file in seen:
            raise DatasetError(f"{path}: {scan.file} is in it twice; download the release's own file")
        seen.add(scan.file)
    return scans


def _read_scan(where: str, part: str, entry: Any) -> ListedScan:
    name = entry.get("name") if isinstance(entry, dict) else None
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise DatasetError(f"{where} has the name {name!r:.80}; names are like 'train_1741_b_2.nii.gz'")
    texts = _by_number(where, "findings", entry.get("findings"))
    if not texts or sorted(texts) != list(range(len(texts))):
        raise DatasetError(f"{where} ({name}) has no findings numbered from 0 on; got {sorted(texts)!s:.80}")
    codes = _by_number(where, "categories", entry.get("categories") or {})
    sizes = _by_number(where, "pixels", entry.get("pixels") or {})
    findings = tuple(
        _read_finding(f"{where} ({name}): finding {i}", texts[i], codes.get(i), sizes.get(i)) for i in sorted(texts)
    )
    return ListedScan(match[0], match[1], part, findings)


def _by_number(where: str, what: str, given: Any) -> dict[int, Any]:
    """What an entry says of each finding, by its number."""
    if not isinstance(given, Mapping) or not all(re.fullmatch(r"\d{1,4}", key) for key in given):
        raise DatasetError(f"{where}: {what} is {given!r:.80}; expected values by the number of a finding, from '0'")
    return {int(key): value for key, value in given.items()}


def _read_finding(where: str, text: Any, code: Any, voxels: Any) -> Finding:
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        raise DatasetError(f"{where} is {text!r:.80}; expected a sentence")
    if code is not None and not (isinstance(code, str) and code in CATEGORIES):
        raise DatasetError(f"{where} has the category {code!r:.40}; there are {', '.join(CATEGORIES)}")
    if voxels is not None and (type(voxels) is not int or voxels < 0):
        raise DatasetError(f"{where} has {voxels!r:.40} pixels; expected a whole number")
    return Finding(text.strip(), code or "", voxels)
