"""``medvol demo``: a scan is drawn, the bundled policy answers three questions about it, and the files are shown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medvol.cli.parsing import ComponentParser
from medvol.cli.path_options import require_path_options
from medvol.core.bundled import BEST
from medvol.core.errors import ConfigError
from medvol.core.registry import DATASETS
from medvol.core.visible_text import show
from medvol.terminal.console import Console
from medvol.terminal.progress import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvol.core.types import Volume
    from medvol.inference.jobs import Job
    from medvol.inference.summary import Outcome

_FOLDER = "medvol-demo"
_SCAN = "scan.nii.gz"
_ANSWERS = "answers"
_SEED = 0
"""Of the synthetic scan, which is one of the validation scans: nothing was trained on it."""


@dataclass(frozen=True)
class _Question:
    """One question of the demo.

    Args:
        text: As it is asked; no policy was trained on this wording.
        target: What it means, as the data set calls it.
        kind: What it shows.
    """

    text: str
    target: str
    kind: str


_QUESTIONS = (
    _Question("which large gland produces bile", "liver", "an organ, described and not named"),
    _Question("which kidney is free of any lesion", "kidney without lesion", "one of two, told by a relation"),
    _Question("the beating organ of the chest with four chambers", "heart", "an organ that the scan does not show"),
)


def run(verb: str, arguments: Sequence[str]) -> int:
    """Draw, ask, answer, and tell what to do next; 1 when a question failed.

    Raises:
        ConfigError: The folder holds something already.
    """
    parser = ComponentParser(
        prog=f"medvol {verb}", description="Draw a scan, ask three questions about it, write masks and pictures."
    )
    parser.add_argument("folder", nargs="?", type=str, default=_FOLDER, help="folder of the scan and the answers")
    parser.add_argument("--overwrite", action="store_true", help="draw and answer again what is there")
    options = parser.parse_args(list(arguments))
    require_path_options(options, "FOLDER")
    folder, console = Path(options.folder), Console()
    _require_free(folder, options.overwrite)
    volume, masks = _draw()
    from medvol.imaging.writing import write_volume

    scan = write_volume(folder / _SCAN, volume)
    size = " x ".join(map(str, volume.shape))
    what = f"an abdomen with a lesion in one kidney, {size} voxels (z, y, x)"
    console.print(f"made     {show(str(scan))}: {what}", soft_wrap=True)
    console.print(f"policy   {BEST}, which comes with medvol and knows synthetic scans only", soft_wrap=True)
    jobs = _make_jobs(scan, folder / _ANSWERS)
    code = _answer(jobs, masks, options.overwrite, console)
    _tell_next(folder, console)
    return code


def _require_free(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{str(folder)!r} is a file; give the name of a folder")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{str(folder)!r} is there already; add --overwrite, or choose another folder")


def _draw() -> tuple[Volume, Mapping[str, NDArray[np.bool_]]]:
    """The scan, and the true mask of every target that it shows."""
    cases = DATASETS.get("PhantomDataset")(split="val", num_volumes=1, seed=_SEED, lesion_share=1.0)
    return cases[0].volume, {case.query.target: case.target for case in map(cases.__getitem__, range(len(cases)))}


def _make_jobs(scan: Path, out: Path) -> list[Job]:
    from medvol.inference.jobs import Job, answer_stem, case_name

    name = case_name(scan)
    return [Job(scan, question.text, out, answer_stem(name, question.text)) for question in _QUESTIONS]


def _answer(jobs: list[Job], masks: Mapping[str, NDArray[np.bool_]], overwrite: bool, console: Console) -> int:
    """Answer the questions together, and tell what became of each."""
    with Work("loading the policy"):
        from medvol.inference.batch import run_jobs
        from medvol.inference.segmenter import Segmenter

        segmenter = Segmenter(BEST)
        segmenter.policy.require_ready()
    with Work("answering", len(jobs), "questions") as work:
        summary = run_jobs(
            jobs, segmenter, jobs[0].folder, overwrite, progress=lambda outcome: work.advance(), html=True
        )
    for number, (question, outcome) in enumerate(zip(_QUESTIONS, summary.outcomes, strict=True), start=1):
        console.print(f"\n{number}. {question.text} ({question.kind}: the {question.target})", soft_wrap=True)
        for line in _describe(outcome, masks.get(question.target)):
            console.print(f"   {show(line)}", soft_wrap=True)
    return summary.exit_code


def _describe(outcome: Outcome, truth: NDArray[np.bool_] | None) -> list[str]:
    """What was answered, and how far that is right.

    Args:
        outcome: Of the question.
        truth: True mask; None where the scan does not show the target.
    """
    from medvol.core.metrics import dice
    from medvol.imaging.reading import read_mask, read_volume
    from medvol.inference.records import read_record

    if not outcome.record:
        return [f"no answer: {outcome.detail}"]
    record = read_record(outcome.record)
    picture = f"picture {Path(outcome.record).with_suffix('.png')}"
    if record.evidence.absent:
        return [f"answer  it is not in the scan, which is {'right' if truth is None else 'wrong'}", picture]
    found = f"answer  slice {outcome.key_slice}, {outcome.volume_ml:.4g} ml"
    if truth is None:
        return [f"{found}, which is wrong: the scan does not show it", picture]
    mask = read_mask(Path(outcome.record).parent / record.mask_file, read_volume(outcome.scan))
    return [f"{found}; its overlap with the truth (DSC) is {dice(mask, truth):.2f}", picture]


def _tell_next(folder: Path, console: Console) -> None:
    from medvol.inference.batch_page import PAGE_FILE

    answers, record = (shlex.quote(f"{folder / _ANSWERS}{name}") for name in ("", "/NAME.json"))
    rows = {
        "look": f"open {folder / _ANSWERS / PAGE_FILE} in a browser: boxes, slices, planes, and the masks in 3D",
        "correct": f'`medvol view {answers}`, which needs once: pip install "medvol-r1[view]"',
        "": f"or edit a record, then: medvol segment --evidence {record}",
        "your own": 'medvol segment SCAN "QUERY" --policy MODEL, with a policy that was trained on scans of that kind',
        "train": "medvol fit --config examples/demo_sft.yaml, in a clone of medvol; `make demo` there does all of it",
    }
    console.print()
    for what, text in rows.items():
        console.print(f"{what:<8} {show(text)}", soft_wrap=True)
