"""Progress of long work: what is told, when, and where."""

import io
import os
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from medvol.terminal.bars import Bars
from medvol.terminal.displays import Lines
from medvol.terminal.progress import Work, counted, describe_seconds, hide_progress, pause_progress, show_progress


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("medvol.terminal.progress.time.monotonic", clock)
    return clock


def test_nothing_is_written_unless_it_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with Work("looking", 2) as work:
        work.advance(2)
        work.say("done")
    with show_progress(Lines(interval_s=0, watched=False)), hide_progress(), Work("looking", 2) as work:
        work.advance(2)
        work.say("done")
    assert capfd.readouterr() == ("", "")


def test_a_line_every_half_minute_with_what_is_known(clock: Clock) -> None:
    screen = io.StringIO()
    with show_progress(Lines(screen, clock=clock, watched=False)), Work("segmenting", 10, "scans") as work:
        for minute_part in (29.0, 30.0, 31.0, 59.0, 60.0):
            clock.now = 1000.0 + minute_part
            work.advance()
    # Told at 30 s, when 2 of 10 are done at 15 s each, and at 60 s, when 5 are done at 12 s each.
    assert screen.getvalue().splitlines() == [
        "segmenting: 2 of 10 scans, 2 min left",
        "segmenting: 5 of 10 scans, 60 s left",
    ]


def test_inner_work_is_told_with_the_outer(clock: Clock) -> None:
    screen = io.StringIO()
    with show_progress(Lines(screen, clock=clock, watched=False)), Work("fit") as fit:
        fit.count(300, "steps", done=100)
        fit.advance(20, "loss 0.5")
        with Work("validation", 4, "volumes") as validation:
            clock.now += 40
            validation.advance()
        clock.now += 40
        fit.advance(20)
    assert screen.getvalue().splitlines() == [
        # 20 steps took 40 s, so 180 more take 360 s; the hundred of an earlier run say nothing about the pace.
        "fit: 120 of 300 steps, loss 0.5, 6 min left; validation: 1 of 4 volumes, 2 min left",
        "fit: 140 of 300 steps, loss 0.5, 5 min left",
    ]


def test_work_of_unknown_length_says_how_long_it_takes(clock: Clock) -> None:
    screen = io.StringIO()
    with show_progress(Lines(screen, clock=clock, watched=False)), Work("loading the model") as work:
        clock.now += 90
        work.advance(0)
    assert screen.getvalue() == "loading the model: 90 s so far\n"


def test_a_line_also_comes_while_nothing_advances() -> None:
    told = threading.Event()

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            told.set()
            return super().write(text)

    with show_progress(Lines(Screen(), interval_s=0.001)), Work("loading the model"):
        assert told.wait(60)


def test_a_worker_process_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    display = Lines(interval_s=0, watched=False)
    display._process = os.getpid() + 1
    with show_progress(display), Work("drawing", 3) as work:
        work.advance()
    assert capfd.readouterr() == ("", "")


def test_work_left_behind_ends_with_the_outer() -> None:
    """A loop over a generator that an error leaves open must not keep its line, or its bar, for ever."""
    screen = io.StringIO()
    lines, bars = Lines(screen, interval_s=0, watched=False), Bars(Console(file=io.StringIO(), force_terminal=True))
    for display in (lines, bars):
        with show_progress(display):
            with Work("outer"):
                left = counted(range(3), "inner", 3, "slices")
                next(left)
            with Work("next") as work:
                work.advance()
            left.close()
    assert "inner" not in screen.getvalue().splitlines()[-1]
    assert bars._bars is None


def test_counted_passes_everything_on() -> None:
    assert list(counted("abc", "spelling")) == ["a", "b", "c"]


def test_bars_go_when_the_work_is_done() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    with show_progress(Bars(console)), Work("segmenting", 4, "scans") as outer:
        outer.advance(3, "note [/b]")
        with Work("LiteMedSAM", 9, "slices") as inner:
            inner.advance(5)
            outer.say("one [/b] line")
        with pause_progress():
            screen.write("TABLE\n")
    text = screen.getvalue()
    assert "3 of 4 scans, note [/b]" in text
    assert "0 of 9 slices" in text
    assert "one [/b] line\n" in text
    before, after = text.split("TABLE\n")
    assert before.endswith("\x1b[2K"), "the bars are wiped before something else is printed"
    assert text.rstrip("\r").endswith(("\x1b[2K", "\x1b[?25h")), "nothing is left on the screen"
    assert "segmenting" in after


def test_stdout_stays_clean_when_stderr_is_a_terminal(tmp_path) -> None:
    """What a machine reads is on stdout, whatever a person watches on stderr."""
    script = (
        "import sys; from rich.console import Console\n"
        "from medvol.terminal.progress import Work, show_progress; from medvol.terminal.bars import Bars\n"
        "with show_progress(Bars(Console(stderr=True, force_terminal=True))), Work('looking', 2) as work:\n"
        "    work.advance(); print('{}'); work.say('said')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"
    assert "looking" in done.stderr
    assert "said" in done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (40.4, "40 s"),
        (119, "119 s"),
        (120, "2 min"),
        (3599, "60 min"),
        (3600, "1 h 0 min"),
        (12000, "3 h 20 min"),
    ],
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text


@given(st.floats(0, 1e7))
def test_times_are_rounded_to_their_unit(seconds: float) -> None:
    parts = describe_seconds(seconds).split()
    units = {"s": 1, "min": 60, "h": 3600}
    told = sum(int(number) * units[unit] for number, unit in zip(parts[::2], parts[1::2], strict=True))
    assert abs(told - seconds) <= (0.5 if seconds < 119 else 31)
