"""Rewording training queries, so that a policy trained on a few phrasings listens to words and not to sentences."""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from medvol.core.types import Query
from medvol.core.words import split_words
from medvol.queries.directions import DIRECTIONS

KEPT_WORDS = frozenset(
    {"both", "two", "pair", "paired", "kidneys", "organs"}
    | {"no", "not", "without", "with", "free", "healthy", "normal", "unaffected", "affected", "diseased", "abnormal"}
    | {"lesion", "mass", "growth", "finding", "focal", "tumour", "cyst"}
    | {"opposite", "nearest", "closest", "spleen", "liver"}
    | {"larger", "largest", "biggest", "bigger", "greatest", "greater", "dominant", "bulkiest"}
    | {"smaller", "smallest", "tiniest", "least", "lesser", "minute"}
    | {word for words in DIRECTIONS.values() for word in words if word not in ("side", "sides")}
)
"""Words that decide what is asked for; they are never dropped, nor is what they are a part of (``left-sided``)."""

FILLERS = frozenset(
    {"the", "a", "an", "of", "in", "on", "at", "to", "by", "and", "or", "that", "which", "where", "its", "it", "is"}
    | {"this", "there", "one", "whole", "show", "find", "patient", "scan", "image", "side", "any", "also", "visible"}
)
"""Words that say nothing of what is asked for."""

CARRIERS = ("", "", "find", "segment", "locate", "please outline", "where is", "show me")
"""What people type before the thing they ask for."""


def reword_query(query: Query, rng: np.random.Generator, share: float, word_dropout: float = 0.25) -> str:
    """Drop words from the text of a query, and put a carrier phrase before it.

    What decides is never dropped: words that name the target or what it means in the scan, and ``KEPT_WORDS``. A text
    that describes its target without its name keeps at least half of the words that describe it. Where the target is
    not known, only ``FILLERS`` go.

    Args:
        query: The query; its text is reworded.
        rng: Source of the draws.
        share: Probability that words are dropped at all; 0 leaves the query as it is.
        word_dropout: Probability for each word that may go.
    """
    if share == 0:
        return query.text
    words = query.text.split()
    if rng.random() < share:
        words = _drop(words, _naming_words(query), bool(query.target), rng, word_dropout)
    carrier = CARRIERS[rng.integers(len(CARRIERS))]
    return " ".join([*carrier.split(), *words])


def _drop(words: list[str], naming: Set[str], known: bool, rng: np.random.Generator, word_dropout: float) -> list[str]:
    """The words without some of those that may go; as they are where too few would say what is asked for."""
    named = any(_holds(word, naming) for word in words)
    left = [word for word in words if _holds(word, KEPT_WORDS) or _holds(word, naming) or rng.random() > word_dropout]
    if not named:
        telling = sum(map(_tells, words))
        least = (telling + 1) // 2 if known else telling
        if sum(map(_tells, left)) < least:
            left = [word for word in words if word in left or _tells(word)]
    return left or words


def _naming_words(query: Query) -> frozenset[str]:
    """Words that name what is asked for, each as one and as many."""
    words = {word for word in split_words(f"{query.target} {query.meaning}") if word not in FILLERS}
    return frozenset(form for word in words for form in (word, f"{word}s", word.removesuffix("s")))


def _tells(word: str) -> bool:
    """True for a word that says something of what is asked for."""
    return any(part not in FILLERS for part in split_words(word))


def _holds(word: str, kept: Set[str]) -> bool:
    """True when a word, or a part of it between signs, is one of these."""
    return not kept.isdisjoint(split_words(word))
