"""What the scans of a batch are, so that one whose files stay as they are is not read again to find its answers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from medvol.core.atomic_files import write_whole
from medvol.core.errors import explain_os_error
from medvol.core.json_file import parse_json
from medvol.core.types import Modality, Volume
from medvol.imaging.geometry import stored_orientation
from medvol.imaging.scan_files import ScanStamp, stamp_scan
from medvol.imaging.volume_hash import hash_volume
from medvol.inference.names import place

log = logging.getLogger(__name__)

FILE = ".scans-read"
"""Its name in the folder of a batch."""


@dataclass(frozen=True)
class KnownScan:
    """What a scan was when it was read, without settings of the reader.

    Args:
        sha256: Hash of its voxels and geometry.
        modality: What it was read as.
        orientation: Which way the axes of its file run, in three letters.
        shape: (Z, Y, X).
    """

    sha256: str
    modality: Modality
    orientation: str
    shape: tuple[int, int, int]


class KnownScans:
    """Remembers scans that were read, beside the summary of a batch.

    A scan is known for as long as the system says the same of all its files (see ``stamp_scan``), at the same place
    over all links, and for one version of medvol.

    Args:
        folder: Of the batch.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._found = _read(self._path)

    def find(self, scan: Path, series: str | None) -> KnownScan | None:
        """A scan that is still as it was read; None when it has to be read."""
        kept = self._found.get(_key(scan, series))
        try:
            if kept is not None and kept["stamp"] == stamp_scan(scan).text:
                return _check(kept["scan"])
        except (OSError, KeyError, TypeError, ValueError):
            pass  # the scan is not there, and reading it says so; or the file was damaged
        return None

    def add(self, scan: Path, series: str | None, stamp: ScanStamp, volume: Volume) -> None:
        """Remember a scan, unless a change of its files might pass unseen.

        Args:
            scan: Where it lies.
            series: What its series was named by, or None.
            stamp: Taken before it was read.
            volume: As it was read.
        """
        if stamp.settled and stamp_scan(scan).text == stamp.text:
            known = KnownScan(hash_volume(volume), volume.modality, stored_orientation(volume), volume.shape)
            self._found[_key(scan, series)] = {"stamp": stamp.text, "scan": asdict(known)}

    def write(self) -> None:
        """Keep it for the next run; what another run has kept meanwhile is kept too."""
        content = {**_read(self._path), **self._found}
        try:
            with write_whole(self._path, durable=False) as partial:
                partial.write_text(json.dumps({"medvol": version("medvol-r1"), "scans": content}))
        except OSError as error:
            log.warning("the next run reads every scan again: %s", explain_os_error(error))


def _key(scan: Path, series: str | None) -> str:
    return json.dumps([str(place(scan)), series])


def _read(path: Path) -> dict[str, Any]:
    """What was kept by this version of medvol; nothing when it cannot be read."""
    try:
        content = parse_json(path.read_text())
        own = content["medvol"] == version("medvol-r1") and isinstance(content["scans"], dict)
        return dict(content["scans"]) if own else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _check(kept: Mapping[str, Any]) -> KnownScan:
    """Raises ValueError for what was not written here."""
    z, y, x = kept["shape"]
    sizes = all(isinstance(size, int) and size > 0 for size in (z, y, x))
    texts = re.fullmatch(r"[0-9a-f]{64}", kept["sha256"]) and re.fullmatch(r"[LRAPSI]{3}", kept["orientation"])
    if not sizes or not texts or kept["modality"] not in get_args(Modality):
        raise ValueError(f"no scan: {kept}")
    return KnownScan(kept["sha256"], kept["modality"], kept["orientation"], (z, y, x))
