"""``medvol segment``: a query about a scan, about every scan of a folder, or a file of jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]

from medvol.cli.answer_lines import save_and_tell, say_replaced, show_before, sum_up, tell_before
from medvol.cli.folder_policies import expand_folders
from medvol.cli.json_document import keep_stdout, print_document
from medvol.cli.parsing import ComponentParser, RefusedSettingsError, building, explain_refusal
from medvol.cli.settings import read_configs
from medvol.core.bundled import BEST
from medvol.core.defaults import PROPAGATOR
from medvol.core.errors import ConfigError, MedvolError
from medvol.core.registry import POLICIES, PROPAGATORS, Registry
from medvol.core.roles import Policy, Propagator
from medvol.imaging.dicom.outputs import DicomKind, DicomOutputs, ask_for
from medvol.terminal.console import Console
from medvol.terminal.progress import Work
from medvol.terminal.stops import Stops, hear_stops

if TYPE_CHECKING:
    from medvol.core.types import Volume
    from medvol.inference.answers import Question
    from medvol.inference.segmenter import Segmenter
    from medvol.inference.summary import Summary

_DEFAULT_PROPAGATOR = f"medvol.propagators.{PROPAGATOR}"
_EDITED = "_edited"


def run(verb: str, arguments: Sequence[str]) -> int:
    """Answer one query, or many; 1 when a case failed.

    Raises:
        ConfigError: The arguments do not go together, or a setting is at fault.
        ScanError: The scan is refused.
        RecordError: The record or the jobs file cannot be used.
    """
    from medvol.imaging.folders import is_batch
    from medvol.inference.summary import SCHEMA

    options, parser = _parse(verb, expand_folders(arguments))
    dicom = ask_for(options.dicom, options.with_patient)
    options.series = None if options.series is None else str(options.series)
    if options.agreement_map and (options.evidence or not options.samples):
        raise ConfigError("--agreement_map compares sampled answers; add --samples 8, and leave --evidence out")
    if options.evidence:
        answer = _run_evidence
    else:
        _require_question(options)
        answer = _run_many if options.jobs or is_batch(Path(options.scan)) else _run_one
    with keep_stdout(options.json):  # a file of options may ask for it too
        summary = answer(options, parser, dicom)
        if options.json:
            print_document(SCHEMA, summary.to_dict())
    return summary.exit_code


def _require_question(options: Namespace) -> None:
    """Refuse arguments that do not say what is asked about which scan, and by which policy."""
    from medvol.grounding.prompts import require_query

    if options.jobs and (options.scan or options.query):
        raise ConfigError("--jobs names the scans and the queries; leave SCAN and QUERY out")
    if not options.jobs and not (options.scan and options.query is not None):
        raise ConfigError('the command is not complete; give SCAN "QUERY", or --jobs FILE, or --evidence RECORD')
    if not options.jobs:
        require_query(options.query)


def _parse(verb: str, arguments: Sequence[str]) -> tuple[Namespace, ComponentParser]:
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
    parser.add_argument(
        "--samples", type=int, default=0, help="draw this many more answers, and say how well they agree"
    )
    parser.add_argument(
        "--agreement_map", action="store_true", help="follow these answers too, and write which share holds each voxel"
    )
    parser.add_argument("--html", action="store_true", help="write a page that shows the answer, or all of a batch")
    parser.add_argument("--strict", action="store_true", help="refuse an answer that carries a warning")
    parser.add_argument("--nan_to", type=float | None, help="value that takes the place of NaN voxels")
    parser.add_argument("--allow_other_scan", action="store_true", help="use a record on another scan than its own")
    parser.add_argument("--json", action="store_true", help="print what summary.json holds, and nothing else")
    parser.add_subclass_arguments(
        Policy,
        "policy",
        required=False,
        help=_choices(f"model folder, {BEST} when left out, or policy", POLICIES, "policy"),
    )
    parser.add_subclass_arguments(
        Propagator, "propagator", required=False, help=_choices("propagator", PROPAGATORS, "propagator")
    )
    parser.set_defaults(propagator={"class_path": _DEFAULT_PROPAGATOR})
    try:
        return parser.parse_args(list(arguments)), parser
    except RefusedSettingsError as refusal:
        raise explain_refusal(refusal, read_configs(arguments), _accepted_keys()) from refusal


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
        "series": str | int | None,
        "dicom": list[DicomKind] | None,
        "policy": Policy,
        "propagator": Propagator,
    }


def _reader(options: Namespace) -> Callable[..., Volume]:
    from medvol.imaging.reading import read_volume

    return partial(
        read_volume, modality=options.modality, assume_orientation=options.assume_orientation, nan_to=options.nan_to
    )


def _run_one(options: Namespace, parser: ComponentParser, dicom: DicomOutputs) -> Summary:
    """Answer one query; a scan that is refused stops it before a model is loaded."""
    from medvol.imaging.dicom.segmentation import require_dicom
    from medvol.inference.answers import pose
    from medvol.inference.jobs import Job, answer_stem, case_name
    from medvol.inference.records import plain_values

    scan, query, console = Path(options.scan), options.query.strip(), Console()
    with hear_stops(at_once=True) as stops:
        volume = _reader(options)(scan, series=options.series)
        require_dicom(volume, dicom)
        segmenter = _build_segmenter(options, parser)
        stem = answer_stem(case_name(scan, options.series), query)
        job = Job(scan, query, Path(options.out), stem, options.series)
        question = pose(job, volume, plain_values(segmenter.identity()))
        answer = None if options.overwrite else question.find(dicom)
        if answer is not None and segmenter.accepts(answer[1]):
            tell_before(answer, console)
            if options.html:
                show_before(answer, volume, question.paths["page"], console)
            return sum_up(scan, answer[0], "skipped")
        say_replaced(question.require_free(options.overwrite, dicom), console)
        record = _answer(question, segmenter, volume, options, dicom, stops, console)
    return sum_up(scan, record, "done")


def _answer(
    question: Question,
    segmenter: Segmenter,
    volume: Volume,
    options: Namespace,
    dicom: DicomOutputs,
    stops: Stops,
    console: Console,
) -> Path:
    """Ask, follow, write; what was said is kept when it cannot be followed. Returns the path of the record."""
    from medvol.inference.failures import save_failure

    query = question.job.query
    groups = segmenter.ask(volume, [query])
    stops.check()
    ((_, answer),) = segmenter.follow(groups)
    if isinstance(answer, MedvolError):
        kept = save_failure(question, groups[0].answer.completion, answer)
        if kept is not None:
            console.print(f"said     {kept}", soft_wrap=True)
        raise answer
    stops.check()
    with stops.hold():
        record = save_and_tell(answer, question.job.folder, question.name, dicom, console, options.html)
    stops.check()
    return record


def _run_many(options: Namespace, parser: ComponentParser, dicom: DicomOutputs) -> Summary:
    """Answer the queries of a folder or a jobs file; go on after a case that fails."""
    from medvol.inference.batch import run_jobs
    from medvol.inference.jobs import find_jobs, read_jobs

    if options.jobs:
        jobs = read_jobs(options.jobs, options.out)
    else:
        jobs = find_jobs(options.scan, [options.query], options.out, options.series)
    segmenter = _build_segmenter(options, parser)
    console = Console()
    read_otherwise = any(value is not None for value in (options.modality, options.assume_orientation, options.nan_to))
    with Work("segmenting", len(jobs), "queries") as work:
        read = _reader(options)
        summary = run_jobs(
            jobs,
            segmenter,
            options.out,
            options.overwrite,
            read,
            lambda outcome: work.advance(),
            dicom,
            read_otherwise,
            options.html,
        )
    console.print(summary.table() if summary.needs_rows else summary.table().title)
    page = ", answers.html" if options.html else ""
    console.print(summary.problem or f"answers, summary.json and answers.csv{page}: {options.out}", soft_wrap=True)
    return summary


def _build_segmenter(options: Namespace, parser: ComponentParser) -> Segmenter:
    from medvol.inference.segmenter import Segmenter

    built = _build(options, parser)
    return Segmenter(built.policy, built.propagator, options.samples, options.strict, options.agreement_map)


def _build(options: Namespace, parser: ComponentParser) -> Namespace:
    """Build the components.

    Raises:
        ConfigError: A constructor refuses its settings.
    """
    with building("a component"):
        built: Namespace = parser.instantiate(options)
    return built


def _run_evidence(options: Namespace, parser: ComponentParser, dicom: DicomOutputs) -> Summary:
    """Propagate the anchor of a record; its scan is the one it names unless another is given."""
    from medvol.imaging.dicom.segmentation import require_dicom
    from medvol.inference.names import MAX_NAME_BYTES, cut
    from medvol.inference.recorded_scan import require_scan
    from medvol.inference.records import answer_paths, mask_suffix, read_record
    from medvol.inference.repropagation import repropagate

    if options.query is not None or options.jobs:
        raise ConfigError("--evidence takes query and anchor from the record; leave the query and --jobs out")
    record = read_record(options.evidence)
    if options.scan is None and record.scan_path is None:
        raise ConfigError(f"{options.evidence} names no scan; give it: medvol segment SCAN --evidence RECORD")
    scan = options.scan or require_scan(str(record.scan_path), Path(options.evidence))
    with hear_stops(at_once=True) as stops:
        volume = _reader(options)(Path(scan), series=options.series or record.series)
        require_dicom(volume, dicom)
        stem = Path(options.evidence).stem.removesuffix(_EDITED)
        name = f"{cut(stem, MAX_NAME_BYTES - len(_EDITED))}{_EDITED}"
        paths = answer_paths(Path(options.out), name, mask_suffix(volume))
        there = next((path for path in paths.values() if path.exists()), None)
        if there is not None and not options.overwrite:
            raise ConfigError(f"{there} is there already; add --overwrite, or choose another --out")
        console = Console()
        say_replaced(there, console)
        propagator = _build(options, parser).propagator
        segmentation = repropagate(volume, record, propagator, options.allow_other_scan)
        stops.check()
        with stops.hold():
            saved = save_and_tell(segmentation, Path(options.out), name, dicom, console, options.html)
    return sum_up(Path(scan), saved, "done")
