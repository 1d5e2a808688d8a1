"""``medvol report``: evaluations side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medvol.cli.json_document import print_document
from medvol.cli.parsing import ComponentParser
from medvol.core.errors import ConfigError
from medvol.core.visible_text import show
from medvol.terminal.console import Console

SCHEMA = "medvol-report/1"


def run(verb: str, arguments: Sequence[str]) -> int:
    """Print the evaluations of runs as tables.

    Raises:
        ConfigError: A run is named twice.
        RecordError: A run has no evaluation, or a damaged one.
    """
    parser = ComponentParser(prog=f"medvol {verb}", description="Show evaluations side by side.")
    parser.add_argument("runs", nargs="+", type=str, help="run folders with evaluation.json; the first is compared to")
    parser.add_argument("--markdown", action="store_true", help="print Markdown instead of tables for the terminal")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    options = parser.parse_args(list(arguments))
    for run_folder in options.runs:
        if Path(run_folder).is_file():
            raise ConfigError(f"{run_folder!r} is a file; give the run folder that holds evaluation.json")
    from medvol.evaluation.report import report_runs
    from medvol.evaluation.report_document import describe_runs

    if options.json and options.markdown:
        raise ConfigError("--json and --markdown are two forms of one report; leave one of them out")
    if options.json:
        print_document(SCHEMA, describe_runs(options.runs))
    elif options.markdown:
        print(show(report_runs(options.runs).to_markdown(), keep="\n"))
    else:
        Console().print(report_runs(options.runs))
    return 0
