"""Writes the tables of the documentation that the code knows; run `python docs/make_tables.py` after a change."""

from __future__ import annotations

import re
from pathlib import Path

from medvol.checking.catalogue import PROBLEMS

PAGE = Path(__file__).with_name("reference.md")
_MARKS = "<!-- problems: python docs/make_tables.py -->\n", "<!-- end of problems -->"


def make_table() -> str:
    """Every problem that ``medvol check`` names, as a table in Markdown."""
    lines = ["| code | name | meaning | what to do | `--fix` |", "|---|---|---|---|---|"]
    for problem in PROBLEMS.values():
        meaning = f"{problem.meaning} (a warning)" if problem.warning else problem.meaning
        mended = "yes" if problem.mended else ""
        lines.append(f"| {problem.code} | `{problem.name}` | {meaning} | {problem.fix} | {mended} |")
    return "\n".join([*lines, ""])


def fill(page: str) -> str:
    """The text of the page with today's table between its marks."""
    start, end = map(re.escape, _MARKS)
    filled, count = re.subn(f"(?<={start}).*?(?={end})", lambda _: make_table(), page, flags=re.DOTALL)
    assert count == 1, f"{PAGE.name} has no place for the table, or two"
    return filled


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
