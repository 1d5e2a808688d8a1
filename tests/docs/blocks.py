"""Fenced blocks of the documentation: where they are, what is in them, and why one is not run."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *REPOSITORY.glob("docs/**/*.md")],
    key=lambda path: path.relative_to(REPOSITORY),
)
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE
)
_MARKER = re.compile(r"<!-- not run: (?P<reason>[^>]*\S) *-->\s*$")
_ASSIGNMENT = re.compile(r"\w+=\S*")
_BETWEEN = {"&&", "||", ";", "|"}


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        page: Path from the repository.
        line: Line of its fence in the page, from 1.
        language: What stands behind the fence.
        code: The lines, without the indentation of a list.
        reason: Why it is not run; empty where it is.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[list[str]]:
        """Commands of a block of bash as words, without comments and variables that are set for one command."""
        found = []
        for line in self.code.replace("\\\n", " ").splitlines():
            words: list[str] = []
            for word in [*shlex.split(line, comments=True), ";"]:
                if word not in _BETWEEN:
                    words.append(word)
                    continue
                while words and _ASSIGNMENT.fullmatch(words[0]):
                    words.pop(0)
                found += [words] if words else []
                words = []
        return found


def read_blocks(text: str, page: str) -> list[Block]:
    """Blocks of a page, in order."""
    blocks = []
    for match in _FENCE.finditer(text):
        marker = _MARKER.search(text[: match.start()])
        reason = "" if marker is None else marker["reason"]
        line = text.count("\n", 0, match.start()) + 1
        blocks.append(Block(page, line, match["language"], textwrap.dedent(match["code"]), reason))
    return blocks


def all_blocks(*languages: str) -> list[Block]:
    """Blocks of all pages in these languages."""
    found = []
    for path in PAGES:
        page = path.relative_to(REPOSITORY).as_posix()
        found += [block for block in read_blocks(path.read_text(), page) if block.language in languages]
    return found
