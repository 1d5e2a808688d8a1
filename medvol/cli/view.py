"""``medvol view``: see an answer, move a box, get the mask again, keep the correction."""

from __future__ import annotations

import shlex
import webbrowser
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace

from medvol.cli.folder_policies import expand_folders
from medvol.cli.parsing import ComponentParser, RefusedSettingsError, building, explain_refusal
from medvol.cli.path_options import require_path_options
from medvol.cli.segment_options import DEVICE_HELP
from medvol.core.atomic_files import require_ending
from medvol.core.devices import AUTO
from medvol.core.errors import ConfigError, MedvolError
from medvol.core.roles import Policy, Propagator
from medvol.terminal.console import Console
from medvol.terminal.stops import Terminated

if TYPE_CHECKING:
    from medvol.core.types import Volume
    from medvol.viewing.desk import Desk
    from medvol.viewing.entries import Reader
    from medvol.viewing.opening import Opened
    from medvol.viewing.reading_folder import ReadingFolder

_READER = ("modality", "assume_orientation", "nan_to", "max_bytes")
"""Options that say how scans are read."""

_STRAY = "the answer that this reading is about was written again since, so the reading does not count"


def run(verb: str, arguments: Sequence[str]) -> int:
    """Serve the page until it is stopped, or write the corrections.

    Raises:
        ConfigError: The arguments do not go together.
        RecordError: There is nothing to look at, or nothing to write.
        MissingExtraError: The packages that serve are not installed.
    """
    options, parser = _parse(verb, expand_folders(arguments))
    require_path_options(options, "TARGET", "--data", "--out", "--export")
    _require_use(options, parser)
    from medvol.viewing.opening import add_kept
    from medvol.viewing.reading_folder import ReadingFolder
    from medvol.viewing.server import require_extra

    console = Console()
    if options.export is None:
        require_extra()
    opened = _open(options)
    readings = ReadingFolder(opened.readings if options.out is None else Path(options.out))
    readings.require_sound()
    opened = add_kept(opened, readings.path, _reader(options))
    strays = [f"{readings.path / name}: {_STRAY}" for name in readings.strays(opened.entries)]
    opened = replace(opened, problems=[*opened.problems, *strays])
    for problem in opened.problems:
        console.print(f"left out: {problem}", soft_wrap=True)
    if options.export is not None:
        return _export(opened, readings, Path(options.export), options.overwrite, console)
    return _serve(options, parser, opened, readings, console)


def _parse(verb: str, arguments: Sequence[str]) -> tuple[Namespace, ComponentParser]:
    parser = ComponentParser(prog=f"medvol {verb}", description="See an answer, move a box, get the mask again.")
    parser.add_argument("target", type=str, help="scan, folder of scans, record, folder of answers, or folder of a run")
    parser.add_argument("--data", type=str | None, help="YAML file with the data of a run; its own otherwise")
    parser.add_argument(
        "--out", type=str | None, help="folder of the readings; 'readings' beside the answers otherwise"
    )
    parser.add_argument(
        "--reader", type=str, default="", help="how you call yourself in the readings; nothing otherwise"
    )
    parser.add_argument("--export", type=str | None, help="write accepted and corrected answers to this CSV, and end")
    parser.add_argument("--overwrite", action="store_true", help="replace the CSV when it is there")
    parser.add_argument("--port", type=int, default=0, help="port on this machine; a free one otherwise")
    parser.add_argument("--no_browser", action="store_true", help="print the address and open no browser")
    parser.add_argument("--modality", type=Literal["CT", "MR", "other"] | None, help="kind of scan; guessed otherwise")
    parser.add_argument("--assume_orientation", type=str | None, help="axes of a scan that does not say, such as LPS")
    parser.add_argument("--series", type=str | int | None, help="DICOM series: its number, UID or description")
    parser.add_argument("--nan_to", type=float | None, help="value that takes the place of NaN voxels")
    parser.add_argument("--max_bytes", type=int | None, help="budget for the voxels of a scan; 3 GiB by default")
    parser.add_argument("--device", type=str, default=AUTO, help=DEVICE_HELP)
    parser.add_subclass_arguments(
        Policy, "policy", required=False, help="model folder, or policy, that answers in the page"
    )
    parser.add_subclass_arguments(
        Propagator, "propagator", required=False, help="makes the masks; that of the answers otherwise"
    )
    try:
        return parser.parse_args(list(arguments)), parser
    except RefusedSettingsError as refusal:
        raise explain_refusal(refusal, {}, _accepted_keys()) from refusal


def _accepted_keys() -> dict[str, Any]:
    texts = ("target", "data", "out", "reader", "export", "assume_orientation", "help")
    return {
        **dict.fromkeys(texts, str),
        **dict.fromkeys(("overwrite", "no_browser"), bool),
        "port": int,
        "max_bytes": int | None,
        "modality": Literal["CT", "MR", "other"] | None,
        "series": str | int | None,
        "nan_to": float | None,
        "device": str,
        "policy": Policy,
        "propagator": Propagator,
    }


