"""Asking in known words: a query with words that training never met is asked in the known phrasing nearest in meaning.

A sentence encoder compares the query with the training phrasings of the whole query bank. They vote for their targets,
near ones more than far ones. When the policy was taught the target that wins, the nearest of its phrasings of which the
policy knows every word is asked. A policy that knows less than half of the phrasings of a target was not taught it, and
the query is asked as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import torch

from medvol.core.last_used import LastUsed
from medvol.core.own_precision import own_precision
from medvol.core.words import split_words
from medvol.policies.sentence_encoder import SentenceEncoder
from medvol.queries.query_bank import QueryBank

log = logging.getLogger(__name__)

SHARPNESS = 10.0
"""A phrasing whose cosine is 0.1 lower has 1/e of the vote; between 10 and 30 it hardly matters."""

_TAUGHT = 0.5
"""Share of a target's phrasings that a policy knows when it was taught the target; words of others make up a few."""

_KEPT = 4096


class KnownPhrasings:
    """Says queries in words that a policy knows.

    Args:
        encoder: Compares sentences by their meaning.
        bank: Phrasings of everything that may be asked for, known to the policy or not.
        known: Words that the policy met in training; None takes all words of the bank's training phrasings.
    """

    def __init__(self, encoder: SentenceEncoder, bank: QueryBank, known: Collection[str] | None) -> None:
        queries = bank.training_queries()
        self.texts = [query.text for query in queries]
        self.known = {word for text in self.texts for word in split_words(text)} if known is None else {*known}
        self.targets = [query.target for query in queries]
        self._encoder = encoder
        self._vectors = encoder.read(self.texts)
        names = list(dict.fromkeys(self.targets))
        self._owners = torch.tensor([names.index(target) for target in self.targets])
        known_texts = torch.tensor([self.is_known(text) for text in self.texts])
        shares = torch.stack([known_texts[self._owners == i].float().mean() for i in range(len(names))])
        self._sayable = known_texts & (shares >= _TAUGHT)[self._owners]
        self._said: LastUsed[str] = LastUsed(_KEPT)

    def is_known(self, text: str) -> bool:
        """True when training met every word."""
        return all(word in self.known for word in split_words(text))

    def say(self, query: str) -> str:
        """The query, or the known phrasing that stands for it."""
        return query if self.is_known(query) else self._said.get(query, lambda: self._reword(query))

    @own_precision()
    def nearest(self, query: str) -> tuple[str, str | None]:
        """Target that a query means, and the nearest of its known phrasings; None when it was not taught."""
        cosines = self._vectors @ self._encoder.read([query])[0]
        votes = torch.zeros(len(self.texts)).index_add(0, self._owners, (SHARPNESS * cosines).exp())
        own = self._owners == votes.argmax()
        target = self.targets[int(own.nonzero()[0])]
        sayable = own & self._sayable
        if not sayable.any():
            return target, None
        return target, self.texts[int(cosines.where(sayable, -torch.inf).argmax())]

    def _reword(self, query: str) -> str:
        target, text = self.nearest(query)
        if text is None:
            log.warning("%r seems to mean %s, which the policy was not taught; it is asked as it is", query, target)
            return query
        log.warning("training did not meet all words of %r; it is asked as %r", query, text)
        return text
