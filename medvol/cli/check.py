"""``medvol check``: look at a scan, a folder of scans, or the data sets of an experiment before using them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medvol.cli.parsing import ComponentParser
from medvol.cli.settings import FILE_SUFFIXES
from medvol.core.errors import ConfigError, DatasetError, MedvolError

if TYPE_CHECKING:
    from medvol.core.imaging.check import ScanReport
    from medvol.core.roles import CaseDataset
    from medvol.core.types import Case


def run(verb: str, arguments: Sequence[str]) -> int:
    """Check what a path names; 1 when something in a folder or a data set cannot be used.

    Raises:
        ConfigError: There is nothing at the path, or the configuration is at fault.
        ScanError: The path is one scan, and it is refused.
    """
    parser = ComponentParser(prog=f"medvol {verb}", description="Check a scan, a folder of scans, or an experiment.")
    parser.add_argument("path", type=str, help="scan, folder, or YAML file of an experiment")
    parser.add_argument("--all", action="store_true", help="read every case of an experiment, not only the first few")
    options = parser.parse_args(list(arguments))
    path = Path(options.path)
    if not path.exists():
        raise ConfigError(f"there is nothing at {options.path!r}; give a scan, a folder, or a configuration file")
    if path.is_dir():
        return check_folder(path, Console())
    if path.suffix.lower() in FILE_SUFFIXES:
        return check_experiment(path, options.all, Console())
    return check_file(path, Console())


def check_file(path: Path, console: Console) -> int:
    """Print what a scan is.

    Raises:
        ScanError: It is refused.
    """
    from medvol.core.errors import ScanError
    from medvol.core.imaging.check import check_scan

    report = check_scan(path)
    if not report.usable:
        raise ScanError(f"{report.path}: {report.detail}")
    console.print(Text(f"{path}: {_describe(report)}"), soft_wrap=True)
    return 0


def check_folder(folder: Path, console: Console) -> int:
    """Print what every scan below a folder is, refusals included; a folder of DICOM is one scan.

    Raises:
        ConfigError: There is no scan in it.
    """
    from medvol.core.imaging.check import check_scan
    from medvol.core.imaging.reading import SUFFIXES
    from medvol.core.inference.scans import find_scans

    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name.lower().endswith(SUFFIXES))
    dicom = [scan for scan in find_scans(folder) if scan not in files]
    if not files and not dicom:
        raise ConfigError(f"there is no scan in {str(folder)!r}; scans end in {', '.join(SUFFIXES)}, or are DICOM")
    if dicom == [folder] and not files:
        return check_file(folder, console)
    files += dicom
    refused = 0
    for file in files:
        report = check_scan(file)
        refused += not report.usable
        verdict = _describe(report) if report.usable else f"refused ({report.problem}): {report.detail}"
        console.print(Text(f"{file.relative_to(folder)}: {verdict}"), soft_wrap=True)
    console.print(Text(f"{len(files) - refused} of {len(files)} scans can be used"))
    return 1 if refused else 0


def check_experiment(path: Path, thorough: bool, console: Console) -> int:
    """Build the data sets of an experiment, read cases of each, and print what was found.

    Args:
        path: Configuration file.
        thorough: Read every case; only the first case of the first volumes otherwise.
        console: Where to print.

    Raises:
        ConfigError: The configuration is at fault.
    """
    from medvol.cli.experiment import build_data

    data = build_data(path)
    problems: list[str] = []
    table = Table("split", "cases", "volumes", "patients", "read", "usable", box=None, header_style="bold")
    for split, dataset in data.splits.items():
        if dataset is not None:
            table.add_row(split, *_check_split(split, dataset, thorough, problems))
    console.print(table)
    for problem in problems:
        console.print(Text(problem), soft_wrap=True)
    return 1 if problems else 0


def _check_split(split: str, dataset: CaseDataset, thorough: bool, problems: list[str]) -> list[str]:
    """Counts of one data set as text; what is wrong with it is added to ``problems``."""
    indices = range(len(dataset))
    if not indices:
        problems.append(f"{split}: the data set holds no case")
    volumes = {dataset.volume_key(index) for index in indices}
    patients = {dataset.patient_id(index) for index in indices}
    chosen = list(indices if thorough else _first_of_volumes(dataset, 3))
    found = [problem for index in chosen if (problem := _check_case(dataset, index, needs_target=split != "predict"))]
    problems.extend(f"{split}: {problem}" for problem in found)
    return [str(count) for count in (len(dataset), len(volumes), len(patients), len(chosen), len(chosen) - len(found))]


def _first_of_volumes(dataset: CaseDataset, count: int) -> Iterable[int]:
    first: dict[str, int] = {}
    for index in range(len(dataset)):
        first.setdefault(dataset.volume_key(index), index)
    return list(first.values())[:count]


def _check_case(dataset: CaseDataset, index: int, needs_target: bool) -> str:
    """What is wrong with a case; empty when nothing is."""
    try:
        case = dataset[index]
        _require_usable(case, needs_target)
    except MedvolError as error:
        return f"case {index}: {error}"
    return ""


def _require_usable(case: Case, needs_target: bool) -> None:
    if not case.query.text.strip():
        raise DatasetError(f"{case.case_id} has an empty query")
    if case.target is None and needs_target:
        raise DatasetError(f"{case.case_id} has no target mask, and this split is scored")
    if case.target is not None and case.target.shape != case.volume.shape:
        raise DatasetError(f"{case.case_id}: mask {case.target.shape} and volume {case.volume.shape} differ in shape")
    if case.target is not None and case.query.kind != "absent" and not case.target.any():
        raise DatasetError(f"{case.case_id}: the mask of {case.query.target or case.query.text!r} is empty")


def _describe(report: ScanReport) -> str:
    if report.shape is None or report.spacing_mm is None or report.intensities is None:
        return report.detail
    shape = " x ".join(map(str, report.shape))
    spacing = " x ".join(f"{size:.3g}" for size in report.spacing_mm)
    low, high = report.intensities
    return (
        f"{report.modality}, {shape} voxels (Z, Y, X), {spacing} mm, stored as {report.orientation}, "
        f"intensities {low:g} to {high:g}"
    )
