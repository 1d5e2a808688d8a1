"""When one of several processes fails, the others wait for it; this ends them, and says what happened once."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch exports it without saying so

from medvol.core.errors import CASE_ERRORS, MedvolError, explain_os_error
from medvol.core.visible_text import show

_COUNT, _TEXT, _CODE = "medvol/faults", "medvol/fault_text", "medvol/fault_code"

_PACE_S = 0.3
"""Time between two looks."""

_NOTICE_S = 3 * _PACE_S
"""Time in which every process has looked."""

_PATIENCE_S = 15.0
"""A process that lost the first one may take so long to end by itself."""


class FaultWatch(Callback):
    """Ends all processes of a run when one of them fails; without it, the others would wait for minutes or for ever.

    The first process tells the fault, whichever failed, and ends with the exit code that the fault has.

    Args:
        clear_away: Called before a process is ended, which has a few seconds for it.
    """

    def __init__(self, clear_away: Callable[[], None]) -> None:
        self._clear_away = clear_away
        self._store: TCPStore | None = None
        self._is_first = True
        self._over = threading.Event()
        self._known = threading.Event()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to look, now that the processes have found one another."""
        self._connect(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look no more."""
        self._over.set()
        self._store = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the others; a stop that was asked for is no fault."""
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit | SIGTERMException)
        if stopped or not distributed.is_initialized():
            return
        text, code = describe_fault(exception)
        if not self._known.is_set():
            try:
                self._connect(trainer)  # where the data were refused, before any callback was set up
                if self._store is None:
                    return
                first = self._store.add(_COUNT, 1) == 1
                if first:
                    self._store.set(_CODE, str(code))
                    self._store.set(_TEXT, text)
            except RuntimeError:  # the first process is gone
                os._exit(code)
            if first and self._is_first:
                self._over.set()  # the exception is told on its way out
                time.sleep(_NOTICE_S)
                return
        time.sleep(_PATIENCE_S)  # the watch ends this process
        os._exit(code)

    def _connect(self, trainer: Trainer) -> None:
        place = getattr(trainer.strategy, "cluster_environment", None)
        forked = isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)  # it ends its processes itself
        if trainer.world_size == 1 or self._store is not None or forked or place is None:
            return
        self._is_first = trainer.is_global_zero
        self._store = TCPStore(place.main_address, place.main_port, timeout=timedelta(seconds=_PATIENCE_S))
        self._over.clear()
        self._known.clear()
        threading.Thread(target=self._watch, args=(self._store,), name="medvol-fault-watch", daemon=True).start()

    def _watch(self, store: TCPStore) -> None:
        while not self._over.wait(_PACE_S):
            try:
                if not store.check([_TEXT]):
                    continue
                self._known.set()
                text, code = store.get(_TEXT).decode(), int(store.get(_CODE))
            except RuntimeError:  # the first process is gone
                if not self._over.wait(_PATIENCE_S):
                    os._exit(1)
                return
            if self._is_first and not self._over.is_set():
                print(text, file=sys.stderr, flush=True)
            sys.stdout.flush()
            clearing = threading.Thread(target=self._clear_away, name="medvol-clear-away", daemon=True)
            clearing.start()
            # The launcher kills the first process when another one ends before it, and those wait for words of it.
            time.sleep(_NOTICE_S if self._is_first else 4 * _NOTICE_S)
            clearing.join(2 * _NOTICE_S)
            os._exit(code)


def describe_fault(error: BaseException) -> tuple[str, int]:
    """What the command line would say of an error, and its exit code."""
    if isinstance(error, MedvolError):
        return f"medvol: {show(' '.join(str(error).split()))}", 1 if isinstance(error, CASE_ERRORS) else 2
    if isinstance(error, OSError):
        return f"medvol: {explain_os_error(error)}", 2
    return "".join(traceback.format_exception(error)).rstrip(), 1
