"""Plug-ins whose import misbehaves: each is told, in bounded time, and stops neither the list nor this process."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from distributions import forget_modules

from medvol.core.errors import ComponentImportError
from medvol.core.registry import REWARDS, Registration
from medvol.guarding.probing import _AT_ONCE, probe

REWARD = """
from medvol.core.roles import RewardTerm
class {name}(RewardTerm):
    '''Pays nothing. Really.'''
    def __call__(self, rollout, case): return 0.0
"""

ENDINGS = {
    "os._exit(0)": ("import os\nos._exit(0)", "crashed (exit code 0)"),
    "os._exit(7)": ("import os\nos._exit(7)", "crashed (exit code 7)"),
    "abort": ("import os\nos.abort()", f"crashed (exit code -{int(signal.SIGABRT)}, SIGABRT)"),
    "segmentation fault": (
        "import ctypes\nctypes.string_at(0)",
        f"crashed (exit code -{int(signal.SIGSEGV)}, SIGSEGV)",
    ),
    "kills its group": ("import os, signal\nos.killpg(0, signal.SIGKILL)", "crashed (exit code -9, SIGKILL)"),
    "endless loop": ("while True: pass", "did not answer within 3 s"),
    "endless printing": ("while True: print('x' * 10000)", "did not answer within 3 s"),
    "endless loop that swallows": (
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
        "did not answer",
    ),
    "closes everything": ("import os\nos.closerange(0, 100)", "crashed (exit code"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "failed to import: KeyboardInterrupt"),
    "own BaseException": ("class Stop(BaseException): ...\nraise Stop('me \\x1b[31m')", r"Stop: me \x1b[31m"),
    "sys.exit": ("import sys\nsys.exit('bye')", "SystemExit: bye"),
    "reads stdin": ("input()", "EOFError"),
    "huge message": ("raise ValueError('x' * 10**7)", "ValueError: xxx"),
    "deep recursion": ("def f(): f()\nf()", "RecursionError"),
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write a distribution of one module that publishes rewards by name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, *rewards: str, source: str) -> None:
        info = tmp_path / f"{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        points = [
            f"{reward} = {name}{'.' if len(rewards) > 1 else ''}{reward if len(rewards) > 1 else ''}:{reward}"
            for reward in rewards
        ]
        (info / "entry_points.txt").write_text("[medvol.rewards]\n" + "\n".join(points) + "\n")
        if len(rewards) == 1:
            (tmp_path / f"{name}.py").write_text(source)
            return
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        for reward in rewards:
            (tmp_path / name / f"{reward}.py").write_text(
                source if reward == "MiddleReward" else REWARD.format(name=reward)
            )

    yield write
    forget_modules(tmp_path)


def rows_of(distribution: str) -> list[Registration]:
    return [row for row in REWARDS.describe() if row.distribution == distribution]


@pytest.mark.parametrize("name", ENDINGS)
def test_an_import_that_misbehaves_is_told(name: str, install: Callable[..., None]) -> None:
    source, said = ENDINGS[name]
    install("badlib", "BadReward", source=source)
    (row,) = probe(rows_of("badlib"), limit_s=3 if "did not answer" in said else 300)
    assert said in row.problem
    assert len(row.problem) < 1000
    assert row.problem.isprintable()
    assert row.summary == ""
    assert "badlib" not in sys.modules


def test_a_culprit_hurts_no_other_of_its_distribution(install: Callable[..., None]) -> None:
    install("mixedlib", "FirstReward", "MiddleReward", "ThirdReward", source="import os\nos._exit(4)")
    problems = {row.name: (row.problem, row.summary) for row in probe(rows_of("mixedlib"))}
    assert problems == {
        "FirstReward": ("", "Pays nothing."),
        "MiddleReward": ("crashed (exit code 4)", ""),
        "ThirdReward": ("", "Pays nothing."),
    }


def test_distributions_wait_side_by_side(install: Callable[..., None], tmp_path: Path) -> None:
    """Each waits for the others before it answers, which one after the other would never do."""
    for number in range(_AT_ONCE):
        wait = (
            f"import pathlib, time\nplace = pathlib.Path({str(tmp_path)!r})\n(place / 'here-{number}').touch()\n"
            f"while len(list(place.glob('here-*'))) < {_AT_ONCE}: time.sleep(0.01)\n"
        )
        install(f"slow{number}", f"Slow{number}Reward", source=wait + REWARD.format(name=f"Slow{number}Reward"))
    rows = [row for row in REWARDS.describe() if row.distribution.startswith("slow")]
    assert [row.problem for row in probe(rows, limit_s=120)] == [""] * _AT_ONCE


def test_what_a_plug_in_starts_ends_with_it(install: Callable[..., None], tmp_path: Path) -> None:
    source = f"""
import os, threading, time
if os.fork() == 0:
    open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
    time.sleep(600)
threading.Thread(target=time.sleep, args=(600,)).start()
while not os.path.exists({str(tmp_path / "pid")!r}): time.sleep(0.01)
time.sleep(0.1)
{REWARD.format(name="ForkReward")}
"""
    install("forklib", "ForkReward", source=source)
    (row,) = probe(rows_of("forklib"))
    assert (row.problem, row.summary) == ("", "Pays nothing.")
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not _runs(pid):
            break
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_lines_of_a_plug_in_in_our_pipe_are_no_answers(install: Callable[..., None]) -> None:
    source = """
import os
for number in range(3, 20):
    try: os.write(number, b'["", "all is well"]x\\n{}\\n')
    except OSError: pass
""" + REWARD.format(name="ForgingReward")
    install("forgelib", "ForgingReward", source=source)
    (row,) = probe(rows_of("forgelib"), limit_s=3)
    assert row.problem or row.summary == "Pays nothing."


def test_get_turns_what_an_import_raises_into_an_import_error(install: Callable[..., None]) -> None:
    install("stoplib", "StopReward", source="raise KeyboardInterrupt")
    with pytest.raises(ComponentImportError, match=r"'StopReward' from stoplib 1\.5 .*: KeyboardInterrupt"):
        REWARDS.get("StopReward")
    install("ownlib", "OwnReward", source="class Own(BaseException): ...\nraise Own('x')")
    with pytest.raises(ComponentImportError, match="Own: x"):
        REWARDS.get("OwnReward")


def test_ctrl_c_during_an_import_acts(install: Callable[..., None]) -> None:
    install("waitlib", "WaitReward", source="import signal\nsignal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        REWARDS.get("WaitReward")


def test_built_ins_are_found_whole() -> None:
    rows = probe(REWARDS.describe())
    assert {row.name: row.summary for row in rows}[
        "AxialReward"
    ] == "Target area at the key slice over the largest area."
    assert all(row.problem == "" and row.summary for row in rows if row.distribution == "medvol-r1")
