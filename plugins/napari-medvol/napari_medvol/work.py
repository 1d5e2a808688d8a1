"""Work in a thread of napari, one at a time, with a bar and a button that cancels it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from threading import Event
from typing import Any

from napari.qt.threading import thread_worker
from napari.utils.notifications import show_error
from qtpy.compat import isalive
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QWidget

from napari_medvol.interface.client import ClientError, ConflictError, Progress, Result, Steps

_PARTS = 1000


class WorkBar(QWidget):
    """Shows how far a work is, and cancels it.

    Args:
        busy: Called with True when a work begins and False when it ends.
    """

    def __init__(self, busy: Callable[[bool], None]) -> None:
        super().__init__()
        self._busy = busy
        self._stop: Event | None = None
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.text = QLabel()
        self.cancel = QPushButton("Cancel")
        self.cancel.clicked.connect(self.stop)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for part in (self.text, self.bar, self.cancel):
            row.addWidget(part)
        self.hide()

    @property
    def working(self) -> bool:
        """Whether something is done now."""
        return self._stop is not None

    def do(self, steps: Steps[Result], then: Callable[[Result], None]) -> None:
        """Do steps in a thread and hand the result to ``then``; an error is shown as one sentence.

        Args:
            steps: What is done.
            then: Called in napari's own thread with the result; not when the work was cancelled or failed.
        """
        if self.working:
            steps.close()
            show_error("medvol is at work; wait for it, or cancel it")
            return
        stop = self._stop = Event()
        worker = _advance(steps, stop)
        worker.yielded.connect(self._show)

        def end(outcome: _Outcome | None) -> None:
            self._stop = None
            if not isalive(self):  # the widget was closed meanwhile
                return
            self.hide()
            self._busy(False)
            if outcome is None:
                return
            if outcome.problem is not None:
                show_error(outcome.problem)
            else:
                then(outcome.result)

        worker.returned.connect(end)
        worker.errored.connect(lambda _: end(None))
        self._busy(True)
        self._show(Progress(""))
        self.show()
        worker.start()

    def stop(self) -> None:
        """Cancel what is done; the server is told."""
        if self._stop is not None:
            self._stop.set()
        if self.working and isalive(self):
            self.text.setText("cancelling")

    def _show(self, progress: Progress) -> None:
        if self._stop is None or not isalive(self):
            return
        if not self._stop.is_set():
            self.text.setText(progress.text)
        self.bar.setRange(0, 0 if progress.share is None else _PARTS)
        self.bar.setValue(0 if progress.share is None else round(progress.share * _PARTS))


class _Outcome:
    def __init__(self, result: Any = None, problem: str | None = None) -> None:
        self.result = result
        self.problem = problem


@thread_worker
def _advance(steps: Steps[Any], stop: Event) -> Generator[Progress, None, _Outcome | None]:
    """What came of the steps; None when they were cancelled."""
    while not stop.is_set():
        try:
            progress = next(steps)
        except StopIteration as end:
            return _Outcome(end.value)
        except ConflictError as error:
            return _Outcome(problem=f"{error} (open the answer again)")
        except ClientError as error:
            return _Outcome(problem=str(error))
        yield progress
    steps.close()
    return None
