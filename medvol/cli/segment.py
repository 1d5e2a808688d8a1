"""``medvol segment``: a query about a scan, about every scan of a folder, or a file of jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from medvol.cli.answer_lines import save_and_tell, say_replaced, show_before, sum_up, tell_before
from medvol.cli.failed_question import Asked, print_failure
from medvol.cli.json_document import keep_stdout, print_document
from medvol.cli.parsing import ComponentParser, building
from medvol.cli.segment_options import parse_options, require_no_answer, require_question
from medvol.core.defaults import PROPAGATOR
from medvol.core.devices import AUTO
from medvol.core.errors import ConfigError, MedvolError
from medvol.core.visible_text import show
from medvol.imaging.dicom.outputs import DicomOutputs, ask_for
from medvol.terminal.console import Console
from medvol.terminal.progress import Work
from medvol.terminal.stops import Stops, hear_stops

if TYPE_CHECKING:
    from medvol.core.types import Volume
    from medvol.inference.answers import Question
    from medvol.inference.segmenter import Segmenter
    from medvol.inference.summary import Summary

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

    options, parser = parse_options(verb, arguments)
    dicom = ask_for(options.dicom, options.with_patient)
    options.series = None if options.series is None else str(options.series)
    if options.evidence:
        require_no_answer(options)
        answer = _run_evidence
    else:
        require_question(options)
        answer = _run_many if options.jobs or is_batch(Path(options.scan)) else _run_one
    with keep_stdout(options.json):  # a file of options may ask for it too
        summary = answer(options, parser, dicom)
        if options.json:
            print_document(SCHEMA, summary.to_dict())
    return summary.exit_code


def _reader(options: Namespace, recorded: Mapping[str, Any] = MappingProxyType({})) -> Callable[..., Volume]:
    """What reads scans; ``recorded`` are the settings that a record was written with, used where none is given."""
    from medvol.imaging.reading import read_volume

    names = ("modality", "assume_orientation", "nan_to", "max_bytes")
    given = {name: options[name] for name in names if options[name] is not None}
    return partial(read_volume, **{**recorded, **given})


def _run_one(options: Namespace, parser: ComponentParser, dicom: DicomOutputs) -> Summary:
    """Answer one query; a scan that is refused stops it before a model is loaded."""
    from medvol.imaging.dicom.segmentation import require_dicom
    from medvol.inference.answers import pose
    from medvol.inference.jobs import Job, answer_stem, case_name
    from medvol.inference.records import plain_values

    scan, query, console = Path(options.scan), options.query.strip(), Console()
    stem = answer_stem(case_name(scan, options.series), query)
    job = Job(scan, query, Path(options.out), stem, options.series)
    with hear_stops(at_once=True) as stops, print_failure(job, options.json) as asked:
        volume = _reader(options)(scan, series=options.series)
        require_dicom(volume, dicom)
        segmenter = _build_segmenter(options, parser)
        question = pose(job, volume, plain_values(segmenter.identity()))
        asked.identity = question.identity
        answer = None if options.overwrite else question.find(volume, dicom)
        if answer is not None and segmenter.accepts(answer[1]):
            tell_before(answer, volume, console)
            if options.html:
                show_before(answer, volume, question.paths["page"], console)
            return sum_up(scan, answer[0], "skipped")
        say_replaced(question.require_free(volume, options.overwrite, dicom), console)
        record = _answer(asked, question, segmenter, volume, options, dicom, stops, console)
    return sum_up(scan, record, "done")


def _answer(
    asked: Asked,
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
        asked.kept = save_failure(question, groups[0], answer)
        if asked.kept is not None:
            console.print(f"said     {show(asked.kept)}", soft_wrap=True)
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
    files = "summary.json, answers.csv and answers.html" if options.html else "summary.json and answers.csv"
    console.print(summary.problem or f"answers, {files}: {show(options.out)}", soft_wrap=True)
    return summary


def _build_segmenter(options: Namespace, parser: ComponentParser) -> Segmenter:
    from medvol.inference.segmenter import Segmenter

    built = _build(options, parser)
    device = AUTO if options.device is None else options.device
    return Segmenter(built.policy, built.propagator, options.samples, options.strict, options.agreement_map, device)


def _build(options: Namespace, parser: ComponentParser, propagator: str = PROPAGATOR) -> Namespace:
    """Build the components; ``propagator`` is the name of the one that is used where none is given.

    Raises:
        ConfigError: A constructor refuses its settings.
    """
    if options.propagator is None:
        options.propagator = {"class_path": f"medvol.propagators.{propagator}"}
    with building("a component"):
        built: Namespace = parser.instantiate(options)
    return built


def _run_evidence(options: Namespace, parser: ComponentParser, dicom: DicomOutputs) -> Summary:
    """Propagate the anchor of a record; its scan is the one it names unless another is given."""
    from medvol.cli.recorded_propagator import require_recorded
    from medvol.imaging.dicom.segmentation import require_dicom
    from medvol.inference.jobs import Job
    from medvol.inference.names import MAX_NAME_BYTES, cut
    from medvol.inference.recorded_scan import require_scan
    from medvol.inference.records import answer_paths, mask_suffix, read_record
    from medvol.inference.repropagation import repropagate

    record = read_record(options.evidence)
    if options.scan is None and record.scan_path is None:
        raise ConfigError(f"{options.evidence} names no scan; give it: medvol segment SCAN --evidence RECORD")
    scan = options.scan or require_scan(str(record.scan_path), Path(options.evidence))
    stem = Path(options.evidence).stem.removesuffix(_EDITED)
    name = f"{cut(stem, MAX_NAME_BYTES - len(_EDITED))}{_EDITED}"
    job = Job(Path(scan), record.query, Path(options.out), name, options.series or record.series, named=True)
    with hear_stops(at_once=True) as stops, print_failure(job, options.json):
        recorded = {} if options.allow_other_scan else record.reader_settings  # of the scan of the record alone
        volume = _reader(options, recorded)(job.scan, series=job.series)
        require_dicom(volume, dicom)
        paths = answer_paths(job.folder, name, mask_suffix(volume))
        there = next((path for path in paths.values() if path.exists()), None)
        if there is not None and not options.overwrite:
            raise ConfigError(f"{there} is there already; add --overwrite, or choose another --out")
        console = Console()
        say_replaced(there, console)
        made_by = PROPAGATOR if options.propagator is not None else require_recorded(record, console)
        propagator = _build(options, parser, made_by).propagator
        segmentation = repropagate(volume, record, propagator, options.allow_other_scan)
        stops.check()
        with stops.hold():
            saved = save_and_tell(segmentation, job.folder, name, dicom, console, options.html)
    return sum_up(job.scan, saved, "done")
