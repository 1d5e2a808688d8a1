"""YAML text from anywhere, judged before it is built: its length, its depth, its size once aliases are followed.

A key that is given twice is refused too: of two values YAML would keep the last.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_CHARACTERS = 500_000
"""The longest file of medvol's own has 30,000."""
MAX_DEPTH = 64
MAX_NODES = 20_000
"""Most values, each alias counted as all that it stands for."""
_MAX_DIGITS = 1000
UNREADABLE = (ValueError, KeyError, OverflowError)
"""What the builders of YAML raise at a date, a number or a truth value that is none."""


class RefusedYAMLError(yaml.YAMLError):
    """The text is YAML, and building it would take too long, too much memory, never end, or lose a value."""


def judge_yaml(text: str) -> None:
    """Go through the events of a text once, without building anything.

    Raises:
        RefusedYAMLError: It is too long, too deep or too large, an anchor holds itself, a number has more than 1,000
            digits, or a mapping has a key twice.
        yaml.YAMLError: It is not YAML.
    """
    if len(text) > MAX_CHARACTERS:
        raise RefusedYAMLError(f"it has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are read")
    sizes: dict[str, tuple[int, int]] = {}
    open_nodes: list[_Node] = [_Node(None)]
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            if any(node.anchor == event.anchor for node in open_nodes):
                raise RefusedYAMLError(f"it has an anchor that holds itself, {event.anchor!r}; write the value out")
            open_nodes[-1].add(*sizes.get(event.anchor or "", (1, 1)))
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > _MAX_DIGITS and re.fullmatch(r"[+-]?\d[\w:.]*", event.value):
                raise RefusedYAMLError(f"it has a number of {len(event.value)} digits")
            open_nodes[-1].note_key(event)
            open_nodes[-1].add(1, 1)
            sizes[event.anchor or ""] = 1, 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(_Node(event.anchor, isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.CollectionEndEvent):
            node = open_nodes.pop()
            sizes[node.anchor or ""] = node.size, node.depth
            open_nodes[-1].add(node.size, node.depth)
        if len(open_nodes) > MAX_DEPTH or open_nodes[-1].size > MAX_NODES or open_nodes[-1].depth > MAX_DEPTH:
            raise RefusedYAMLError(
                f"with its aliases it holds more than {MAX_NODES:,} values, or nests them more than {MAX_DEPTH} deep"
            )


def read_yaml(text: str) -> Any:
    """Build the plain values of a text once it is judged; raises as ``judge_yaml`` does."""
    judge_yaml(text)
    try:
        return yaml.safe_load(text)
    except UNREADABLE as error:
        raise RefusedYAMLError(f"one of its values cannot be read: {error}") from error


class _Node:
    """A mapping or list whose end has not come yet."""

    def __init__(self, anchor: str | None, mapping: bool = False) -> None:
        self.anchor = anchor
        self.mapping = mapping
        self.size = 1
        self.depth = 1
        self._parts = 0
        self._key_lines: dict[str, int] = {}

    def note_key(self, event: yaml.ScalarEvent) -> None:
        """Refuse a key of a mapping that was there before."""
        if not self.mapping or self._parts % 2 or event.value == "<<":
            return
        line = event.start_mark.line + 1 if event.start_mark else 0
        if event.value in self._key_lines:
            first = self._key_lines[event.value]
            raise RefusedYAMLError(f"it has {event.value!r} twice, at lines {first} and {line}; keep one")
        self._key_lines[event.value] = line

    def add(self, size: int, depth: int) -> None:
        self._parts += 1
        self.size += size
        self.depth = max(self.depth, depth + 1)
