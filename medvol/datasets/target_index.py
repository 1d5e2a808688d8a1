"""Remembers what label maps hold, so that a large collection is looked through once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from medvol.core.atomic_files import write_whole
from medvol.core.json_file import parse_json
from medvol.datasets.layout import ScanFiles
from medvol.datasets.shown_targets import Found, ShownTarget

_VERSION = 1
"""Raised when the same label map gives other targets than before."""


@dataclass(frozen=True)
class TargetIndex:
    """A folder of JSON files, one for each scan looked through; nothing is remembered when it is None.

    An entry counts for one size and one time of change of every file of labels, and for one way of looking.
    """

    folder: str | None

    def get(self, scan: ScanFiles, settings: str, make: Callable[[], Found]) -> Found:
        """Targets of a scan, made and remembered when they are not known."""
        if self.folder is None:
            return make()
        entry = Path(self.folder) / f"{_key(scan, settings)}.json"
        known = _read(entry)
        if known is not None:
            return known
        found = make()
        with write_whole(entry, durable=False) as partial:
            partial.write_text(json.dumps(asdict(found)), encoding="utf-8")
        return found


def _key(scan: ScanFiles, settings: str) -> str:
    own = [path for s in scan.structures for path in (s.mask, *s.instances) if path is not None]
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in _label_files(scan, own)]
    content = repr((_VERSION, settings, [repr(s) for s in scan.structures], states))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _label_files(scan: ScanFiles, own: list[Path]) -> list[Path]:
    return [*([scan.label_map] if scan.label_map else []), *own]


def _read(entry: Path) -> Found | None:
    """An entry; None when there is none, or what lies there is not one."""
    try:
        content = parse_json(entry.read_text(encoding="utf-8"))
        shown = tuple(
            ShownTarget(
                row["target"], row["mask"], tuple(row["labels"]), row["seed"] and tuple(row["seed"]), row["meaning"]
            )
            for row in content["shown"]
        )
        return Found(shown, tuple(content["absent"]), dict(content["dropped"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
