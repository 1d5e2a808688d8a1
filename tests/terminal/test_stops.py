"""Ctrl-C and SIGTERM are noted, act where asked for, and are not lost."""

import signal
import threading

import pytest

from medvol.terminal.stops import Terminated, hear_stops

BOTH = pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)], ids=["int", "term"]
)


@BOTH
def test_the_first_is_noted_and_the_second_acts_at_once(number, kind):
    before = signal.getsignal(number)
    with hear_stops() as stops:
        stops.check()
        signal.raise_signal(number)
        with pytest.raises(kind) as caught:
            signal.raise_signal(number)
        assert type(caught.value) is kind
        with pytest.raises(kind):
            stops.check()
    assert signal.getsignal(number) is before


@BOTH
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_a_library_swallows_is_found_at_the_next_check(number, kind):
    class Prints:
        def __del__(self):
            signal.raise_signal(number)

    with hear_stops(at_once=True) as stops:
        prints = Prints()
        del prints
        with pytest.raises(kind):
            stops.check()


@BOTH
def test_nothing_is_raised_while_files_are_written(number, kind):
    with hear_stops(at_once=True) as stops:
        with stops.hold():
            signal.raise_signal(number)
            signal.raise_signal(number)
        with pytest.raises(kind):
            stops.check()


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with hear_stops() as stops:
            signal.raise_signal(signal.SIGINT)
            stops.check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_hears_nothing_and_works():
    heard = []

    def work() -> None:
        with hear_stops() as stops:
            stops.check()
            heard.append(stops.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [None]
