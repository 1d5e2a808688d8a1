"""Looking at every scan and label map of a folder, and at which of them are the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

from medvol.checking.findings import CheckReport, Finding, Fingerprint
from medvol.checking.fingerprint import Thumbnail, find_matches
from medvol.checking.label_maps import check_labels, find_scan
from medvol.checking.scans import check_scan
from medvol.core.errors import DatasetError, ScanError
from medvol.core.types import Volume
from medvol.imaging.file_names import is_scan, stem
from medvol.imaging.reading import read_volume
from medvol.queries.label_names import find_names_file, read_label_names


def check_files(files: list[Path], hear: Callable[[Path], None] = lambda path: None) -> CheckReport:
    """Look at files: label maps beside their scans, and scans that are there twice.

    Args:
        files: Scans and label maps.
        hear: Called after each of them, for a display of progress.
    """
    findings: list[Finding] = []
    fingerprints: list[Fingerprint] = []
    named: dict[Path, dict[int, str]] = {}
    shown: dict[Path, set[str]] = defaultdict(set)
    looks: list[tuple[str, Thumbnail]] = []
    for path, scan in _pair(files):
        names_file = None if scan is None else find_names_file(path)
        names, names_problem = _read_names(names_file)
        report = check_scan(path) if scan is None else check_labels(path, _read(scan), names)
        if names_file is not None and names is not None and report.fingerprint:
            named[names_file] = names
            shown[names_file] |= report.fingerprint.label_ml.keys()
        findings += [*([names_problem] if names_problem and names_problem not in findings else []), *report.findings]
        fingerprints += [report.fingerprint] if report.fingerprint else []
        looks += [(str(path), report.thumbnail)] if report.thumbnail else []
        hear(path)
    findings += [*_find_unshown(named, shown), *_find_copies(fingerprints, looks)]
    return CheckReport(tuple(findings), tuple(fingerprints))


def _pair(files: list[Path]) -> list[tuple[Path, Path | None]]:
    """Each file with the scan that it is the label map of."""
    folders: dict[Path, dict[str, Path]] = defaultdict(dict)
    for path in files:
        folders[path.parent][stem(path.name)] = path
    return [
        (path, find_scan(path, folders[path.parent]) if is_scan(path) and path.is_file() else None) for path in files
    ]


def _read_names(file: Path | None) -> tuple[dict[int, str] | None, Finding | None]:
    """Names of labels; none without a file, and a finding when it cannot be read."""
    if file is None:
        return None, None
    try:
        return read_label_names(file), None
    except DatasetError as error:
        return None, Finding("bad_layout", str(file), str(error).removeprefix(f"{file}: "))


def _read(path: Path) -> Volume | None:
    """A scan; None when it is refused, which is found when its own turn comes."""
    try:
        return read_volume(path)
    except ScanError:
        return None


def _find_unshown(named: Mapping[Path, Mapping[int, str]], shown: Mapping[Path, set[str]]) -> Iterator[Finding]:
    """Labels of a file of names that none of its label maps holds: one of the two is often a slip."""
    for file, names in named.items():
        unshown = ", ".join(f"{label} ({name!r})" for label, name in names.items() if name not in shown[file])
        if shown[file] and unshown:
            yield Finding("unseen_target", str(file), f"no label map that was read holds the label {unshown:.300}")


def _find_copies(fingerprints: list[Fingerprint], looks: list[tuple[str, Thumbnail]]) -> Iterator[Finding]:
    """Scans that are the same file, or look the same; label maps may well be equal."""
    hashes = {fingerprint.place: fingerprint.sha256 for fingerprint in fingerprints if fingerprint.kind == "scan"}
    for first, second in combinations(hashes, 2):
        if hashes[first] == hashes[second]:
            yield Finding("same_file", second, f"it has the very bytes of {first}")
    for match in find_matches([thumbnail for _, thumbnail in looks]):
        first, second = looks[match.first][0], looks[match.second][0]
        if hashes.get(first) != hashes.get(second):
            yield Finding("same_scan", second, f"it looks like {first} (correlation {match.correlation:.3f})")
