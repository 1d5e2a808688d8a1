"""Asker: lets a server answer prompts, several at once, and tries again where that may help."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from medvol.core.errors import PolicyError
from medvol.core.notices import tell_once
from medvol.core.prompts import Prompt
from medvol.core.types import Completion, Sampling
from medvol.policies.endpoint_parts.apart import run_together
from medvol.policies.endpoint_parts.choices import is_cut, read_choices
from medvol.policies.endpoint_parts.dialect import REFUSING, Dialect
from medvol.policies.endpoint_parts.fault import RequestFaultError
from medvol.policies.endpoint_parts.messages import draw_images, write_messages
from medvol.policies.endpoint_parts.settings import RequestSettings
from medvol.policies.endpoint_parts.spending import BoundReachedError, Spending

if TYPE_CHECKING:
    from medvol.policies.endpoint_parts.connection import Connection

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_ANSWER_BYTES, _TOKEN_BYTES = 2**20, 2**10
"""Most bytes of an answer: those of any, and those of each token with its log-probability."""

Pause = Callable[[float], Awaitable[None]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Question:
    """What a prompt asks, and until when: a time of the running loop."""

    messages: bytes
    sampling: Sampling
    deadline_s: float


class Asker:
    """Asks one model of one server.

    Args:
        connection: To the server.
        model: Name under which it serves the model.
        settings: How it is asked.
        spending: Counts, and stops the run at a bound.
        dialect: What is known of the server; learns.
        pause: Waits some seconds.
    """

    def __init__(
        self,
        connection: Connection,
        model: str,
        settings: RequestSettings,
        spending: Spending,
        dialect: Dialect,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._connection = connection
        self._model = model
        self._settings = settings
        self._spending = spending
        self._dialect = dialect
        self._pause = pause
        self._turns = asyncio.Semaphore(settings.concurrency)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._images: dict[int, list[str]] = {}
        self._jitter = random.Random()  # of its own: the run's draws stay as they are

    async def ask(self, prompt: Prompt, n: int, sampling: Sampling) -> list[Completion] | PolicyError:
        """``n`` completions of a prompt, or why there are none; greedy ones are asked for once.

        Raises:
            ConfigError: Tokens are bounded, and the server does not count them.
        """
        limit = self._settings.case_timeout_s
        async with self._turns:
            try:
                async with asyncio.timeout(limit):
                    deadline = asyncio.get_running_loop().time() + limit
                    question = _Question(self._write(prompt), sampling, deadline)
                    if sampling.temperature > 0:
                        return await self._draw(question, n)
                    return await self._request(question, 1, sampling.seed) * n
            except BoundReachedError as bound:
                sentence = str(bound)
            except RequestFaultError as fault:
                sentence = f"{self._connection.url} {fault}"
            except TimeoutError:
                self._dialect.there = False
                sentence = (
                    f"{self._connection.url} did not answer the question within {limit:g} s, all tries included; raise "
                    "policy.requests.case_timeout_s"
                )
        return PolicyError(self._connection.key.hide(sentence))

    def _write(self, prompt: Prompt) -> bytes:
        key = id(prompt.slices)
        if key not in self._images:
            self._images[key] = draw_images(prompt.slices)
        return write_messages(prompt, self._images[key])

    async def _draw(self, question: _Question, n: int) -> list[Completion]:
        """Ask for ``n`` at once; for each that is missing, alone and with a seed of its own."""
        seed, drawn = question.sampling.seed, list[Completion]()
        if self._dialect.several:
            try:
                drawn = await self._request(question, n, seed)
            except RequestFaultError as fault:
                if n == 1 or fault.status not in REFUSING:
                    raise
        alone = await run_together(self._request(question, 1, seed + i) for i in range(len(drawn), n))
        if alone and self._dialect.several:
            self._dialect.several = False
            log.info("the server gave %d of %d choices, and is asked for each alone from here on", len(drawn), n)
        return [*drawn, *(completion for (completion,) in alone)]

    async def _request(self, question: _Question, n: int, seed: int) -> list[Completion]:
        """One request, in the server's dialect."""
        fields = self._dialect.write(self._model, question.sampling, seed, n)
        body = b'{"messages": ' + question.messages + b", " + json.dumps(fields).encode()[1:]
        limit = _ANSWER_BYTES + n * question.sampling.max_new_tokens * _TOKEN_BYTES
        try:
            payload = await self._send(body, limit, question.deadline_s)
        except RequestFaultError as fault:
            if not self._dialect.learn(fault, fields):
                raise
            return await self._request(question, n, seed)
        if is_cut(payload):
            tell_once(
                f"{self._connection.url} cut an answer at {question.sampling.max_new_tokens} tokens (finish_reason "
                "length); raise policy.max_new_tokens, which a model that reasons first may use up"
            )
        hide = self._connection.key.hide
        return [replace(said, text=hide(said.text)) for said in read_choices(payload, n)]

    async def _send(self, body: bytes, limit: int, deadline_s: float) -> Any:
        """Send a request, again where that may help, with growing pauses between.

        A server that left a question without any answer, all tries included, is tried once for each further question,
        until it answers again.
        """
        tries, retries = 0, self._settings.retries if self._dialect.there else 0
        while True:
            tries += 1
            try:
                async with self._slots:
                    self._spending.begin()
                    payload = await self._connection.post(body, limit)
            except RequestFaultError as fault:
                if not fault.again:
                    raise fault.after(tries) from None
                wait = max(self._choose_pause(tries), fault.wait_s or 0.0)
                late = asyncio.get_running_loop().time() + wait > deadline_s
                if tries > retries or late:
                    self._dialect.there = fault.status != 0
                    more = f", and another try is {wait:.0f} s away, too late for this question"
                    raise fault.after(tries, "" if tries > retries else more) from None
                await self._pause(wait)
            else:
                self._dialect.there = True
                self._spending.add(payload.get("usage") if isinstance(payload, dict) else None)
                return payload

    def _choose_pause(self, tries: int) -> float:
        """Seconds before another try: doubled with each, and by chance up to a half less."""
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (tries - 1)) * self._jitter.uniform(0.5, 1.0)
