"""The page of many answers: of a batch, or of what a program holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medvol.core.atomic_files import require_ending, require_no_folder
from medvol.core.errors import MedvolError, RecordError, explain_error
from medvol.core.json_file import read_json
from medvol.core.looks import last_region
from medvol.core.ownership import require_own
from medvol.core.types import Volume
from medvol.imaging.reading import read_mask
from medvol.inference.answer_page import new_page, show_answer, show_failure, write_page
from medvol.inference.answers import Answer
from medvol.inference.jobs import Job
from medvol.inference.repropagation import lacks_its_mask
from medvol.inference.segmentation import Segmentation
from medvol.inference.summary import OTHER_OUT, Outcome
from medvol.pages.answers import PageAnswer
from medvol.pages.document import MARK

PAGE_FILE = "answers.html"
"""The page of a batch, beside its summary."""

_REMEDY = "segment the scan again"
_MOVED = "Slice or boxes were changed in the record since the mask was made; `medvol segment --evidence` makes it anew."


def write_answer_page(
    answers: Iterable[Segmentation | tuple[str, MedvolError]],
    path: str | Path,
    names: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write answers as one HTML file that holds everything it shows and sends nothing anywhere.

    It has, for each answer, the question, the key slice with boxes and contour, all slices, planes and a 3D view of the
    mask, the measurements, what is known about how far the answer can be trusted, the policy's own words, the evidence
    record, and how to correct it. Scans are shown in 256 greys, and large ones cropped and averaged; the page says so.
    Of paths only the last name is shown. The same answers give the same bytes.

    Args:
        answers: Segmentations, or pairs of a query and the error that was raised in place of an answer. They are taken
            one after the other, so a generator holds one scan in memory at a time.
        path: The file to write, such as ``answers.html``.
        names: Stems under which the answers were saved, in their order; those of the rest are ``answer-1`` and so on.
        overwrite: Replace a file of that name.

    Returns:
        The path.

    Raises:
        ConfigError: The name does not end in ``.html`` or ``.htm``.
        RecordError: A file of that name is there already.
        OSError: The file cannot be written.
    """
    path = Path(path)
    require_no_folder(path)
    require_ending(path, ".html", ".htm")
    if path.exists() and not overwrite:
        raise RecordError(f"{path} is there already; choose another name, or pass overwrite=True")
    page = new_page()
    for number, answer in enumerate(answers, start=1):
        name = names[number - 1] if number <= len(names) else f"answer-{number}"
        if isinstance(answer, tuple):
            query, error = answer
            page.add(show_failure(query, "", str(error), type(error).__name__))
        else:
            page.add(answer.show(name))
    return write_page(page, path)


def show_earlier(volume: Volume, answer: Answer) -> PageAnswer:
    """What a page shows of an answer that lies on the disk.

    Args:
        volume: Its scan.
        answer: Path of its record, and what it says.

    Raises:
        ScanError: The mask cannot be read.
        GeometryError: The mask lies on another grid than the scan.
    """
    path, record = answer
    content = read_json(path, _REMEDY, _REMEDY)
    mask = read_mask(path.with_name(record.mask_file), volume)
    shown = show_answer(volume, mask, record.evidence, content, path.name, last_region(record.looks))
    return replace(shown, notes=(*shown.notes, _MOVED)) if lacks_its_mask(volume.shape, record) else shown


class BatchPage:
    """The page of a batch: it is filled as answers come, and written in the order of the jobs.

    Only what the page holds is kept of an answer, so memory does not grow with the scans.
    """

    def __init__(self) -> None:
        self._page = new_page()
        self._shown: dict[Job, PageAnswer] = {}
        self._words: dict[Job, str] = {}

    @staticmethod
    def require_free(folder: Path) -> None:
        """Refuse to replace a page that is none of a batch.

        Raises:
            RecordError: There is such a file.
        """
        require_own(folder / PAGE_FILE, MARK, OTHER_OUT)

    def keep_words(self, job: Job, words: str) -> None:
        """Keep what was said where it is no answer."""
        self._words[job] = words

    def show_written(self, job: Job, answer: Segmentation, path: Path) -> None:
        """Show an answer whose record was just written to a path."""
        record = read_json(path, _REMEDY, _REMEDY)
        region = last_region(answer.completion.looks)
        self._show(job, show_answer(answer.volume, answer.mask, answer.evidence, record, path.name, region))

    def show_earlier(self, job: Job, volume: Volume, answer: Answer) -> None:
        """Show an answer of an earlier run; where its mask cannot be read, the page says so."""
        try:
            self._show(job, show_earlier(volume, answer))
        except Exception as error:  # whatever is wrong with one mask, the page shows the others
            reason = f"There is an answer, and it cannot be shown: {explain_error(error)}"
            self._show(job, _fail(job, reason, "", ""))

    def write(self, folder: Path, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> Path:
        """Write the page.

        Args:
            folder: Where it goes, as ``answers.html``.
            jobs: In their order.
            outcomes: What became of each; why there is no answer is taken from here.

        Raises:
            OSError: It cannot be written.
        """
        self._page.answers = [
            self._shown.get(job) or _fail(job, *_explain(outcome), self._words.get(job, ""))
            for job, outcome in zip(jobs, outcomes, strict=True)
        ]
        return write_page(self._page, folder / PAGE_FILE)

    def _show(self, job: Job, answer: PageAnswer) -> None:
        self._shown[job] = self._page.fit(answer)


def _explain(outcome: Outcome) -> tuple[str, str]:
    """Why there is no answer, and the name of the error."""
    if outcome.error:
        return outcome.detail, outcome.error
    return "Not asked: the batch was stopped before.", ""


def _fail(job: Job, reason: str, kind: str, words: str) -> PageAnswer:
    folders: list[Any] = [job.scan.parent, job.folder]
    return show_failure(job.query, job.scan.name, reason, kind, words, folders)
