"""Remembers what label maps hold, so that a large collection is looked through once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from medvol.core.atomic_files import write_whole
from medvol.core.json_file import parse_json
from medvol.core.notices import tell_once
from medvol.datasets.layout import ScanFiles
from medvol.datasets.shown_targets import Found, ShownTarget
from medvol.imaging.scan_files import ScanStamp, stamp_scan

_VERSION = 2
"""Raised when the same label map gives other targets than before."""


@dataclass(frozen=True)
class TargetIndex:
    """A folder of JSON files, one for each scan looked through; nothing is remembered when it is None.

    An entry counts for files of labels that stay as they are, see ``stamp_scan``, and for one way of looking. It names
    a file by its place among those of the scan, so that it holds wherever a run starts. A folder that cannot be written
    costs time, which is told, and stops nothing.
    """

    folder: str | None

    def get(self, scan: ScanFiles, settings: str, make: Callable[[], Found]) -> Found:
        """Targets of a scan, made and remembered when they are not known."""
        if self.folder is None:
            return make()
        files = _label_files(scan)
        stamps = [stamp_scan(path) for path in files]
        entry = Path(self.folder) / f"{_key(scan, settings, files, stamps)}.json"
        known = _read(entry, files)
        if known is not None:
            return known
        found = make()
        if all(stamp.settled for stamp in stamps):
            try:
                _write(entry, files, found)
            except OSError as error:
                tell_once(
                    f"index {self.folder} cannot be written ({error.strerror}); label maps are read at each start"
                )
        return found


def _key(scan: ScanFiles, settings: str, files: Sequence[Path], stamps: Sequence[ScanStamp]) -> str:
    structures = [
        replace(s, mask=s.mask and s.mask.resolve(), instances=tuple(path.resolve() for path in s.instances))
        for s in scan.structures
    ]
    content = repr(
        (_VERSION, settings, structures, [str(path.resolve()) for path in files], [stamp.text for stamp in stamps])
    )
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _label_files(scan: ScanFiles) -> list[Path]:
    own = [path for s in scan.structures for path in (s.mask, *s.instances) if path is not None]
    return [*([scan.label_map] if scan.label_map else []), *own]


def _write(entry: Path, files: Sequence[Path], found: Found) -> None:
    places = {str(path): place for place, path in enumerate(files)}
    content = asdict(found)
    for row in content["shown"]:
        row["mask"] = places[row["mask"]]
    with write_whole(entry, durable=False) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")


def _read(entry: Path, files: Sequence[Path]) -> Found | None:
    """An entry; None when there is none, or what lies there is not one."""
    try:
        content = parse_json(entry.read_text(encoding="utf-8"))
        shown = tuple(
            ShownTarget(
                row["target"],
                str(files[row["mask"]]),
                tuple(row["labels"]),
                row["seed"] and tuple(row["seed"]),
                row["meaning"],
            )
            for row in content["shown"]
        )
        return Found(shown, tuple(content["absent"]), dict(content["dropped"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