def _require_use(options: Namespace, parser: ComponentParser) -> None:
    """Refuse options of the page where none is served, of the table where none is written, of a policy where none is.

    Raises:
        ConfigError: One is given.
    """
    page = ("policy", "propagator", "device", "reader", "port")
    idle = dict.fromkeys(page, "--export writes a table and serves no page")
    if options.export is None:
        idle = {"overwrite": "only --export writes a table, which it replaces"}
        idle |= {} if options.policy is not None else {"device": "no --policy answers in the page"}
    for name, reason in idle.items():
        if options[name] != parser.get_default(name):
            raise ConfigError(f"--{name} does nothing here, since {reason}; leave it out")


def _open(options: Namespace) -> Opened:
    from medvol.evaluation.run_files import CASES_FILE
    from medvol.viewing.opening import open_target

    target = Path(options.target)
    if (target / CASES_FILE).is_file():
        _require_left_out(options, (*_READER, "series"), "the scans of a run are read as its data say")
        return _open_run(target, options.data)
    if options.data is not None:
        raise ConfigError(f"--data is about the cases of a run, and {str(target)!r} is no run folder; leave it out")
    opened = open_target(target, _reader(options), None if options.series is None else str(options.series))
    if not opened.scans:
        _require_left_out(options, ("series",), "answers name their series themselves")
    return opened


def _require_left_out(options: Namespace, names: Sequence[str], reason: str) -> None:
    """Refuse options that would do nothing.

    Raises:
        ConfigError: One is given.
    """
    for name in names:
        if options[name] is not None:
            raise ConfigError(f"--{name} is {options[name]!r}, and {reason}; leave it out")


def _reader(options: Namespace) -> Reader:
    from medvol.imaging.reading import read_volume

    given = {name: options[name] for name in _READER if options[name] is not None}

    def read(path: Path, **recorded: Any) -> Volume:
        """What is given counts before what a record says."""
        return read_volume(path, **{**recorded, **given})

    return read


def _open_run(folder: Path, data: str | None) -> Opened:
    from medvol.cli.run_data import find_run_data
    from medvol.evaluation.archive import read_evaluation
    from medvol.viewing.run_cases import open_run

    run = read_evaluation(folder)
    if "predictions" in run.summary:
        raise ConfigError(
            f"{str(folder)!r} holds masks of another system, which have no boxes to move; see them in "
            f"`medvol report {shlex.quote(str(folder))} --html FILE`"
        )
    return open_run(run, find_run_data(run, data))


def _export(opened: Opened, readings: ReadingFolder, path: Path, overwrite: bool, console: Console) -> int:
    from medvol.viewing.corrections import collect, write_corrections

    require_ending(path, ".csv")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} is there already; add --overwrite, or choose another name")
    found = collect(opened.entries, readings, path.parent)
    write_corrections(path, found)
    for reason, count in found.left_out.items():
        console.print(f"left out: {count} {reason}", soft_wrap=True)
    console.print(f"{len(found.rows)} answers: {path}", soft_wrap=True)
    console.print(f"train on them: NiftiDataset with root {path.parent} and table {path}", soft_wrap=True)
    return 0


def _serve(
    options: Namespace, parser: ComponentParser, opened: Opened, readings: ReadingFolder, console: Console
) -> int:
    from medvol.cli.recorded_propagator import find_recorded
    from medvol.guarding.guard import require_ready
    from medvol.viewing.desk import Desk
    from medvol.viewing.server import serve

    if options.propagator is None:
        made_by = find_recorded([entry.record for entry in opened.entries], console)
        options.propagator = {"class_path": f"medvol.propagators.{made_by}"}
    with building("a component"):
        built = parser.instantiate(options)
    require_ready(built.propagator, *([built.policy] if built.policy is not None else []))
    desk = Desk(
        opened.entries,
        opened.scans,
        built.propagator,
        readings,
        _reader(options),
        built.policy,
        options.reader,
        opened.problems,
        options.device,
    )
    _read_first(desk)

    def tell(address: str) -> None:
        console.print(f"open {address}", soft_wrap=True)
        console.print(f"readings go to {readings.path}; Ctrl-C ends", soft_wrap=True)
        if not options.no_browser:
            webbrowser.open(address)

    try:
        serve(desk, tell, options.port)
    except Terminated:
        raise
    except KeyboardInterrupt:
        console.print(f"ended; readings are in {readings.path}", soft_wrap=True)
    return 0


def _read_first(desk: Desk) -> None:
    """Read the first answer's scan, or the first scan, so that the page shows it at once.

    Of several, one that is refused is told in the page.
    """
    scans = [*(entry.scan for entry in desk.entries.values()), *desk.scans.values()]
    try:
        if scans:
            desk.shelf.get(scans[0])
    except MedvolError:
        if len(desk.scans) == 1:
            raise
