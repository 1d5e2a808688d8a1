"""Spending: what a run asked of a server so far, and the bounds at which it stops."""

from __future__ import annotations

from medvol.core.errors import ConfigError


class Spending:
    """Counts requests and tokens of a run.

    Args:
        max_requests: Requests that may be sent; None for no bound.
        max_tokens: Tokens that may be used; None for no bound.
    """

    def __init__(self, max_requests: int | None, max_tokens: int | None) -> None:
        self.max_requests = max_requests
        self.max_tokens = max_tokens
        self.requests = 0
        self.tokens = 0

    def begin(self) -> None:
        """Count a request that is about to be sent.

        Raises:
            ConfigError: A bound is reached, so the run stops.
        """
        for name, spent, bound in (
            ("max_requests", self.requests, self.max_requests),
            ("max_tokens", self.tokens, self.max_tokens),
        ):
            if bound is not None and spent >= bound:
                raise ConfigError(
                    f"policy.requests.{name} is {bound}, and the run has sent {self.requests} requests and used "
                    f"{self.tokens} tokens; raise it, or ask less"
                )
        self.requests += 1

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
        elif self.max_tokens is not None:
            raise ConfigError(
                f"policy.requests.max_tokens is {self.max_tokens}, and the server does not say how many tokens an "
                "answer takes; leave it out, and bound max_requests"
            )
