"""What a server answered, read into completions; anything else than an answer is a fault with a name."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from medvol.core.types import Completion
from medvol.grounding.grammar import MAX_CHARACTERS
from medvol.policies.endpoint_parts.fault import RequestFaultError, find_message, quote, shorten

_NO_CHAT = "check that policy.url is the base address of an OpenAI chat server"
_TAG = re.compile("</?(think|answer)>")
_NO_ANSWER = "ask otherwise, or choose another policy.model"


def read_choices(payload: object, n: int) -> list[Completion]:
    """Completions of an answer, at least one and at most ``n``.

    Log-probabilities are those of the server; it gives no token ids, which are -1 then. A letter that is half of a pair
    becomes a question mark.

    Raises:
        RequestFaultError: It holds no choice, or one that is a refusal, empty, or no text.
    """
    choices = payload.get("choices") if isinstance(payload, dict) else None
    if not isinstance(choices, list):
        words = shorten(find_message(payload))
        raise RequestFaultError(f"answered without choices{quote(words)}", _NO_CHAT)
    if not choices:
        raise RequestFaultError("answered with too few choices: none", _NO_ANSWER)
    return [_read_choice(choice) for choice in choices[:n]]


def is_cut(payload: object) -> bool:
    """True when the server ended an answer before its answer block did, for want of tokens."""
    choices = payload.get("choices") if isinstance(payload, dict) else None
    return any(
        choice.get("finish_reason") == "length" and "</answer>" not in str(choice.get("message"))
        for choice in (choices if isinstance(choices, list) else ())
        if isinstance(choice, dict)
    )


def _read_choice(choice: object) -> Completion:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise RequestFaultError("answered with a choice that has no message", _NO_CHAT)
    finish = shorten(str(choice.get("finish_reason")))
    content, refusal = message.get("content"), message.get("refusal")
    if refusal or finish == "content_filter":
        said = refusal if isinstance(refusal, str) else ""
        raise RequestFaultError(f"refused to answer (finish_reason {finish}){quote(shorten(said))}", _NO_ANSWER)
    if content is None or content == "" or (isinstance(content, str) and not content.strip()):
        raise RequestFaultError(
            f"gave an empty answer (finish_reason {finish})",
            "raise policy.max_new_tokens, which a model that reasons first may use up, or choose another policy.model",
        )
    if not isinstance(content, str):
        raise RequestFaultError(f"gave an answer of the type {type(content).__name__}, which is no text", _NO_CHAT)
    log_probs = _read_log_probs(choice.get("logprobs"))
    text = _restore_think(message, content).encode(errors="replace").decode()
    if log_probs is None:
        return Completion(text)
    return Completion(text, np.full(len(log_probs), -1, np.int64), np.array(log_probs, np.float32))


def _restore_think(message: dict[str, Any], content: str) -> str:
    """What the model wrote, where the server took the think block out of it and gives it apart.

    One that drafts answers, or that makes the text longer than any answer, is left out.
    """
    thought = next((message[name] for name in ("reasoning_content", "reasoning") if message.get(name)), None)
    if not isinstance(thought, str) or _TAG.search(thought) or "<think>" in content:
        return content
    text = f"<think>{thought}</think>{content}"
    return text if len(text) <= MAX_CHARACTERS else content


def _read_log_probs(logprobs: object) -> list[float] | None:
    """One log-probability a token; None where there are none, or one is no number <= 0."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list) or not tokens:
        return None
    values = [token.get("logprob") if isinstance(token, dict) else None for token in tokens]
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    fine = len(numbers) == len(values) and all(math.isfinite(number) and number <= 0 for number in numbers)
    return numbers if fine else None
