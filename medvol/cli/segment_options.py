"""The options of ``medvol segment``, and which of them go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]

from medvol.cli.folder_policies import expand_folders
from medvol.cli.parsing import ComponentParser, RefusedSettingsError, explain_refusal
from medvol.cli.path_options import require_path_options
from medvol.cli.settings import read_configs
from medvol.core.bundled import BEST
from medvol.core.defaults import PROPAGATOR
from medvol.core.errors import ConfigError
from medvol.core.registry import POLICIES, PROPAGATORS, Registry
from medvol.core.roles import Policy, Propagator
from medvol.imaging.dicom.outputs import DicomKind

DEVICE_HELP = "where the policy computes: cpu, cuda, cuda:1, mps or xpu; a GPU of NVIDIA, or else the CPU, by default"

_DEFAULT_PROPAGATOR = f"medvol.propagators.{PROPAGATOR}"


def parse_options(verb: str, arguments: Sequence[str]) -> tuple[Namespace, ComponentParser]:
    """Read the command line, and the files of options that it names.

    Args:
        verb: As it was typed.
        arguments: What follows the verb; a model folder may stand for a policy.

    Returns:
        The options, and the parser that builds what they name. ``propagator`` is None where nothing is said of it; a
        setting alone is one of the usual propagator.

    Raises:
        ConfigError: One of them cannot be used.
    """
    arguments = expand_folders(arguments)
    parser = _make_parser(verb)
    parser.set_defaults(propagator={"class_path": _DEFAULT_PROPAGATOR})
    try:
        options = parser.parse_args(list(arguments))
    except RefusedSettingsError as refusal:
        raise explain_refusal(refusal, read_configs(arguments), _accepted_keys()) from refusal
    if not _name_propagator(verb, arguments):
        options.propagator = None
    require_path_options(options, "SCAN", "--jobs", "--evidence", "--out")
    return options, parser


def _name_propagator(verb: str, arguments: Sequence[str]) -> bool:
    """Whether arguments that were accepted say anything of the propagator, in whichever of the parser's spellings."""
    try:
        return _make_parser(verb).parse_args(list(arguments)).propagator is not None
    except RefusedSettingsError:
        return True  # a setting alone, which no parser takes without a class


def _make_parser(verb: str) -> ComponentParser:
    parser = ComponentParser(prog=f"medvol {verb}", description="Answer a query about a scan with evidence and a mask.")
    parser.add_argument("scan", nargs="?", type=str, help="scan, folder of scans, or folder or archive of DICOM")
    parser.add_argument("query", nargs="?", type=str, help="the question, as you would ask a person")
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="YAML file with any of these options")
    parser.add_argument("--jobs", type=str | None, help="JSON file of scans and queries")
    parser.add_argument("--evidence", type=str | None, help="edited evidence record to propagate without a policy")
    parser.add_argument("--out", type=str, default="segmentations", help="folder of the masks, records and pictures")
    parser.add_argument("--overwrite", action="store_true", help="answer again, and replace earlier answers")
    parser.add_argument("--modality", type=Literal["CT", "MR", "other"] | None, help="kind of scan; guessed by default")
    parser.add_argument("--assume_orientation", type=str | None, help="axes of a scan that does not say, such as LPS")
    parser.add_argument("--series", type=str | int | None, help="DICOM series: its number, UID or description")
    parser.add_argument(
        "--dicom",
        type=DicomKind,
        nargs="+",
        metavar="KIND",
        help="write DICOM too: seg (mask), sr (report of its measures), rtstruct (contours), capture (picture)",
    )
    parser.add_argument(
        "--with_patient",
        action="store_true",
        help="let DICOM outputs say who the patient is, as an archive needs it to file them; UIDs alone otherwise",
    )
    parser.add_argument("--samples", type=int, default=0, help="draw this many more answers, and say how they agree")
    parser.add_argument(
        "--agreement_map", action="store_true", help="follow these answers too, and write which share holds each voxel"
    )
    parser.add_argument("--device", type=str | None, help=DEVICE_HELP)
    parser.add_argument("--html", action="store_true", help="write a page that shows the answer, or all of a batch")
    parser.add_argument("--strict", action="store_true", help="refuse an answer that carries a warning")
    parser.add_argument("--nan_to", type=float | None, help="value that takes the place of NaN voxels")
    parser.add_argument("--max_bytes", type=int | None, help="budget for the voxels of a scan; 3 GiB by default")
    parser.add_argument("--allow_other_scan", action="store_true", help="use a record on another scan than its own")
    parser.add_argument("--json", action="store_true", help="print what summary.json holds, and nothing else")
    parser.add_subclass_arguments(
        Policy,
        "policy",
        required=False,
        help=_choices(f"model folder, {BEST} when left out, or policy", POLICIES, "policy"),
    )
    parser.add_subclass_arguments(
        Propagator,
        "propagator",
        required=False,
        help=_choices(
            f"propagator, {PROPAGATOR} (with --evidence, that of the record) when left out", PROPAGATORS, "propagator"
        ),
    )
    return parser


def require_no_answer(options: Namespace) -> None:
    """Refuse what asks for an answer of a policy beside a record, which no policy answers."""
    if options.query is not None or options.jobs:
        raise ConfigError("--evidence takes query and anchor from the record; leave the query and --jobs out")
    for name in ("policy", "samples", "agreement_map", "strict", "device"):
        if getattr(options, name):
            raise ConfigError(f"--{name} is about the answers of a policy, and --evidence asks none; leave it out")


def require_question(options: Namespace) -> None:
    """Refuse arguments that do not say what is asked about which scan, and by which policy."""
    from medvol.grounding.prompts import require_query

    if options.agreement_map and not options.samples:
        raise ConfigError("--agreement_map compares sampled answers; add --samples 8")
    if options.jobs and (options.scan or options.query):
        raise ConfigError("--jobs names the scans and the queries; leave SCAN and QUERY out")
    if options.jobs and options.series is not None:
        raise ConfigError("--jobs names the series of each scan ('series'); leave --series out")
    if options.allow_other_scan:
        raise ConfigError("--allow_other_scan is about the scan of a record; add --evidence RECORD, or leave it out")
    if not options.jobs and not (options.scan and options.query is not None):
        raise ConfigError('the command is not complete; give SCAN "QUERY", or --jobs FILE, or --evidence RECORD')
    if not options.jobs:
        require_query(options.query)


def _choices(what: str, registry: Registry, key: str) -> str:
    """Help of a component: what there is to choose, and how it is set."""
    names = ", ".join(registry.names())
    return f"{what}: {names}. Its settings: --{key}.SETTING VALUE; `medvol describe NAME` lists them"


def _accepted_keys() -> dict[str, Any]:
    texts = ("scan", "query", "config", "jobs", "evidence", "out", "assume_orientation")
    flags = ("overwrite", "allow_other_scan", "strict", "html", "json", "with_patient", "agreement_map")
    return {
        **dict.fromkeys((*texts, "print_config", "help"), str),
        **dict.fromkeys(flags, bool),
        "modality": Literal["CT", "MR", "other"] | None,
        "nan_to": float | None,
        "samples": int,
        "device": str | None,
        "max_bytes": int | None,
        "series": str | int | None,
        "dicom": list[DicomKind] | None,
        "policy": Policy,
        "propagator": Propagator,
    }
