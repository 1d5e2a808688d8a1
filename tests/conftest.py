"""Fixtures that every test may use, and how hypothesis runs: the same examples everywhere, no clock."""

import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it for what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("medvol", deadline=None, derandomize=True)
settings.load_profile("medvol")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable(report: object) -> Generator[None, Any, Any]:
    """What a test printed may be no UTF-8, which the workers of pytest-xdist cannot send."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_encodable(item) for item in value)
    return value


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans beside the repository; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real scans are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    """The driver of browsers: one at a time, and none while other tests run, since it keeps an event loop going."""
    from chromium import start_playwright

    with start_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a small SAM 2 with RANDOM weights, made without the sam2 package."""
    from random_sam2 import write_random_sam2

    folder = tmp_path_factory.mktemp("random") / "model"
    write_random_sam2(folder)
    return str(folder)
