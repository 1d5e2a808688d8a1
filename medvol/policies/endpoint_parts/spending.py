"""Spending: what a run asked of a server so far, and the bounds beyond which it asks no more."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from medvol.core.errors import ConfigError
from medvol.policies.endpoint_parts.settings import RequestSettings

log = logging.getLogger(__name__)


class BoundReachedError(Exception):
    """A bound of the run is reached; the question that was to be asked fails."""


class Spending:
    """Counts requests, tokens and time of a run.

    Args:
        settings: Where the bounds are.
        clock: Seconds that only ever grow.
    """

    def __init__(self, settings: RequestSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._begun_s: float | None = None
        self._told = False
        self.requests = 0
        self.tokens = 0

    def begin(self) -> None:
        """Count a request that is about to be sent.

        Raises:
            BoundReachedError: A bound is reached.
        """
        now_s = self._clock()
        self._begun_s = now_s if self._begun_s is None else self._begun_s
        bounds: dict[str, tuple[float, float | None]] = {
            "max_requests": (self.requests, self._settings.max_requests),
            "max_tokens": (self.tokens, self._settings.max_tokens),
            "max_time_s": (now_s - self._begun_s, self._settings.max_time_s),
        }
        for name, (spent, bound) in bounds.items():
            if bound is not None and spent >= bound:
                self._stop(f"policy.requests.{name} is {bound:g} and is reached")
        self.requests += 1

    def _stop(self, sentence: str) -> None:
        """Refuse a request; the first time also say what that means for the run."""
        if not self._told:
            self._told = True
            log.warning(
                "%s, with %d requests and %d tokens: nothing more is asked, and further questions count as failed",
                sentence,
                self.requests,
                self.tokens,
            )
        raise BoundReachedError(f"{sentence}; raise it, or ask less")

    def add(self, usage: object) -> None:
        """Count the tokens of an answer.

        Args:
            usage: What the server said: ``prompt_tokens`` and ``completion_tokens``, or ``total_tokens``.

        Raises:
            ConfigError: Tokens are bounded, and the server does not count them.
        """
        counts = usage if isinstance(usage, dict) else {}
        parts = [counts.get(name) for name in ("prompt_tokens", "completion_tokens")]
        whole = [counts.get("total_tokens")]
        known = next((row for row in (whole, parts) if all(type(part) is int and part >= 0 for part in row)), None)
        if known is not None:
            self.tokens += sum(part for part in known if part is not None)
        elif self._settings.max_tokens is not None:
            raise ConfigError(
                f"policy.requests.max_tokens is {self._settings.max_tokens}, and the server does not say how many "
                "tokens an answer takes; leave it out, and bound max_requests"
            )
