"""What a process does before it is ended because another one failed."""

import os

import pytest

from medvol.evaluation.fault_watch import _CODE, FaultWatch


class Ended(BaseException):
    """In place of the end of this process."""


class Told:
    """A store in which another process has told its fault."""

    def check(self, keys: list[str]) -> bool:
        return True

    def get(self, key: str) -> bytes:
        return b"2" if key == _CODE else b"medvol: the reward broke"


@pytest.mark.parametrize("is_first", [True, False])
def test_it_clears_away(is_first: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Else weights that its engine wrote would stay in memory that outlives it."""
    done: list[object] = []

    def end(code: int) -> None:
        done.append(code)
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    watch = FaultWatch(lambda: done.append("cleared"))
    watch._is_first = is_first
    with pytest.raises(Ended):
        watch._watch(Told())
    assert done == ["cleared", 2]
    assert capsys.readouterr().err == ("medvol: the reward broke\n" if is_first else "")
