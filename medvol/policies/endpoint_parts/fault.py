"""What can go wrong with one request, in words, and whether another try may help."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus

from medvol.core.json_file import parse_json
from medvol.core.visible_text import show

_LONGEST = 300
"""Letters of a server's own words that are shown."""

_AGAIN = {408, 409, 425, 429}
"""Statuses that may pass, besides those of a server that fails (500 and above)."""

_REMEDIES = {
    400: "check policy.model, and draw fewer or smaller slices (policy.template) if the prompt is too long",
    401: "put a key of this server into the environment variable {variable} (policy.key_variable)",
    403: "the key in {variable} may not use this model: choose another key or policy.model",
    404: "check policy.url, which mostly ends in /v1, and policy.model",
    413: "draw fewer or smaller slices (policy.template)",
    422: "check policy.model, and draw fewer or smaller slices (policy.template) if the prompt is too long",
    429: "lower policy.requests.concurrency, or ask later",
}
_SERVER_FAILS = "look into the server's own log, or ask later"
_OTHER = "check policy.url and policy.model"


class RequestFaultError(Exception):
    """A request that brought no answer.

    Args:
        what: What happened, to follow the server's address.
        remedy: What to do.
        status: Status of the answer; 0 where there was none.
        words: The server's own words, bounded and visible; empty where there were none.
        again: True when another try may help.
        wait_s: Seconds that the server asks to wait before it; None when it does not say.
    """

    def __init__(
        self, what: str, remedy: str, status: int = 0, words: str = "", again: bool = False, wait_s: float | None = None
    ) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy
        self.status = status
        self.words = words
        self.again = again
        self.wait_s = wait_s

    def after(self, tries: int, more: str = "") -> RequestFaultError:
        """The same fault, saying how often it was met."""
        often = f" (tried {tries} times)" if tries > 1 else ""
        return RequestFaultError(f"{self.what}{often}{more}", self.remedy, self.status, self.words)


def refuse_status(status: int, words: str, variable: str, wait_s: float | None) -> RequestFaultError:
    """The fault of an answer that is no success.

    Args:
        status: Its status.
        words: From ``read_words``.
        variable: Environment variable of the key.
        wait_s: Seconds that the server asks to wait; None when it does not say.
    """
    fails = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    remedy = _REMEDIES.get(status, _SERVER_FAILS if fails else _OTHER).format(variable=variable)
    return RequestFaultError(
        f"answered {name_status(status)}{quote(words)}", remedy, status, words, fails or status in _AGAIN, wait_s
    )


def name_status(status: int) -> str:
    """``429 (Too Many Requests)``; a number that is no status of HTTP stays alone."""
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return str(status)


def read_words(text: str) -> str:
    """A server's own words about a fault: the message in its JSON, else its text; one bounded line, controls shown."""
    with suppress(ValueError):
        text = find_message(parse_json(text)) or text
    return shorten(text)


def find_message(value: object) -> str:
    """The message in the JSON of an error; empty when there is none in a usual place."""
    while isinstance(value, dict):
        value = next((value[key] for key in ("error", "message", "detail") if value.get(key)), None)
    return "" if value is None else str(value)


def shorten(text: str) -> str:
    """Text of a stranger as one bounded line with its controls shown."""
    line = show(" ".join(text[: 4 * _LONGEST].split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def quote(words: str) -> str:
    """Words to follow a sentence; nothing where there are none."""
    return f': "{words}"' if words else ""
