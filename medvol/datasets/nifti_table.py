"""Tables of labelled scans: CSV or JSON, one target a row."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import DatasetError, QueryError
from medvol.core.types import Evidence, Modality
from medvol.datasets.reader_anchor import read_anchor, read_key_slices
from medvol.datasets.sheet import SheetRow, read_sheet
from medvol.grounding.box_text import BETWEEN, read_boxes
from medvol.imaging.file_names import stem
from medvol.queries.instances import VoxelIndex
from medvol.queries.query_bank import target_name

COLUMNS = {
    "image": "path of the scan, or of a folder of DICOM, relative to root",
    "mask": "path of the mask, label map or DICOM segmentation; empty when there is none",
    "label": "values of the target in the mask, such as 2 or 2;3; every value but 0 when empty",
    "target": "name of the target; asks with the query bank when there is no query",
    "query": "the question itself",
    "patient": "patients stay in one split; the image when empty",
    "modality": "CT, MR or other; CT promises Hounsfield units",
    "case": "name of the case in results; the image when empty",
    "absent": "yes where the scan does not show the target, so that [] is the right answer; no when empty",
    "key_slice": "slice that a reader's boxes lie on, from 0 at the feet, or several with |; needs boxes and a mask",
    "boxes": "x1 y1 x2 y2 in pixels of the slice in LPS, half-open; ; between boxes, | between those of two slices",
}
"""Columns of a table and what they mean; only ``image`` is needed, and a target or a query. Others are not read."""

_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


@dataclass(frozen=True)
class TargetRow:
    """One target of one scan.

    Args:
        image: The scan.
        mask: The mask or label map; None when there is none.
        labels: Values of the target in the mask; every value but 0 when empty.
        target: Name of the target; empty when only a query is given.
        query: The question; empty to ask with the query bank.
        patient: Patient of the scan.
        modality: See ``Modality``; None leaves it to the reader.
        case: Start of the case's id.
        seed: Voxel (z, y, x) in LPS; only the connected part of the mask that holds it is the target.
        meaning: Structure that a relational target turns out to be.
        absent: True for a target that the scan does not show.
        where: File and row that say this, as errors name them; empty where no table does.
        number: Number of the row in its table; None where there is no table.
        anchor: Key slice and boxes that a reader gave; None where the mask gives them.
    """

    image: Path
    mask: Path | None
    labels: tuple[int, ...]
    target: str
    query: str
    patient: str
    modality: Modality | None
    case: str
    seed: VoxelIndex | None = None
    meaning: str = ""
    absent: bool = False
    where: str = ""
    number: int | None = None
    anchor: Evidence | None = None


def read_table(path: Path, root: Path) -> list[TargetRow]:
    """Read a table.

    Args:
        path: CSV with a header line, or JSON with a list of objects; see ``read_sheet``.
        root: Folder that the paths in the table are relative to.

    Raises:
        DatasetError: The file, a row or a cell cannot be used; the message names file, row, column and what to do.
    """
    return [read_row(row, root) for row in read_rows(path)]


def read_rows(path: Path) -> list[SheetRow]:
    """Rows of a table before their cells are read.

    Raises:
        DatasetError: The file is no table, or a column is missing or misspelt.
    """
    rows = read_sheet(path, "image")
    if not rows:
        raise DatasetError(f"{path}: the table has no rows; give each target a row with the columns {_columns()}")
    _check_columns(path, dict.fromkeys(column for row in rows for column in row.cells))
    return rows


def read_row(row: SheetRow, root: Path) -> TargetRow:
    """Check and convert every cell of a row.

    Raises:
        DatasetError: A cell cannot be used; the message names file, row, column and what to do.
    """
    return _Row(row.cells, row.where, root).read(row.number)


def unread_columns(rows: Sequence[SheetRow]) -> list[str]:
    """Columns of a table that mean nothing here."""
    columns = dict.fromkeys(column for row in rows for column in row.cells)
    return [column for column in columns if column and column not in COLUMNS]


def _check_columns(path: Path, columns: Collection[str]) -> None:
    for column in columns:
        near = difflib.get_close_matches(column.casefold(), COLUMNS, n=1, cutoff=0.75)
        if column not in COLUMNS and near and near[0] not in columns:
            raise DatasetError(f"{path}: unknown column {column!r}; did you mean {near[0]!r}?")
    if "image" not in columns:
        found = ", ".join(map(repr, columns))
        raise DatasetError(f"{path}: no column 'image'; the columns are {_columns()}; this table has {found:.200}")


@dataclass(frozen=True)
class _Row:
    """One row of a table, cell by cell."""

    cells: Mapping[str, Any]
    where: str
    root: Path

    def read(self, number: int) -> TargetRow:
        """Check and convert every cell."""
        image, mask = self._file("image"), self._file("mask")
        if image is None:
            raise self._error("image", "is empty; give the path of the scan")
        if mask is not None and mask.resolve() == image.resolve():
            raise self._error("mask", f"is {self._text('mask')!r}, the file of the image; give the mask's own")
        target, query = self._cell("target", self._target), self._text("query")
        if not (target or query):
            raise self._error("target", "is empty, and so is query; fill in one of them")
        name = self._name(image)
        return TargetRow(
            image=image,
            mask=mask,
            labels=self._cell("label", self._labels) or (),
            target=target or "",
            query=query,
            patient=normalize("NFC", self._text("patient")) or name,
            modality=self._cell("modality", self._modality),
            case=normalize("NFC", self._text("case")) or scan_name(name),
            absent=self._cell("absent", self._yes_no) or False,
            where=self.where,
            number=number,
            anchor=self._anchor(mask),
        )

    def _name(self, image: Path) -> str:
        """A name that no other scan has: the path from root, or the whole path of a scan that does not lie there."""
        whole, root = (Path(os.path.abspath(path)) for path in (image, self.root))
        return (whole.relative_to(root) if whole.is_relative_to(root) else whole).as_posix()

    def _error(self, column: str, problem: str) -> DatasetError:
        return DatasetError(f"{self.where}: {column} {problem}")

    def _text(self, column: str) -> str:
        value = self.cells.get(column)
        if value is None:
            return ""
        if isinstance(value, list) and column == "label":
            return ";".join(map(str, value))
        plain = (str, bool) if column == "absent" else (str, int, float) if column == "label" else (str, int)
        if not isinstance(value, plain) or (isinstance(value, bool) and column != "absent"):
            raise self._error(column, f"is {value!r}; write a text")
        return str(value).strip()

    def _cell(self, column: str, convert: Callable[[str, str], Any]) -> Any:
        """Converted cell; None when it is empty."""
        text = self._text(column)
        return convert(column, text) if text else None

    def _file(self, column: str) -> Path | None:
        text = self._text(column)
        if not text:
            return None
        path = self.root / text
        if column == "image" and os.path.isdir(path):
            return path  # of DICOM
        if not os.path.isfile(path):  # unlike Path.is_file it takes names that are too long for a file
            slashes = ", with / between folders" if "\\" in text else ""
            raise self._error(
                column, f"is {text!r:.200}, and there is no such file in {self.root}; paths start at root{slashes}"
            )
        return path

    def _target(self, column: str, text: str) -> str:
        try:
            return target_name(text)
        except QueryError as error:
            raise self._error(column, f"is {text!r}: {error}") from error

    def _labels(self, column: str, text: str) -> tuple[int, ...]:
        values = [part.strip() for part in text.split(";")]
        if not all(re.fullmatch(r"0*[1-9][0-9]{0,8}", value) for value in values):
            whole = re.fullmatch(r"([1-9][0-9]{0,8})[.,]0*", text)
            hint = f"it as {whole[1]}" if whole else "values above 0, such as 2 or 2;3"
            raise self._error(column, f"is {text!r:.200}; write {hint}")
        return tuple(int(value) for value in values)

    def _anchor(self, mask: Path | None) -> Evidence | None:
        """Key slice and boxes of a reader; None where neither is given."""
        keys, boxes = self._cell("key_slice", self._key_slices), self._cell("boxes", self._boxes)
        if keys is None and boxes is None:
            return None
        for column, value in (("key_slice", keys), ("boxes", boxes), ("mask", mask)):
            if value is None:
                raise self._error(column, "is empty; key_slice, boxes and mask belong together")
        anchor = read_anchor(keys, boxes)
        if anchor is None:
            lists = f"{len(boxes)} list{'s' if len(boxes) > 1 else ''} of boxes"
            raise self._error("boxes", f"holds {lists} for {len(keys)} key slices; write one a slice, | between them")
        return anchor

    def _key_slices(self, column: str, text: str) -> list[int]:
        keys = read_key_slices(text)
        if keys is None:
            raise self._error(
                column, f"is {text!r:.200}; write the index of a slice, such as 41, or of several, such as 12 | 41"
            )
        return keys

    def _boxes(self, column: str, text: str) -> list[NDArray[np.float64]]:
        lists = [read_boxes(part) for part in text.split(BETWEEN.strip())]
        boxes = [found for found in lists if found is not None]
        if len(boxes) < len(lists):
            raise self._error(column, f"is {text!r:.200}; write x1 y1 x2 y2 with x1 < x2 and y1 < y2, ; between boxes")
        return boxes

    def _yes_no(self, column: str, text: str) -> bool:
        if text.casefold() not in _YES_NO:
            raise self._error(column, f"is {text!r:.200}; write yes or no")
        return _YES_NO[text.casefold()]

    def _modality(self, column: str, text: str) -> str:
        choices: Sequence[str] = get_args(Modality)
        if text not in choices:
            raise self._error(column, f"is {text!r}; write one of {', '.join(choices)}")
        return text


def scan_name(path: str) -> str:
    """Name of a scan in results: its path without the ending, slashes as dashes."""
    return stem(path).replace("/", "-")


def _columns() -> str:
    return ", ".join(COLUMNS)
