"""The report of runs as a page: one HTML file that holds everything it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from medvol.core.atomic_files import require_ending, require_no_folder, write_whole
from medvol.core.errors import MedvolError, RecordError
from medvol.core.roles import CaseDataset
from medvol.evaluation.archive import Evaluation
from medvol.evaluation.case_finder import CaseFinder
from medvol.evaluation.case_identity import identify_score
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.named_runs import read_runs
from medvol.evaluation.report import TOPICS, EvaluationReport, format_interval, lay_out
from medvol.evaluation.report_page.confidence import confidence_blocks
from medvol.evaluation.report_page.learning_curves import plot_curves, read_curves
from medvol.evaluation.report_page.plots import (
    plot_budget,
    plot_differences,
    plot_means,
    plot_patients,
    plot_targets,
    worst_patients,
)
from medvol.evaluation.report_page.run_facts import describe_run, hide_folders
from medvol.evaluation.report_page.shown_cases import RANKS, choose_cases, clip_words, other_scores, show_case
from medvol.pages.answers import Fact
from medvol.pages.blocks import Failure, FailuresBlock, Section, TableBlock, WordsBlock
from medvol.pages.report import ReportPage
from medvol.terminal.progress import counted

MAX_CASES = 1_000
"""Most rows of the table of all cases."""

MAX_FAILURES = 20
"""Most failures of a run that are shown with their words."""

MAX_PATIENTS = 20
"""Rows of the table of patients."""

FindData = Callable[[Evaluation], CaseDataset]
"""Finds the cases that a run scored, or raises a ``MedvolError`` that says why it cannot."""


def write_report(
    path: Path, folders: Sequence[str | Path], find_data: FindData | None, overwrite: bool = False
) -> Path:
    """Write the report of runs as one HTML file.

    Args:
        path: The file.
        folders: Run folders; each is compared with the first that answered the same cases.
        find_data: Finds the scans of the cases that are shown; None shows none.
        overwrite: Replace a file of that name.

    Returns:
        The path.

    Raises:
        ConfigError: There is no folder, one is named twice, there are too many runs for one report, or the file is not
            called HTML.
        RecordError: An evaluation is missing or damaged, or a file of that name is there.
        OSError: It cannot be written.
    """
    require_no_folder(path)
    require_ending(path, ".html", ".htm")
    if path.exists() and not overwrite:
        raise RecordError(f"{path} is there already; add --overwrite, or choose another name")
    text = make_page(read_runs(folders), find_data).render()
    with write_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n", errors="backslashreplace")
    return path


def make_page(runs: Mapping[str, Evaluation], find_data: FindData | None) -> ReportPage:
    """The report as plain data."""
    report = lay_out(runs)
    sections = [
        Section(
            "runs", "What was run", "", tuple(describe_run(name, i, run) for i, (name, run) in enumerate(runs.items()))
        ),
        _scores(runs, report),
        _differences(runs, report),
        _budget(runs, report),
        _spread(runs, report),
        _curves(runs),
        Section(
            "confidence",
            "Confidence",
            "Whether the answers that a run was less sure of are the worse ones.",
            (*confidence_blocks(runs), *_tables(report, _is("confidence"))),
        ),
        _cases(runs, find_data),
        _failures(runs),
        Section("more", "More tables", "", tuple(_tables(report, lambda topic: topic not in TOPICS))),
        Section("all", "All cases", "", tuple(_all_cases(runs))),
    ]
    title = " and ".join(runs) if len(runs) < 3 else f"{next(iter(runs))} and {len(runs) - 1} other runs"
    facts = tuple(
        Fact(f"DSC of {label}", format_interval(run.summary["all"]["metrics"].get("dsc")), _counts(run))
        for label, run in runs.items()
    )
    shown = tuple(section for section in sections if section.blocks)
    return ReportPage(title, tuple(runs), facts, shown, version("medvol-r1"))


def _counts(run: Evaluation) -> str:
    counts = run.summary["all"]
    return f"{counts['cases']} cases of {counts['patients']} patients, {counts['failures']} failed"


def _scores(runs: Mapping[str, Evaluation], report: EvaluationReport) -> Section:
    intro = (
        "Means over cases. Slice, box and mask scores are over cases whose target is present; a case that failed "
        "counts as 0 (HD95: the diagonal of the volume). Intervals are 95 % bootstrap-t intervals that resample whole "
        "patients."
    )
    words = (WordsBlock(tuple(f"{remark}." for remark in report.remarks)),) if report.remarks else ()
    return Section("scores", "Scores", intro, (*_tables(report, _is("scores")), *plot_means(runs), *words))


def _differences(runs: Mapping[str, Evaluation], report: EvaluationReport) -> Section:
    intro = (
        "Mean of the differences over the same cases, each run less the first one of these cases. p is two-sided, of a "
        "permutation test that changes the sign of whole patients, and is raised after Holm for the number of runs. "
        "With few patients p cannot be small."
    )
    return Section(
        "differences", "Paired differences", intro, (*_tables(report, _is("differences")), *plot_differences(runs))
    )


def _budget(runs: Mapping[str, Evaluation], report: EvaluationReport) -> Section:
    intro = (
        "The same propagator from the true anchor, from the true boxes of the chosen slice, and from the answer as it "
        "is. A loss below 0 is a gain. Where the best anchor was searched for, it says what is left to gain with this "
        "propagator."
    )
    return Section("budget", "Error budget", intro, (*plot_budget(runs), *_tables(report, _is("budget"))))


def _spread(runs: Mapping[str, Evaluation], report: EvaluationReport) -> Section:
    intro = "How the DSC is spread over targets and patients. Only cases whose target is present count."
    rows = worst_patients(runs)
    shown = tuple((name, *("-" if v is None else f"{v:.3f}" for v in values)) for name, values in rows[:MAX_PATIENTS])
    note = f"The {MAX_PATIENTS} lowest of {len(rows)} patients." if len(rows) > MAX_PATIENTS else ""
    title = "Patients by mean DSC, lowest first"
    patients = (TableBlock(title, ("patient", *runs), shown, note, folded=True),) if len(rows) > 1 else ()
    groups = _tables(report, _is("groups"), folded=True)
    return Section(
        "spread", "Targets and patients", intro, (*plot_targets(runs), *plot_patients(runs), *patients, *groups)
    )


def _curves(runs: Mapping[str, Evaluation]) -> Section:
    curves, problems = {}, []
    for label, run in runs.items():
        try:
            curves[label] = read_curves(run.folder)
        except RecordError as error:
            curves[label] = {}
            problems.append(f"{label} has no curves here: {hide_folders(str(error))}.")
    words = (WordsBlock(tuple(problems)),) if problems else ()
    return Section("curves", "Learning curves", "", (*words, *plot_curves(curves)))


def _cases(runs: Mapping[str, Evaluation], find_data: FindData | None) -> Section:
    """Of every run its worst, median and best case; those of one rank follow one another, so that space is shared."""
    intro = (
        "Of each run the worst, the median and the best case by DSC, among those whose target is present and whose "
        "answer did not fail. Pictures and voxels are for looking; every figure is of scan and mask as they are."
    )
    finders = {label: _find(run, find_data) for label, run in runs.items()}
    chosen = [
        (number, label, one) for number, (label, run) in enumerate(runs.items()) for one in choose_cases(run.scores)
    ]
    chosen.sort(key=lambda row: RANKS.index(row[2].rank))
    blocks = [
        show_case(one, label, number, runs[label], finders[label], other_scores(one.score, label, runs))
        for number, label, one in counted(chosen, "drawing", len(chosen), "cases")
    ]
    named = {label for _, label, _ in chosen}
    none = tuple(
        f"No case of {label} has a target and an answer that did not fail." for label in runs if label not in named
    )
    words = (WordsBlock(none),) if none else ()
    return Section("cases", "Worst, median and best cases", intro, (*words, *blocks))


def _find(run: Evaluation, find_data: FindData | None) -> CaseFinder | str:
    if find_data is None:
        return "No picture: the report was asked for without scans."
    try:
        return CaseFinder(find_data(run))
    except MedvolError as error:
        return f"No picture: {hide_folders(str(error))}."


def _failures(runs: Mapping[str, Evaluation]) -> Section:
    blocks = []
    for number, (label, run) in enumerate(runs.items()):
        counts = run.summary["failures"]
        failed = sorted((s for s in run.scores if s.failure), key=lambda score: counts[score.failure])
        if failed:
            kinds = ", ".join(f"{name} {count}" for name, count in counts.items())
            note = (
                f"{MAX_FAILURES} of {len(failed)}, the rarest kinds first; the table of all cases has the others."
                if len(failed) > MAX_FAILURES
                else ""
            )
            items = tuple(map(_failure, failed[:MAX_FAILURES]))
            blocks.append(FailuresBlock(f"{label}: {kinds}", number, items, note))
    return Section("failures", "Failures", "Each counts as 0, with what the policy said.", tuple(blocks))


def _failure(score: CaseScore) -> Failure:
    reason = clip_words(hide_folders(score.detail))
    return Failure(score.case_id, score.query, score.failure or "", reason, clip_words(score.completion))


def _all_cases(runs: Mapping[str, Evaluation]) -> Iterator[TableBlock]:
    """Every case with its DSC in every run, the lowest of the first run first; answers about absent targets last."""
    tables = [{identify_score(score): score for score in run.scores} for run in runs.values()]
    first = {identity: score for known in reversed(tables) for identity, score in known.items()}
    order = sorted(first.values(), key=lambda score: (not score.present, score.dsc, score.case_id))
    rows = tuple(
        (
            score.case_id,
            *(_cell(known.get(identify_score(score))) for known in tables),
            score.target,
            score.patient_id,
            score.query,
        )
        for score in order[:MAX_CASES]
    )
    note = "For a target that is absent, 1 is the right answer." if any(not score.present for score in order) else ""
    if len(order) > MAX_CASES:
        note = f"{note} The first {MAX_CASES:,} of {len(order):,} cases; cases.json has all.".strip()
    head = ("case", *(f"DSC of {label}" for label in runs), "target", "patient", "question")
    yield TableBlock(f"{len(order):,} cases, lowest DSC first", head, rows, note, folded=True)


def _cell(score: CaseScore | None) -> str:
    if score is None:
        return "-"
    absent = "" if score.present else " (absent)"
    return f"{score.dsc:.3f}{absent}{f' {score.failure}' if score.failure else ''}"


def _is(topic: str) -> Callable[[str], bool]:
    return lambda other: other == topic


def _tables(report: EvaluationReport, wanted: Callable[[str], bool], folded: bool = False) -> Iterator[TableBlock]:
    for sheet in report.sheets:
        if wanted(sheet.topic):
            rows = tuple(tuple(row) for row in sheet.rows)
            yield TableBlock(f"{sheet.title[0].upper()}{sheet.title[1:]}", tuple(sheet.head), rows, folded=folded)
