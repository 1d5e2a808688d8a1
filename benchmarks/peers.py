"""What the benchmarks need beside medvol; what is missing is said in a sentence, with exit code 2."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn


def missing(*libraries: str) -> str | None:
    """Say which of these libraries, named as they are imported, are not installed; None when all are."""
    gone = ", ".join(name for name in libraries if find_spec(name) is None)
    return f'{gone} is needed here but is not installed; run: pip install "medvol-r1[bench]"' if gone else None


def need(*libraries: str) -> None:
    """End the program when one of these libraries, named as they are imported, is not installed."""
    sentence = missing(*libraries)
    if sentence:
        refuse(sentence)


def need_folder(path: Path, option: str) -> None:
    """End the program when a folder of data is not there."""
    if not path.is_dir():
        refuse(f"there is no folder {str(path)!r}; set {option} to the folder of the data")


def refuse(sentence: str) -> NoReturn:
    """Say what is missing and end the program."""
    print(f"{Path(sys.argv[0]).name}: {sentence}", file=sys.stderr)
    sys.exit(2)
