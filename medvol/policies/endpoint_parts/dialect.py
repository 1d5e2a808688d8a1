"""Dialect: what a server was found to take of the chat protocol, and whether it is there."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medvol.core.types import Sampling
from medvol.policies.endpoint_parts.fault import RequestFaultError

REFUSING = (400, 403, 422)
"""Statuses with which servers refuse a field of a request."""

_OPTIONAL = ("logprobs", "seed")
_OLD_LENGTH, _NEW_LENGTH = "max_tokens", "max_completion_tokens"

log = logging.getLogger(__name__)


@dataclass
class Dialect:
    """What a server was found to take.

    Args:
        several: It gives several choices to one request.
        length: Its name for the most tokens of an answer.
        dropped: Fields that it refuses, and that an answer can do without.
        there: It did not leave the last question without an answer of any kind.
    """

    several: bool = True
    length: str = _OLD_LENGTH
    dropped: set[str] = field(default_factory=set)
    there: bool = True

    def write(self, model: str, sampling: Sampling, seed: int, n: int) -> dict[str, Any]:
        """All of a request but its messages."""
        fields = {
            "model": model,
            "temperature": sampling.temperature,
            self.length: sampling.max_new_tokens,
            "seed": seed,
            "logprobs": True,
            **({"n": n} if n > 1 else {}),
        }
        return {name: value for name, value in fields.items() if name not in self.dropped}

    def learn(self, fault: RequestFaultError, sent: Mapping[str, Any]) -> bool:
        """Adapt to a refusal that names a field; False when it names none that was sent and can change."""
        if fault.status not in REFUSING:
            return False
        if _OLD_LENGTH in sent and _names(fault.words, _NEW_LENGTH):
            self.length = _NEW_LENGTH
            return True
        refused = {name for name in _OPTIONAL if name in sent and _names(fault.words, name)}
        for name in sorted(refused - self.dropped):
            log.warning("the server refuses %r, and is asked without it from here on", name)
        self.dropped |= refused
        return bool(refused)


def _names(words: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", words) is not None
