"""YAML text from anywhere, judged before it is built: its length, its depth, its size once aliases are followed."""

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
    """The text is YAML, and building it would take too long, too much memory, or never end."""


def judge_yaml(text: str) -> None:
    """Go through the events of a text once, without building anything.

    Raises:
        RefusedYAMLError: It is too long, too deep or too large, an anchor holds itself, or a number has more than 1,000
            digits.
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
            open_nodes[-1].add(1, 1)
            sizes[event.anchor or ""] = 1, 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(_Node(event.anchor))
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

    def __init__(self, anchor: str | None) -> None:
        self.anchor = anchor
        self.size = 1
        self.depth = 1

    def add(self, size: int, depth: int) -> None:
        self.size += size
        self.depth = max(self.depth, depth + 1)
