"""Rewording training queries, so that a policy trained on a few phrasings listens to words and not to sentences."""

from __future__ import annotations

import numpy as np

from medvol.core.words import split_words

KEPT_WORDS = frozenset(
    {"left", "right", "both", "two", "pair", "paired", "kidneys", "organs"}
    | {"no", "not", "without", "with", "free", "healthy", "normal", "unaffected", "affected", "diseased", "abnormal"}
    | {"lesion", "mass", "growth", "finding", "focal", "tumour", "cyst"}
    | {"opposite", "nearest", "closest", "spleen", "liver"}
    | {"larger", "largest", "biggest", "bigger", "greatest", "greater", "dominant", "bulkiest"}
    | {"smaller", "smallest", "tiniest", "least", "lesser", "minute"}
    | {"upper", "uppermost", "topmost", "top", "higher", "highest", "above", "cranial", "head"}
    | {"lower", "lowest", "lowermost", "bottommost", "bottom", "below", "caudal", "feet"}
)
"""Words that decide what is asked for; they are never dropped, nor is what they are a part of (``left-sided``)."""

CARRIERS = ("", "", "find", "segment", "locate", "please outline", "where is", "show me")
"""What people type before the thing they ask for."""


def reword_query(text: str, rng: np.random.Generator, share: float, word_dropout: float = 0.25) -> str:
    """Drop words from a query, and put a carrier phrase before it.

    Args:
        text: The query.
        rng: Source of the draws.
        share: Probability that words are dropped at all; 0 leaves the query as it is.
        word_dropout: Probability for each word that may go.
    """
    if share == 0:
        return text
    words = text.split()
    if rng.random() < share:
        words = [word for word in words if _decides(word) or rng.random() > word_dropout] or words
    carrier = CARRIERS[rng.integers(len(CARRIERS))]
    return " ".join([*carrier.split(), *words])


def _decides(word: str) -> bool:
    """True when a word, or a part of it between signs, must stay."""
    return not KEPT_WORDS.isdisjoint(split_words(word))
