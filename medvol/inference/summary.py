"""What became of a batch: ``summary.json`` for programs, ``answers.csv`` for a table, a few lines for the screen."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from medvol.core.atomic_files import write_whole
from medvol.core.json_file import write_json
from medvol.core.ownership import is_own, require_own
from medvol.core.visible_text import show
from medvol.inference.confidence import read_warnings
from medvol.inference.records import EvidenceRecord

SCHEMA = "medvol-summary/1"
SUMMARY_FILE = "summary.json"
TABLE_FILE = "answers.csv"

OTHER_OUT = "choose another --out"

_FORMULAS = ("=", "+", "-", "@")
"""How a cell begins that a spreadsheet would compute."""

Status = Literal["done", "skipped", "failed", "not run"]


@dataclass(frozen=True)
class Outcome:
    """What became of one job, and what its answer measures.

    Args:
        name: Stem of its files.
        scan: Path of the scan.
        query: The question.
        status: ``skipped`` was answered by an earlier run; ``not run`` was left when the batch was interrupted.
        record: Path of the evidence record; empty without one. A failed job has one when mask and record were written
            but something beside them could not be.
        mask: Path of the mask; empty without one.
        error: Name of the error; empty when there was none.
        detail: The error's sentence.
        series: What the DICOM series was named by.
        key_slice: Slice of the anchor; None without one.
        voxels: Size of the mask.
        volume_ml: Its volume.
        mean_intensity: Mean of the scan in the mask.
        intensity_unit: ``HU``, or empty where the scan has no unit.
        longest_diameter_mm: See ``measure_diameters``.
        perpendicular_diameter_mm: See ``measure_diameters``.
        warnings: Why the answer may be worth nothing.
    """

    name: str
    scan: str
    query: str
    status: Status
    record: str = ""
    mask: str = ""
    error: str = ""
    detail: str = ""
    series: str | None = None
    key_slice: int | None = None
    voxels: int | None = None
    volume_ml: float | None = None
    mean_intensity: float | None = None
    intensity_unit: str | None = None
    longest_diameter_mm: float | None = None
    perpendicular_diameter_mm: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What became of a batch.

    Args:
        outcomes: In the order of the jobs.
        identity: Identity of the policy and the propagator.
        problem: Why the files of the summary could not be written; empty when they were.
    """

    outcomes: tuple[Outcome, ...]
    identity: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    def of(self, status: Status) -> list[Outcome]:
        """Outcomes of one status."""
        return [outcome for outcome in self.outcomes if outcome.status == status]

    @property
    def exit_code(self) -> int:
        """0 when every job was done or skipped and the summary was written, else 1."""
        return int(bool(self.problem) or any(outcome.status in ("failed", "not run") for outcome in self.outcomes))

    @property
    def needs_rows(self) -> bool:
        """True when something has to be said of a case."""
        return bool(self.exit_code) or any(outcome.warnings for outcome in self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``summary.json``."""
        counts = {status: len(self.of(status)) for status in ("done", "skipped", "failed", "not run")}
        return {"schema": SCHEMA, "counts": counts, **self.identity, "cases": [asdict(o) for o in self.outcomes]}

    def to_csv(self) -> str:
        """A row for every job; of text only what can be read, and nothing that a spreadsheet takes for a formula.

        ``summary.json`` has it to the letter.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, [column.name for column in fields(Outcome)])
        writer.writeheader()
        for outcome in self.outcomes:
            cells = {**asdict(outcome), "warnings": "; ".join(outcome.warnings)}.items()
            writer.writerow({name: _as_text(cell) if isinstance(cell, str) else cell for name, cell in cells})
        return text.getvalue()

    @staticmethod
    def require_free(folder: Path, remedy: str = OTHER_OUT) -> None:
        """Refuse to replace files of these names that are none of a batch.

        Args:
            folder: Of the files.
            remedy: Where to write instead.

        Raises:
            RecordError: There is such a file.
        """
        first_columns = ",".join(column.name for column in fields(Outcome)[:4])
        require_own(folder / SUMMARY_FILE, SCHEMA, remedy)
        require_own(folder / TABLE_FILE, first_columns, remedy)

    def write(self, folder: Path) -> None:
        """Write ``summary.json`` and ``answers.csv``."""
        write_json(folder / SUMMARY_FILE, self.to_dict())
        with write_whole(folder / TABLE_FILE) as partial:
            partial.write_text(self.to_csv(), encoding="utf-8", newline="")

    def table(self) -> Table:
        """A line for every job that failed or was not run, and for every warning; below it the counts."""
        counts = [f"{len(self.of(status))} {status}" for status in ("done", "skipped", "failed", "not run")]
        warned = [outcome for outcome in self.outcomes if outcome.warnings]
        counts += [f"{len(warned)} with warnings"] if warned else []
        table = Table(title=", ".join(counts), title_justify="left", show_header=self.needs_rows)
        for heading in ("scan", "query", "why"):
            table.add_column(heading, overflow="fold")
        for outcome in (*self.of("failed"), *self.of("not run")):
            why = f"{outcome.error}: {outcome.detail}" if outcome.error else outcome.status
            table.add_row(*(Text(show(text)) for text in (outcome.scan, outcome.query, why)))
        for outcome in warned:
            why = f"warning: {'; '.join(outcome.warnings)}"
            table.add_row(*(Text(show(text)) for text in (outcome.scan, outcome.query, why)))
        return table


def is_summed_up(folder: Path) -> bool:
    """Whether medvol wrote the summary in a folder: the answers there are its own."""
    return is_own(folder / SUMMARY_FILE, SCHEMA)


def _as_text(cell: str) -> str:
    """A text for a cell of a table: an apostrophe keeps a spreadsheet from computing it."""
    shown = show(cell)
    return f"'{shown}" if shown.startswith(_FORMULAS) else shown


def measured(record: EvidenceRecord) -> dict[str, Any]:
    """What a record says of its answer, under the names of ``Outcome``."""
    names = ("voxels", "volume_ml", "mean_intensity", "intensity_unit")
    diameters = ("longest_diameter_mm", "perpendicular_diameter_mm")
    return {
        "key_slice": record.evidence.key_slice,
        "warnings": read_warnings(record.confidence),
        **_pick(record.mask, (*names, *diameters)),
    }


def _pick(values: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: values.get(name) for name in names}
