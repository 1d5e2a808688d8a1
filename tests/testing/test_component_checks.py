"""Components that break what every component promises are caught."""

import socket
import sys
import time
from typing import ClassVar

import pytest

from medvol.core.roles import Propagator, RewardTerm
from medvol.testing import component_checks as checks


class Half(RewardTerm):
    """Half of everything."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value

    def __call__(self, rollout, case):
        return self.value


class Untyped(Half):
    """Takes anything."""

    def __init__(self, value=0.5, **more):
        self.value = value


class Forgetful(Half):
    """Does not keep its setting."""

    def __init__(self, value: float = 0.5) -> None:
        self.doubled = 2 * value


class Drifting(Half):
    """Keeps another setting than it was given."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value / 2


class Online(Half):
    """Connects when it is made."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value
        if value == 0:
            socket.create_connection(("localhost", 9))


class Slow(Half):
    """Computes when it is made."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value
        if value == 0:
            end = time.process_time() + 1
            while time.process_time() < end:
                pass


class Undocumented(Half):
    __doc__ = None


class Anonymous(Half):
    """Shows no name."""

    def __repr__(self):
        return "reward"


class Still(Propagator):
    """Fills nothing."""

    said: ClassVar = {"name": "Still"}

    def propagate(self, volume, evidence, z_range=None):
        raise NotImplementedError

    def identity(self):
        return self.said


class Nameless(Still):
    """Has no name."""

    said: ClassVar = {"weights": 1}


class Unwritable(Still):
    """Cannot be written as JSON."""

    said: ClassVar = {"name": "Unwritable", "where": {1, 2}}


class Counting(Still):
    """Says something else each time."""

    calls = 0

    def identity(self):
        Counting.calls += 1
        return {"name": "Counting", "calls": self.calls}


BROKEN = [
    (checks.check_typed_constructor, Untyped()),
    (checks.check_keeps_settings, Forgetful()),
    (checks.check_keeps_settings, Drifting()),
    (checks.check_documented, Undocumented()),
    (checks.check_repr, Anonymous()),
    (checks.check_identity, Nameless()),
    (checks.check_identity, Unwritable()),
    (checks.check_identity, Counting()),
]


@pytest.mark.parametrize(("check", "component"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_caught(assert_caught, check, component):
    assert_caught(check, component)


def test_a_constructor_that_connects_is_caught(assert_caught):
    component = Online()
    component.value = 0
    assert_caught(checks.check_constructor_is_offline, component)


def test_a_constructor_that_computes_is_caught(assert_caught):
    component = Slow()
    component.value = 0
    assert_caught(checks.check_constructor_is_cheap, component)


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Give the component ``Half`` a module of one line."""

    def write(line: str) -> None:
        (tmp_path / "heavy_reward.py").write_text(f"{line}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(Half, "__module__", "heavy_reward")
        checks._import_alone.cache_clear()

    return write


@pytest.mark.parametrize("line", ["import torch", "from SimpleITK import Image", "1 / 0", "import sys; sys.exit(0)"])
def test_a_module_that_is_heavy_or_broken_is_caught(assert_caught, write_module, line):
    write_module(line)
    assert_caught(checks.check_module_is_light, Half())
    assert "heavy_reward" not in sys.modules


@pytest.mark.parametrize(
    "line", ["print('acme: using 4 threads')", "import os; os.write(1, b'acme'); os.write(2, b'!')"]
)
def test_a_module_may_print(write_module, line):
    write_module(line)
    checks.check_module_is_light(Half())
    assert checks._import_alone("heavy_reward") == ("", "")


def test_a_module_that_prints_is_still_heavy(write_module):
    write_module("print('torch transformers'); import SimpleITK")
    assert checks._import_alone("heavy_reward") == ("SimpleITK", "")


def test_every_check_catches_something():
    caught = {check for check, _ in BROKEN} | {
        checks.check_constructor_is_offline,
        checks.check_constructor_is_cheap,
        checks.check_module_is_light,
    }
    assert caught == set(checks.COMPONENT_CHECKS)


@pytest.mark.parametrize("component", [Half(), Still()], ids=lambda component: type(component).__name__)
def test_sound_components_pass(component):
    for check in checks.COMPONENT_CHECKS:
        check(component)
