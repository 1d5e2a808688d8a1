"""The words of a query, in any script, so that those which training never met can be named."""

from __future__ import annotations

import unicodedata

MAX_LETTERS = 64
"""A longer word is cut; both sides of a comparison are."""

_SIGNS = ("CJK ", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts that put no spaces between words, by the start of their letters' names: every letter counts as a word."""


def split_words(text: str) -> list[str]:
    """Words of a text in order: runs of letters, marks and digits, case-folded and in Unicode's compatible form.

    Letters of scripts without spaces stand alone, with the marks that follow them.
    """
    words: list[str] = []
    is_open, has_letter = False, False
    for letter in _fold(text):
        kind = unicodedata.category(letter)[0]
        if kind == "M":
            if has_letter:
                words[-1] += letter
            continue
        if kind not in "LN":
            is_open, has_letter = False, False
            continue
        alone = unicodedata.name(letter, "").startswith(_SIGNS)
        if is_open and not alone:
            words[-1] += letter
        else:
            words.append(letter)
        is_open, has_letter = not alone, True
    return [word[:MAX_LETTERS] for word in words]


def _fold(text: str) -> str:
    """Case-folded, in Unicode's compatible form, without soft hyphens and joiners, which nobody sees."""
    visible = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())
