"""``medvol check``: look at a scan, a folder, a table, or the data sets of an experiment before using them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from medvol.cli.json_document import print_document
from medvol.cli.parsing import ComponentParser
from medvol.cli.path_options import require_path_options
from medvol.cli.settings import FILE_SUFFIXES
from medvol.core.errors import ConfigError, ScanError
from medvol.core.ranges import require_least
from medvol.core.visible_text import show
from medvol.terminal.console import Console
from medvol.terminal.progress import Work

if TYPE_CHECKING:
    from medvol.checking.findings import CheckReport, Finding
    from medvol.core.roles import CaseDataset
    from medvol.core.types import Case

_WIDE = 240
"""Columns of what goes into a file or a pipe, so that no line is broken."""

SCHEMA = "medvol-check/1"

_SECONDS = 120.0

_TABLES = (".csv", ".tsv", ".txt")
"""Endings of tables; one of JSON is known by what it holds."""


def run(verb: str, arguments: Sequence[str]) -> int:
    """Check what a path names; 1 when something in a folder or a data set cannot be used.

    Raises:
        ConfigError: There is nothing at the path, or the configuration is at fault.
        ScanError: The path is one scan, and it is refused.
    """
    options = _parser(verb).parse_args(list(arguments))
    require_path_options(options, "PATH", "--root", "--fix")
    path = Path(options.path)
    if not path.exists():
        raise ConfigError(f"there is nothing at {options.path!r}; give a scan, a folder, or a configuration file")
    _refuse_unused(path, options)
    report = _check(path, options)
    if options.fix is not None:
        report = _mend(path, report, options)
    refused = next((finding for finding in report.errors if finding.place == str(path)), None)
    if options.json:
        print_document(SCHEMA, report.to_dict())
    else:
        show_report(report, path, untold=refused)
    if refused is not None and not _is_list(path):
        raise ScanError(f"{path}: {refused.detail}")
    return 1 if report.errors else 0


def _parser(verb: str) -> ComponentParser:
    parser = ComponentParser(
        prog=f"medvol {verb}",
        description="Check a scan, a folder of scans, a table, or the data of an experiment.",
    )
    parser.add_argument("path", type=str, help="scan, folder, CSV or JSON table, or YAML file of an experiment")
    parser.add_argument(
        "--all", action="store_true", help="read every case of a table or an experiment, however long that takes"
    )
    parser.add_argument(
        "--seconds", type=float | None, default=None, help="time for reading cases, without --all; 120 by default"
    )
    parser.add_argument(
        "--compare", action="store_true", help="also find scans of an experiment that look the same; reads all of them"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--root", type=str | None, default=None, help="folder that the paths of a table start at")
    parser.add_argument("--fix", type=str | None, default=None, help="write corrected copies into this folder")
    parser.add_argument("--nan_to", type=float | None, default=None, help="value of NaN voxels in corrected copies")
    parser.add_argument(
        "--assume_orientation",
        type=str | None,
        default=None,
        help="axes of corrected copies that had none, such as LPS",
    )
    parser.add_argument(
        "--hu_offset",
        type=float | None,
        default=None,
        help="added in corrected copies of a CT with another zero: -1024",
    )
    return parser


def _refuse_unused(path: Path, options: Any) -> None:
    """Refuse options that would do nothing, and values that cannot be.

    Raises:
        ConfigError: There is one.
        ScanError: ``assume_orientation`` names no axes.
    """
    for name in ("nan_to", "assume_orientation", "hu_offset"):
        if options[name] is not None and options.fix is None:
            raise ConfigError(f"--{name} is about corrected copies; add --fix FOLDER, or leave it out")
    for name in ("all", "seconds", "compare"):
        if options[name] not in (None, False) and not _is_list(path):
            raise ConfigError(f"--{name} is about a table or an experiment, and {options.path!r} is none; leave it out")
    if options.root is not None and not (_is_list(path) and _is_table(path)):
        raise ConfigError(f"--root is about a table, and {options.path!r} is none; leave it out")
    require_least(0, seconds=options.seconds)
    if options.assume_orientation is not None:
        from medvol.imaging.formats.nifti import require_axes

        require_axes(path, options.assume_orientation)


def _check(path: Path, options: Any) -> CheckReport:
    from medvol.checking.findings import CheckReport
    from medvol.checking.folders import check_files
    from medvol.checking.scans import check_scan
    from medvol.imaging.file_names import SCANS
    from medvol.imaging.folders import find_all_scans

    files = find_all_scans(path) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"there is no scan in {str(path)!r}; scans end in {', '.join(SCANS)}, or are DICOM")
    if files != [path]:
        with Work("looking", len(files), "files") as work:
            return check_files(files, lambda path: work.advance())
    if _is_list(path):
        return _check_table(path, options) if _is_table(path) else _check_experiment(path, options)
    found = check_scan(path)
    return CheckReport(found.findings, (found.fingerprint,) if found.fingerprint else ())


def _check_experiment(path: Path, options: Any) -> CheckReport:
    from medvol.cli.experiment_data import build_data
    from medvol.cli.readiness import find_obstacles

    data = build_data(path)
    obstacles = tuple(find_obstacles(path, data))
    refuse = None if data.augmentation is None else {"train": data.augmentation.require_unturned}
    report = _read({name: split for name, split in data.splits.items() if split is not None}, options, refuse)
    return replace(report, findings=(*obstacles, *report.findings))


def _check_table(path: Path, options: Any) -> CheckReport:
    from medvol.core.registry import DATASETS

    root = options.root if options.root is not None else str(path.parent)
    dataset: Any = DATASETS.get("NiftiDataset")
    return _read({"table": dataset(root=root, table=str(path))}, options)


def _read(
    splits: dict[str, CaseDataset], options: Any, refuse: Mapping[str, Callable[[Case], None]] | None = None
) -> CheckReport:
    """Read the cases of data sets, and say how far that is."""
    from medvol.checking.splits import check_splits

    seconds = _SECONDS if options.seconds is None else options.seconds
    with ExitStack() as shown:
        works: dict[str, Work] = {}

        def hear(split: str, read: int, count: int) -> None:
            if split not in works:
                works[split] = shown.enter_context(Work(f"reading {split}", count, "cases"))
            works[split].advance(read - works[split].done)

        return check_splits(splits, options.compare, None if options.all else seconds, hear, refuse)


def _mend(path: Path, report: CheckReport, options: Any) -> CheckReport:
    """Write corrected copies of files with findings; the report then names them."""
    from medvol.checking.header_mending import Mending
    from medvol.checking.mending import mend_copy

    folder = Path(options.fix)
    source = path if path.is_dir() else path.parent
    if folder.resolve().is_relative_to(source.resolve()) and (path.is_dir() or folder.resolve() == source.resolve()):
        raise ConfigError(
            f"--fix never changes the original; give a folder outside {str(source)!r}, not {options.fix!r}"
        )
    mending = Mending(options.nan_to, options.assume_orientation, options.hu_offset)
    places = dict.fromkeys(finding.place for finding in report.findings if Path(finding.place).is_file())
    targets = {place: folder / _below(Path(place), source) for place in places}
    if there := next((target for target in targets.values() if target.exists()), None):
        raise ConfigError(f"{show(there)} is there already, and --fix replaces no file; give another folder")
    mended = {place: str(target) for place, target in targets.items() if mend_copy(Path(place), target, mending)}
    if report.errors and not mended:
        remedy = "; to correct a scan of it, give that scan or its folder" if _is_list(path) else ""
        Console(stderr=True).print(Text(f"no corrected copy was written{remedy}"), soft_wrap=True)
    return replace(report, mended=mended)


def _below(place: Path, source: Path) -> Path:
    """Where a copy lies in the folder of copies: as in the source, or by its whole path when it lies elsewhere."""
    if place.is_relative_to(source):
        return place.relative_to(source)
    whole = place.resolve()
    return whole.relative_to(source.resolve()) if whole.is_relative_to(source.resolve()) else Path(*whole.parts[1:])


def _is_list(path: Path) -> bool:
    """True for a table or a configuration, rather than a scan."""
    return path.suffix.lower() in (*FILE_SUFFIXES, *_TABLES)


def _is_table(path: Path) -> bool:
    if path.suffix.lower() == ".json":
        return path.read_bytes()[:4096].decode("utf-8-sig", errors="replace").lstrip("\ufeff \t\r\n").startswith("[")
    return path.suffix.lower() in _TABLES


def show_report(report: CheckReport, path: Path, untold: Finding | None = None) -> None:
    """Print a report: what can be used, splits, problems, and what each of them means.

    Args:
        report: What was found.
        path: What was asked for.
        untold: A problem that the error at the end tells; here only what it means is printed.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    refused = {finding.place for finding in report.findings if not finding.problem.warning}
    for fingerprint in report.fingerprints:
        if fingerprint.place not in refused:
            console.print(Text(f"{_short(fingerprint.place, path)}: {fingerprint.describe()}"), soft_wrap=True)
    if report.splits:
        _show_splits(report, console)
    if report.findings:
        _show_findings(report, path, console, untold)
    for place, copy in report.mended.items():
        console.print(Text(f"{_short(place, path)}: corrected copy: {show(copy)}"), soft_wrap=True)
    if path.is_dir():
        places = {fingerprint.place for fingerprint in report.fingerprints} | refused
        console.print(Text(f"{len(places - refused)} of {len(places)} scans can be used"))


