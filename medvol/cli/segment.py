"""``medvol segment``: a query about a scan, about every scan of a folder, or a file of jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from medvol.cli.parsing import ComponentParser, RefusedSettingsError, explain_failure, explain_refusal
from medvol.core.errors import CheckpointError, ConfigError, QueryError
from medvol.core.roles import Policy, Propagator

if TYPE_CHECKING:
    from medvol.core.inference.segmenter import Segmenter
    from medvol.core.types import Segmentation, Volume

FOLDER_POLICY = "QwenVLPolicy"
"""Policy that reads a model folder when ``--policy`` names one."""

DEFAULT_PROPAGATOR = "medvol.propagators.RegionPropagator"

_EDITED = "_edited"


def run(verb: str, arguments: Sequence[str]) -> int:
    """Answer one query, or many; 1 when a case failed.

    Raises:
        ConfigError: The arguments do not go together, or a setting is at fault.
        ScanError: The scan is refused.
        RecordError: The record or the jobs file cannot be used.
    """
    from medvol.core.imaging.folders import is_batch

    options, parser = _parse(verb, _expand_folder(arguments))
    options.series = None if options.series is None else str(options.series)
    if options.evidence:
        return _run_evidence(options, parser)
    if options.jobs and (options.scan or options.query):
        raise ConfigError("--jobs names the scans and the queries; leave SCAN and QUERY out")
    if not options.jobs and not (options.scan and options.query is not None):
        raise ConfigError('what to segment is not complete; give SCAN "QUERY", or --jobs FILE, or --evidence RECORD')
    if not options.jobs and not options.query.strip():
        raise QueryError("the query is empty; ask for something in words, such as 'the spleen'")
    if options.policy is None:
        raise ConfigError("--policy must be given: a model folder such as runs/quickstart/model, or a policy's name")
    if options.jobs or is_batch(Path(options.scan)):
        return _run_many(options, parser)
    return _run_one(options, parser)


def _parse(verb: str, arguments: Sequence[str]) -> tuple[Namespace, ComponentParser]:
    parser = ComponentParser(prog=f"medvol {verb}", description="Answer a query about a scan with evidence and a mask.")
    parser.add_argument("scan", nargs="?", type=str, help="scan, folder of scans, or folder or archive of DICOM")
    parser.add_argument("query", nargs="?", type=str, help="the question, as you would ask a person")
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="YAML file with any of these options")
    parser.add_argument("--jobs", type=str | None, help="JSON file of scans and queries")
    parser.add_argument("--evidence", type=str | None, help="edited evidence record to propagate without a policy")
    parser.add_argument("--out", type=str, default="segmentations", help="folder of the masks, records and pictures")
    parser.add_argument("--overwrite", action="store_true", help="answer again what is answered")
    parser.add_argument("--modality", type=Literal["CT", "MR", "other"] | None, help="kind of scan; guessed otherwise")
    parser.add_argument("--assume_orientation", type=str | None, help="axes of a scan that does not say, such as LPS")
    parser.add_argument("--series", type=str | int | None, help="DICOM series: its number, UID or description")
    parser.add_argument(
        "--dicom_seg",
        type=Literal["anonymous", "with_patient"] | None,
        help="write a DICOM segmentation too: without the patient's data, or with what an archive files it by",
    )
    parser.add_argument("--samples", type=int, default=0, help="draw so many more answers, and tell how far they agree")
    parser.add_argument("--strict", action="store_true", help="refuse an answer that carries a warning")
    parser.add_argument("--nan_to", type=float | None, help="value that takes the place of NaN voxels")
    parser.add_argument("--allow_other_scan", action="store_true", help="use a record on another scan than its own")
    parser.add_subclass_arguments(Policy, "policy", required=False, help="model folder, or name of a policy")
    parser.add_subclass_arguments(Propagator, "propagator", required=False, help="name of a propagator")
    parser.set_defaults(propagator={"class_path": DEFAULT_PROPAGATOR})
    try:
        return parser.parse_args(list(arguments)), parser
    except RefusedSettingsError as refusal:
        written = ["--propagator", DEFAULT_PROPAGATOR, *arguments]  # settings may be given to what is not named
        raise explain_refusal(refusal, written, _accepted_keys()) from refusal


def _accepted_keys() -> dict[str, Any]:
    texts = ("scan", "query", "config", "jobs", "evidence", "out", "assume_orientation")
    flags = ("overwrite", "allow_other_scan", "strict")
    return {
        **dict.fromkeys((*texts, "print_config", "help"), str),
        **dict.fromkeys(flags, bool),
        "modality": Literal["CT", "MR", "other"] | None,
        "nan_to": float | None,
        "samples": int,
        "series": str | int | None,
        "dicom_seg": Literal["anonymous", "with_patient"] | None,
        "policy": Policy,
        "propagator": Propagator,
    }


def _expand_folder(arguments: Sequence[str]) -> list[str]:
    """Write ``--policy FOLDER`` as the policy that reads model folders, with its setting."""
    joined = [part for argument in arguments for part in _split_policy(argument)]
    expanded: list[str] = []
    for previous, argument in zip(["", *joined], joined, strict=False):
        if previous == "--policy" and Path(argument).is_dir():
            expanded += [FOLDER_POLICY, "--policy.model", argument]
        elif previous == "--policy" and ("/" in argument or argument.endswith(".ckpt")):
            hint = f"; `medvol convert {argument} FOLDER` makes one" if Path(argument).suffix == ".ckpt" else ""
            raise CheckpointError(f"there is no model folder {argument!r}; give one, or the name of a policy{hint}")
        else:
            expanded.append(argument)
    return expanded


def _split_policy(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--policy=") else [argument]


def _reader(options: Namespace) -> Callable[..., Volume]:
    from medvol.core.imaging.reading import read_volume

    return partial(
        read_volume, modality=options.modality, assume_orientation=options.assume_orientation, nan_to=options.nan_to
    )


def _run_one(options: Namespace, parser: ComponentParser) -> int:
    """Answer one query; a scan that is refused stops it before a model is loaded."""
    from medvol.core.inference.batch import is_done
    from medvol.core.inference.jobs import Job, case_name, slug
    from medvol.core.inference.records import plain_values

    scan = Path(options.scan)
    volume = _reader(options)(scan, series=options.series)
    segmenter = _build_segmenter(options, parser)
    name = f"{case_name(scan, options.series)}_{slug(options.query)}"
    job = Job(scan, options.query.strip(), Path(options.out), name, options.series)
    console = Console()
    identity = plain_values(segmenter.identity())
    if not options.overwrite and is_done(job, identity, options.dicom_seg, volume, segmenter):
        console.print(f"answered before: {job.folder / job.name}.json; --overwrite answers it again", soft_wrap=True)
        return 0
    segmentation = segmenter.segment(volume, job.query)
    _tell(segmentation, segmentation.save(job.folder, job.name, options.dicom_seg), console)
    return 0


def _run_many(options: Namespace, parser: ComponentParser) -> int:
    """Answer the queries of a folder or a jobs file; go on after a case that fails."""
    from medvol.core.inference.batch import run_jobs
    from medvol.core.inference.jobs import find_jobs, read_jobs

    if options.jobs:
        jobs = read_jobs(options.jobs, options.out)
    else:
        jobs = find_jobs(options.scan, [options.query], options.out, options.series)
    segmenter = _build_segmenter(options, parser)
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("segmenting", total=len(jobs))
        read = _reader(options)
        summary = run_jobs(
            jobs,
            segmenter,
            options.out,
            options.overwrite,
            read,
            lambda outcome: progress.advance(task),
            options.dicom_seg,
        )
    console.print(summary.table() if summary.needs_rows else summary.table().title)
    console.print(f"answers and summary.json: {options.out}", soft_wrap=True)
    return summary.exit_code


def _build_segmenter(options: Namespace, parser: ComponentParser) -> Segmenter:
    from medvol.core.inference.segmenter import Segmenter

    built = _build(options, parser)
    return Segmenter(built.policy, built.propagator, options.samples, options.strict)


def _build(options: Namespace, parser: ComponentParser) -> Namespace:
    """Build the components.

    Raises:
        ConfigError: A constructor refuses its settings.
    """
    try:
        built: Namespace = parser.instantiate(options)
    except (TypeError, ValueError, ImportError) as error:
        raise explain_failure(error, "a component") from error
    return built


def _run_evidence(options: Namespace, parser: ComponentParser) -> int:
    """Propagate the anchor of a record; its scan is the one it names unless another is given."""
    from medvol.core.inference.records import mask_suffix, read_record
    from medvol.core.inference.segmenter import repropagate

    if options.query is not None or options.jobs:
        raise ConfigError("--evidence takes query and anchor from the record; leave the query and --jobs out")
    record = read_record(options.evidence)
    scan = options.scan or record.scan_path
    if scan is None:
        raise ConfigError(f"{options.evidence} names no scan; give it: medvol segment SCAN --evidence RECORD")
    volume = _reader(options)(Path(scan), series=options.series or record.series)
    name = f"{Path(options.evidence).stem.removesuffix(_EDITED)}{_EDITED}"
    target = Path(options.out) / f"{name}{mask_suffix(volume)}"
    if target.exists() and not options.overwrite:
        raise ConfigError(f"{target} is there already; add --overwrite, or choose another --out")
    propagator = _build(options, parser).propagator
    segmentation = repropagate(volume, record, propagator, options.allow_other_scan)
    _tell(segmentation, segmentation.save(options.out, name, options.dicom_seg), Console())
    return 0


def _tell(segmentation: Segmentation, paths: Mapping[str, Path], console: Console) -> None:
    """Print what was found and where the files lie."""
    evidence = segmentation.evidence
    boxes = f"{len(evidence.boxes)} box{'es' if len(evidence.boxes) != 1 else ''}"
    found = "not in the scan" if evidence.absent else f"slice {evidence.key_slice}, {boxes}"
    console.print(Text(f"{segmentation.query}: {found}, {int(segmentation.mask.sum())} voxels"), soft_wrap=True)
    for sentence in segmentation.confidence.sentences() if segmentation.confidence else ():
        console.print(Text(sentence), soft_wrap=True)
    for kind, path in paths.items():
        console.print(Text(f"{kind:<8} {path}"), soft_wrap=True)
