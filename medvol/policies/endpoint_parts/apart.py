"""Runs what waits for a server in a thread of its own, so that it works in a notebook too, and a stop acts at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_apart(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run a coroutine to its end; what interrupts the caller, such as Ctrl-C, cancels it."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def run() -> Result:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await work()

    with ThreadPoolExecutor(1, "medvol-endpoint") as pool:
        done = pool.submit(lambda: asyncio.run(run()))
        try:
            return done.result()
        except BaseException:
            if not done.done():
                loop, task = started.result()
                with suppress(RuntimeError):  # the loop has just ended
                    loop.call_soon_threadsafe(task.cancel)
            raise


async def run_together(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run coroutines side by side; the first that raises ends the others, and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