def _show_splits(report: CheckReport, console: Console) -> None:
    from medvol.checking.findings import millilitres

    table = _table("split", "cases", "volumes", "patients", "read", "usable")
    for split, facts in report.splits.items():
        table.add_row(split, *(str(facts[key]) for key in ("cases", "volumes", "patients", "read", "usable")))
    console.print(table)
    for split, facts in report.splits.items():
        if facts["read"] < facts["cases"]:
            line = f"{split}: {facts['read']} of {facts['cases']} cases were read, from scans spread over all of them"
            console.print(Text(f"{line}; --all reads every case, --seconds sets the time"), soft_wrap=True)
        for name, sizes in facts.get("target_ml", {}).items():
            line = f"{split}: {name}: {sizes['cases']} case(s), median {millilitres(sizes['median'])}"
            console.print(Text(line), soft_wrap=True)
        if "relations_without_answer" in facts:
            dropped = ", ".join(f"{form} {count}" for form, count in sorted(facts["relations_without_answer"].items()))
            console.print(Text(f"{split}: relational questions without a single answer: {dropped}"), soft_wrap=True)


def _show_findings(report: CheckReport, path: Path, console: Console, untold: Finding | None) -> None:
    found = _table("code", "where", "what was found")
    for finding in (one for one in report.findings if one is not untold):
        found.add_row(finding.problem.code, Text(_short(finding.place, path)), Text(finding.detail))
    if found.rows:
        console.print(found)
    legend = _table("code", "problem", "means", "what to do", "--fix")
    for problem in dict.fromkeys(finding.problem for finding in report.findings):
        name = f"{problem.name} (warning)" if problem.warning else problem.name
        legend.add_row(problem.code, name, problem.meaning, problem.fix, problem.mended or "no")
    console.print(legend)


def _table(*heads: str) -> Table:
    table = Table(*heads, box=None, header_style="bold", pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    return table


def _short(place: str, path: Path) -> str:
    """A place, relative to the folder that was asked for."""
    if place == str(path):
        return show(place)
    return show(Path(place).relative_to(path)) if path.is_dir() and Path(place).is_relative_to(path) else show(place)
