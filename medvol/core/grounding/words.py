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
    open_word = False
    for letter in _fold(text):
        kind = unicodedata.category(letter)
        if kind == "Cf":  # soft hyphens and joiners, which nobody sees
            continue
        alone = kind == "Lo" and unicodedata.name(letter, "").startswith(_SIGNS)
        if kind[0] not in "LMN" or (kind[0] == "M" and not words):
            open_word = False
        elif alone or not (open_word or kind[0] == "M"):
            words.append(letter)
            open_word = not alone
        else:
            words[-1] += letter
    return [word[:MAX_LETTERS] for word in words]


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
