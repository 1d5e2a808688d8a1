"""Signals that ask a fit to stop, and when it does: between two batches, where a run can go on without a trace."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import NoReturn

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTICE = b"\nmedvol: stopping at the end of this step; a second signal stops at once\n"


class StopSignals:
    """SIGINT and SIGTERM during a fit: the first waits until it is asked for, a second acts at once.

    A handler that raises would do so anywhere: in the middle of a step, of a file, or where the exception is lost.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def watch(self) -> None:
        """Note signals from now on; Lightning gives the former handlers back when the fit is over.

        A signal that the process was started to ignore stays ignored. Outside the main thread there are no signals.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def asked(self, trainer: Trainer) -> bool:
        """Whether any rank was asked to stop; every rank must ask."""
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def act(self) -> NoReturn:
        """Leave the fit.

        Raises:
            KeyboardInterrupt: After SIGINT.
            SIGTERMException: After SIGTERM, or when it was another rank that was asked.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SIGTERMException

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received is not None, number
        if again:
            self.act()
        os.write(2, _NOTICE)  # print could meet itself here


def leave_stops_to_main(worker: int) -> None:
    """Ignore the signals in a process that prepares cases: a terminal sends them to all, and the main one decides."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
