"""Jobs: one after another, with progress, cancelled where they say how far they are."""

import threading
import time
from collections.abc import Iterator

import pytest

from medvol.core.errors import ConfigError
from medvol.terminal.progress import Work, show_progress
from medvol.viewing.jobs import Jobs


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    made = Jobs()
    with show_progress(made.display):
        yield made
    made.close()


def until(check, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.005)


def test_progress_is_told_and_the_result_comes(jobs: Jobs) -> None:
    go, half = threading.Event(), threading.Event()

    def act():
        with Work("counting", 4, "slices") as work:
            work.advance(2)
            half.set()
            assert go.wait(10)
        return {"answer": 42}

    job = jobs.start("counting", act)
    assert half.wait(10)
    told = job.describe()
    assert (told["state"], told["progress"]["share"]) == ("running", 0.5)
    assert told["progress"]["text"].startswith("counting: 2 of 4 slices")
    go.set()
    job.wait(10)
    assert job.describe()["result"] == {"answer": 42}
    assert jobs.find(job.job_id) is job


def test_a_cancelled_job_stops_at_its_next_step_and_the_next_one_runs(jobs: Jobs) -> None:
    began, steps = threading.Event(), []

    def act():
        with Work("counting", 10_000) as work:
            for _ in range(10_000):
                steps.append(1)
                began.set()
                time.sleep(0.002)
                work.advance()
        return {}

    job, after = jobs.start("long", act), jobs.start("short", lambda: {"done": True})
    assert began.wait(10)
    assert after.describe()["state"] == "waiting"
    job.cancel()
    assert job.describe()["state"] == "cancelled"
    after.wait(10)
    assert after.describe()["result"] == {"done": True}
    assert len(steps) < 5_000


def test_what_waits_can_be_cancelled_before_it_begins(jobs: Jobs) -> None:
    go, ran = threading.Event(), []
    first = jobs.start("first", lambda: {"x": go.wait(10)})
    second = jobs.start("second", lambda: {"x": ran.append(1)})
    second.cancel()
    go.set()
    first.wait(10)
    second.wait(10)
    assert ran == []


def test_what_saves_is_done_though_it_is_cancelled_and_the_server_stops() -> None:
    jobs, go, began, ran = Jobs(), threading.Event(), threading.Event(), []

    def save_slowly():
        began.set()
        assert go.wait(10)
        with Work("writing"):
            ran.append("slow")
        return {}

    with show_progress(jobs.display):
        running = jobs.start("saving", save_slowly, saves=True)
        waiting = jobs.start("saving", lambda: {"x": ran.append("waiting")}, saves=True)
        other = jobs.start("following", lambda: {"x": ran.append("other")})
        assert began.wait(10)
        for job in (running, waiting, other):
            job.cancel()
        assert [job.state for job in (running, waiting, other)] == ["running", "waiting", "cancelled"]
        threading.Timer(0.2, go.set).start()
        jobs.close()
    assert ran == ["slow", "waiting"]
    assert [job.state for job in (running, waiting)] == ["done", "done"]


def test_failures_are_sentences(jobs: Jobs) -> None:
    def refuse():
        raise ConfigError("no such thing; choose another")

    job = jobs.start("x", refuse)
    job.wait(10)
    assert job.describe()["error"] == {"kind": "ConfigError", "detail": "no such thing; choose another"}


def test_old_jobs_are_forgotten(jobs: Jobs) -> None:
    started = [jobs.start("x", dict) for _ in range(200)]
    for job in started:
        job.wait(10)
    jobs.start("x", dict)
    assert jobs.find(started[0].job_id) is None
    until(lambda: len(jobs._jobs) <= 80)
