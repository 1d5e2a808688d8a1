"""The picture of the rooms: every room has its floor, and the same source gives the same picture."""

import runpy
from pathlib import Path

import pytest

from tests.floors import LEVEL, PACKAGE, room_of

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "make_architecture_picture.py"


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(SCRIPT))


def test_every_room_has_a_floor():
    assert {file.parent.name for file in PACKAGE.glob("*/__init__.py")} <= LEVEL.keys()


@pytest.mark.parametrize(
    ("module", "room"),
    [
        ("medvol", ""),
        ("medvol.Case", ""),
        ("medvol.core.types", "core"),
        ("medvol.cli.segment", "cli"),
        ("medvol.training.rollouts", "training"),
        ("medvol.imaging", "imaging"),
        ("imaging.core", ""),
    ],
)
def test_the_room_of_a_module(module, room):
    assert room_of(module) == room


def test_what_follows_from_other_imports_is_not_drawn(script):
    down = {("grounding", "imaging"), ("imaging", "core"), ("grounding", "core")}
    against = {("core", "imaging"), ("policies", "rewards")}
    house = script["House"](dict.fromkeys(("core", "imaging", "grounding", "policies", "rewards"), 1), down | against)
    assert house.against() == against
    assert set(house.drawn()) == {("grounding", "imaging"), ("imaging", "core")} | against


def test_the_same_source_gives_the_same_picture(script, tmp_path):
    for name in ("a.png", "b.png"):
        script["draw"](script["read_house"](), tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert len(first) > 10_000
