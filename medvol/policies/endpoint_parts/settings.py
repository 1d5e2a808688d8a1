"""RequestSettings: how a server is asked, and until when."""

from __future__ import annotations

from dataclasses import dataclass

from medvol.core.ranges import require_least, require_whole


@dataclass(frozen=True)
class RequestSettings:
    """How a server is asked, and until when: beyond a bound of the run every further question fails and is counted.

    Args:
        concurrency: Requests under way at once.
        timeout_s: Longest time for one request, until its whole answer is there.
        case_timeout_s: Longest time for one question, from its turn to its last sample, all tries and pauses included.
        retries: Further tries of a request that the network or the server failed on.
        max_requests: Requests that a run may send, further tries included; None for no bound.
        max_tokens: Tokens of prompts and answers that a run may use, as the server counts them; None for no bound.
            Answers under way when it is reached may go beyond it.
        max_time_s: Time from a run's first request in which further ones are sent; None for no bound. Answers under way
            are waited for.
    """

    concurrency: int = 4
    timeout_s: float = 300.0
    case_timeout_s: float = 900.0
    retries: int = 4
    max_requests: int | None = None
    max_tokens: int | None = None
    max_time_s: float | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: One is below its limit.
        """
        require_whole(1, "requests", concurrency=self.concurrency)
        require_whole(1, "requests", max_requests=self.max_requests, max_tokens=self.max_tokens)
        require_least(0.1, "requests", timeout_s=self.timeout_s, case_timeout_s=self.case_timeout_s)
        require_least(0.1, "requests", max_time_s=self.max_time_s)
        require_whole(0, "requests", retries=self.retries)
