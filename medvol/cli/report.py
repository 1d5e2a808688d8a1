"""``medvol report``: evaluations side by side, in the terminal or as a page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jsonargparse import Namespace
from rich.text import Text

from medvol.cli.json_document import print_document
from medvol.cli.parsing import ComponentParser
from medvol.cli.path_options import require_path_options
from medvol.core.errors import ConfigError
from medvol.core.visible_text import show
from medvol.terminal.console import Console
from medvol.training.former_run import recover

SCHEMA = "medvol-report/1"


def run(verb: str, arguments: Sequence[str]) -> int:
    """Print the evaluations of runs as tables, or write them as a page.

    Raises:
        ConfigError: A run is named twice, or options do not go together.
        RecordError: A run has no evaluation, or a damaged one.
    """
    options = _parser(verb).parse_args(list(arguments))
    _refuse(options)
    from medvol.evaluation.report import report_runs
    from medvol.evaluation.report_document import describe_runs

    if options.html is not None:
        _write_page(options)
    if options.json:
        print_document(SCHEMA, describe_runs(options.runs))
    elif options.markdown:
        print(show(report_runs(options.runs).to_markdown(), keep="\n"))
    elif options.html is None:
        Console().print(report_runs(options.runs))
    return 0


def _parser(verb: str) -> ComponentParser:
    parser = ComponentParser(prog=f"medvol {verb}", description="Show evaluations side by side.")
    parser.add_argument(
        "runs",
        nargs="+",
        type=str,
        help="run folders with evaluation.json; each is compared with the first of the same cases",
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown instead of tables for the terminal")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    parser.add_argument("--html", type=str | None, default=None, help="write one HTML file with plots and cases")
    parser.add_argument(
        "--data", type=str | None, default=None, help="YAML file with the data of the runs, for --html; their own else"
    )
    parser.add_argument("--no_scans", action="store_true", help="leave pictures and voxels out of the HTML file")
    parser.add_argument("--overwrite", action="store_true", help="replace the HTML file when it is there")
    return parser


def _refuse(options: Namespace) -> None:
    require_path_options(options, "RUNS", "--html", "--data")
    for run_folder in options.runs:
        if Path(run_folder).is_file():
            raise ConfigError(f"{run_folder!r} is a file; give the run folder that holds evaluation.json")
        recover(Path(run_folder))
    if options.json and options.markdown:
        raise ConfigError("--json and --markdown are two forms of one report; leave one of them out")
    alone = [f"--{name}" for name in ("data", "no_scans", "overwrite") if options[name]]
    if options.html is None and alone:
        raise ConfigError(f"{alone[0]} is about the HTML file; add --html FILE, or leave it out")
    if options.data is not None and options.no_scans:
        raise ConfigError("--data says where scans are, and --no_scans shows none; leave one of them out")
    if options.data is not None and not Path(options.data).is_file():
        raise ConfigError(f"--data {options.data!r} is no file; give the YAML file with the data of the runs")


def _write_page(options: Namespace) -> None:
    from medvol.cli.run_data import find_run_data
    from medvol.evaluation.report_page.page import write_report

    find_data = None if options.no_scans else partial(find_run_data, given=options.data)
    path = write_report(Path(options.html), options.runs, find_data, options.overwrite)
    if not (options.json or options.markdown):
        Console().print(Text(f"report: {path} ({path.stat().st_size / 2**20:.1f} MiB)"), soft_wrap=True)
