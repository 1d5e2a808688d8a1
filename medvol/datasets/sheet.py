"""Sheets: CSV and JSON files with one thing a row, each row with the number that the file's reader sees."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medvol.core.errors import DatasetError
from medvol.core.json_file import parse_json

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


@dataclass(frozen=True)
class SheetRow:
    """One row of a sheet.

    Args:
        cells: Values by column; texts in CSV.
        number: Number of the row in a spreadsheet, where the header is row 1; in JSON the index, from 0.
        where: File and row, as errors name them: ``t.csv: row 2``, ``t.json[0]``.
    """

    cells: dict[str, Any]
    number: int
    where: str


def read_sheet(path: Path, key: str) -> list[SheetRow]:
    """Read a sheet; rows without any text are left out and counted.

    Args:
        path: CSV, whose cells are separated by commas, semicolons, tabs or bars, or JSON with a list of objects. Its
            text is UTF-8, or UTF-16 with its mark.
        key: Column that the sheet must have; it tells what separates the cells.

    Raises:
        DatasetError: The file cannot be read as a sheet; the message names file, row and what to do.
    """
    try:
        text = _decode(path, path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path}: the table cannot be read ({error.strerror}); check the path") from error
    return _json_rows(path, text) if path.suffix.lower() == ".json" else _csv_rows(path, text, key)


def _decode(path: Path, data: bytes) -> str:
    if data.startswith(_WORKBOOKS):
        raise DatasetError(f"{path}: this is a workbook, not a CSV table; save it as CSV UTF-8")
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = f"byte 0x{data[error.start]:02x} in line {line}"
        raise DatasetError(
            f"{path}: the table is not UTF-8 text ({what}); save it as UTF-8, in Excel as 'CSV UTF-8'"
        ) from error
    if "\0" in text.partition("\n")[0]:
        raise DatasetError(f"{path}: the table seems to be UTF-16 without its mark, not UTF-8 text; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _csv_rows(path: Path, text: str, key: str) -> list[SheetRow]:
    fitting = [mark for mark in _DELIMITERS if key in _head(text, mark)]
    delimiter = fitting[0] if fitting else ","
    records = _records(path, text, delimiter)
    _, head = next(records, (0, []))
    twice = [name for name, count in Counter(filter(None, head)).items() if count > 1]
    if twice:
        raise DatasetError(f"{path}: two columns are called {twice[0]!r}; rename or delete one")
    rows = []
    for number, cells in records:
        where = f"{path}: row {number}"
        if len(cells) != len(head):
            raise DatasetError(f"{where}: {_miscount(cells, head, delimiter)}")
        rows.append(SheetRow(dict(zip(head, cells, strict=True)), number, where))
    return rows


def _head(text: str, delimiter: str) -> list[str]:
    """Columns, if this separates them."""
    try:
        return next((cells for cells in _reader(text, delimiter) if any(cells)), [])
    except csv.Error:
        return []


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with any text, numbered as a spreadsheet does it: a line break in quotes begins no row."""
    number = 0
    try:
        for number, cells in enumerate(_reader(text, delimiter), start=1):
            if any(cells):
                yield number, cells
    except csv.Error as error:
        open_quote = "unexpected end of data" in str(error)
        reason = "a quote is opened and not closed" if open_quote else str(error)
        raise DatasetError(f"{path}: not a CSV table (row {number + 1}: {reason}); correct its quotes") from error


def _reader(text: str, delimiter: str) -> Iterator[list[str]]:
    lines = io.StringIO(text, newline="")
    for cells in csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True):
        yield [cell.strip() for cell in cells]


def _miscount(cells: list[str], head: list[str], delimiter: str) -> str:
    other = next((mark for mark in _DELIMITERS if len(cells) == 1 and mark != delimiter and mark in cells[0]), None)
    if other is not None:
        what = f"its cells are separated by {_DELIMITERS[other]}, those of the header by {_DELIMITERS[delimiter]}"
        return f"{what}; write the same in every row"
    return (
        f"not as many cells as the header has ({len(cells)}, not {len(head)}); put cells that hold "
        f"{_DELIMITERS[delimiter]} into quotes"
    )


def _json_rows(path: Path, text: str) -> list[SheetRow]:
    try:
        rows = parse_json(text)
    except ValueError as error:
        raise DatasetError(f"{path}: not JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{path}: not a table; expected a list of objects with the columns as keys")
    return [SheetRow(row, index, f"{path}[{index}]") for index, row in enumerate(rows)]
