"""Blocks: what a report page is made of, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medvol.pages.answers import Fact
from medvol.pages.plots import Drawing
from medvol.pages.viewer import Stack


@dataclass(frozen=True)
class TableBlock:
    """A table of text.

    Args:
        title: What it shows.
        head: Column heads.
        rows: One cell a column; the first names the row.
        note: A sentence below it.
        folded: Shown when it is asked for.
    """

    kind: ClassVar[str] = "table"

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Strip:
    """A row of a strip plot.

    Args:
        label: What it is of; empty where the row above says it.
        whose: Name of the run; empty where there is only one.
        run: Number of the run, which gives the colour.
        drawing: What is drawn.
        cells: The same in figures, one a column.
        opens: True for the first row of a group.
    """

    label: str
    whose: str
    run: int
    drawing: Drawing
    cells: tuple[str, ...]
    opens: bool = False


@dataclass(frozen=True)
class StripsBlock:
    """Rows of drawings over one axis, each with its figures in text.

    Args:
        title: What it shows.
        ticks: Five values at equal distances along the axis.
        head: Heads of the rows, of the axis and of the figures.
        several: Rows are of several runs, which are named.
        strips: The rows.
        note: How it is drawn.
    """

    kind: ClassVar[str] = "strips"

    title: str
    ticks: tuple[str, str, str, str, str]
    head: tuple[str, ...]
    strips: tuple[Strip, ...]
    note: str = ""
    several: bool = False


@dataclass(frozen=True)
class CurvesBlock:
    """Small line plots side by side.

    Args:
        title: What they show.
        drawings: The plots.
        note: How they are drawn.
        folded: Shown when they are asked for.
    """

    kind: ClassVar[str] = "curves"

    title: str
    drawings: tuple[Drawing, ...]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class RunBlock:
    """What was run and how.

    Args:
        label: Name of the run.
        run: Its number.
        facts: What it is, in a few words each.
        tables: Settings, versions, files.
        configuration: YAML; empty where the run keeps none.
        notes: What is not known of it.
    """

    kind: ClassVar[str] = "run"

    label: str
    run: int
    facts: tuple[Fact, ...]
    tables: tuple[TableBlock, ...]
    configuration: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseBlock:
    """One case of a run, with a picture where the scan can be read.

    Args:
        run_label: Name of the run.
        run: Its number.
        rank: Why it is shown, such as ``worst``.
        case_id: Its id.
        query: The question.
        facts: Its scores.
        picture: PNG; None where there is none.
        picture_text: What the picture shows, for those who do not see it.
        caption: What the picture shows, in a few words.
        stack: Voxels for the viewer; None where there are none.
        words: The policy's own words.
        notes: What is not shown, or not as it is.
    """

    kind: ClassVar[str] = "case"

    run_label: str
    run: int
    rank: str
    case_id: str
    query: str
    facts: tuple[Fact, ...]
    picture: bytes | None = None
    picture_text: str = ""
    caption: str = ""
    stack: Stack | None = None
    words: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FailuresBlock:
    """Failures of a run.

    Args:
        title: Whose they are.
        run: Number of the run.
        items: Each with its case and question, its kind, its reason and the policy's own words.
        note: What is not listed.
    """

    kind: ClassVar[str] = "failures"

    title: str
    run: int
    items: tuple[Failure, ...]
    note: str = ""


@dataclass(frozen=True)
class Failure:
    """One failure.

    Args:
        case_id: Of the case.
        query: The question.
        name: Name of the failure.
        reason: What went wrong.
        words: What the policy said.
    """

    case_id: str
    query: str
    name: str
    reason: str
    words: str


@dataclass(frozen=True)
class WordsBlock:
    """Sentences, as a list."""

    kind: ClassVar[str] = "words"

    sentences: tuple[str, ...]


Block = TableBlock | StripsBlock | CurvesBlock | RunBlock | CaseBlock | FailuresBlock | WordsBlock


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Args:
        name: Its anchor: small letters and hyphens.
        title: Its heading.
        intro: A sentence or two on how to read it.
        blocks: What it shows.
    """

    name: str
    title: str
    intro: str
    blocks: tuple[Block, ...]
