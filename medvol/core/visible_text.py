"""Text of strangers for a terminal: what steers a terminal or reorders its letters is shown, not obeyed."""

from __future__ import annotations

import unicodedata

_SHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Controls, formats such as the marks of direction, halves of a pair, and separators of lines and paragraphs."""

_UNSEEN = tuple(category for category in _SHOWN if category != "Cs")

_JOINERS = "\u200c\u200d"
"""Some scripts are not spelt right without them."""


def show(text: object, keep: str = "") -> str:
    r"""A text with its control characters written out, such as ``\x1b`` for the escape.

    Args:
        text: Names, queries, messages: anything that was not written here.
        keep: Controls that stay, such as the line break between lines that were laid out here.
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_show_letter(letter, keep) for letter in text)


def quote(text: str, most: int = 120) -> str:
    """A text in quotes as Python writes it, and no more than so many letters of it."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}..."


def is_blank(text: str) -> bool:
    """True for a text in which nothing can be seen: spaces, controls, marks without width."""
    return all(letter.isspace() or letter in _JOINERS or unicodedata.category(letter) in _UNSEEN for letter in text)


def _show_letter(letter: str, keep: str) -> str:
    if letter in keep or letter in _JOINERS or unicodedata.category(letter) not in _SHOWN:
        return letter
    return letter.encode("unicode_escape").decode()
