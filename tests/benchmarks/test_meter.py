"""Parts of a step add up and count once; the peak of a program leaves out what another one keeps."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def meter(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "meter", raising=False)
    import meter

    return meter


class Clock:
    """Moves only when it is told to."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class Pile:
    """Counts bytes as an allocator does."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def add(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)

    def allocated(self) -> int:
        return self.now

    def peak(self) -> int:
        return self.most

    def reset(self) -> None:
        self.most = self.now


class Worker:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def generate(self) -> None:
        self.clock.time += 1
        self.look()
        self.clock.time += 2

    def look(self) -> None:
        self.clock.time += 4


def test_a_part_inside_another_counts_once(meter):
    clock = Clock()
    worker = Worker(clock)
    watch = meter.Meter("ours", clock, meter.Ledger(None))
    watch.wrap(worker, "generate", "decode")
    watch.wrap(worker, "look", "vision")
    worker.generate()  # before the step: not counted
    with watch.step():
        clock.time += 8
        worker.generate()
        worker.look()
    (step,) = watch.steps
    assert step.parts == {"rest": 8, "decode": 3, "vision": 8}
    assert step.seconds == 19
    assert step.peak is None


def test_a_part_may_count_within_another_only(meter):
    clock = Clock()
    worker = Worker(clock)
    watch = meter.Meter("ours", clock, meter.Ledger(None))
    watch.wrap(worker, "generate", "decode")
    watch.wrap(worker, "look", "prefill", within="decode")
    with watch.step():
        worker.look()
        worker.generate()
    assert watch.steps[0].parts == {"rest": 4, "decode": 3, "prefill": 4}


def test_a_peak_leaves_out_what_another_program_keeps(meter):
    pile = Pile()
    ledger = meter.Ledger(pile)
    with ledger.turn(meter.SHARED):
        pile.add(1000)
    with ledger.turn("other"):
        pile.add(500)
    with ledger.turn("ours"):
        pile.add(30)
    watch = meter.Meter("ours", Clock(), ledger)
    with watch.step():
        pile.add(200)
        pile.add(-190)  # ten bytes of optimiser state stay
    with watch.step():
        pile.add(200)
        pile.add(-200)
    assert [step.peak for step in watch.steps] == [1230, 1240]
