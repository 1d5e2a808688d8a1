"""Splits: which patients are trained on, validated and tested."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from unicodedata import normalize

from medvol.core.errors import DatasetError
from medvol.core.json_file import parse_json
from medvol.imaging.file_names import stem

Split = Literal["all", "train", "val", "test"]

_PARTS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test"}


def split_patients(patients: Iterable[str], fractions: tuple[float, float, float], seed: int) -> dict[str, set[str]]:
    """Deal patients to train, val and test, in the order of a seeded hash of their names.

    Args:
        patients: Names; their order does not matter.
        fractions: Shares of train, val and test; they sum to 1.
        seed: Another seed deals otherwise.
    """
    order = sorted(
        set(patients), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode(errors="surrogatepass")).hexdigest()
    )
    first, second = (round(share * len(order)) for share in (fractions[0], fractions[0] + fractions[1]))
    return {"train": set(order[:first]), "val": set(order[first:second]), "test": set(order[second:])}


def complete_split(published: Mapping[str, str], val_share: float, test_share: float, seed: int) -> dict[str, set[str]]:
    """Keep a publisher's split and deal what it leaves open.

    Args:
        published: Part (``train``, ``val``, ``test``) of each patient; empty where the publisher names none.
        val_share: Share of the patients that become ``val`` where the publisher has none.
        test_share: Share that becomes ``test`` where the publisher has no split at all; ``val_share`` is of the same
            whole.
        seed: Another seed deals otherwise.
    """
    if not any(published.values()):
        return split_patients(published, (1 - val_share - test_share, val_share, test_share), seed)
    parts = {part: {name for name, own in published.items() if own == part} for part in ("train", "val", "test")}
    if not parts["val"] and val_share:
        dealt = split_patients(parts["train"], (1 - val_share, val_share, 0.0), seed)
        parts |= {"train": dealt["train"], "val": dealt["val"]}
    return parts


def read_split_file(path: Path, cases: Collection[str]) -> dict[str, str]:
    """Read a split from JSON: ``{"train": [...], "test": [...]}``, each entry a case or ``{"image": "0004/case/..."}``.

    Args:
        path: The file.
        cases: Names of all cases there are. Of an entry that is a path, a folder or the file is called by one of them.

    Returns:
        Part of each case that the file names.

    Raises:
        DatasetError: It cannot be read, has another layout, or names what is no case, or a case twice.
    """
    content = read_json(path)
    parts: dict[str, str] = {}
    for key, entries in content.items() if isinstance(content, dict) else ():
        part = _PARTS.get(str(key).lower())
        if part is None:
            if isinstance(entries, list) and any(_named_cases(_image(entry), cases) for entry in entries):
                raise DatasetError(f"{path}: {key!r} names cases and is no part; call it train, val or test")
            continue
        if not isinstance(entries, list):
            raise DatasetError(f"{path}: {key} is {entries!r:.80}; write a list of names")
        for entry in entries:
            image = _image(entry)
            if not isinstance(image, str):
                raise DatasetError(f"{path}: {key} holds {entry!r:.80}; write a name, or an object with 'image'")
            names = _named_cases(image, cases)
            if not names:
                raise DatasetError(
                    f"{path}: {key} names {image!r:.80}, which is no case; cases are like {min(cases)!r}"
                )
            for name in names:
                if name in parts:
                    raise DatasetError(f"{path}: {name!r} is in {parts[name]} and again in {part}; name a case once")
                parts[name] = part
    if not parts:
        raise DatasetError(f'{path}: expected {{"train": [...], "val": [...], "test": [...]}} with names of cases')
    return parts


def _image(entry: Any) -> Any:
    return entry.get("image") if isinstance(entry, dict) else entry


def _named_cases(image: Any, cases: Collection[str]) -> set[str]:
    """Cases whose name is a part of a path, or the stem of one."""
    parts = PurePosixPath(normalize("NFC", image)).parts if isinstance(image, str) else ()
    named = {name for whole in parts for name in (whole, stem(whole))}
    return {case for case in cases if normalize("NFC", case) in named}


def read_json(path: Path) -> Any:
    """Read JSON text.

    Raises:
        DatasetError: The file is missing, or is not JSON.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{path}: it cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise DatasetError(f"{path}: not JSON ({error})") from error
