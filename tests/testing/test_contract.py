"""The kit as third parties use it: all checks at once, or one test a check."""

import subprocess
import sys
from typing import ClassVar

import pytest

from medvol.core.errors import InvalidComponentError
from medvol.core.roles import CaseDataset
from medvol.rewards.axial import AxialReward
from medvol.rewards.format import FormatReward
from medvol.testing import (
    check_dataset,
    check_policy,
    check_propagator,
    check_reward,
    checks_of,
    make_case,
    make_rollout,
    parametrize_with_checks,
)


class Doubled(AxialReward):
    """Leaves [0, 1]."""

    def __call__(self, rollout, case):
        return 2 * super().__call__(rollout, case)


class Admitted(Doubled):
    """Says so."""

    expected_failures: ClassVar = {
        "check_range": "the sum of two terms",
        "check_perfect_answer": "the sum of two terms",
        "check_absent_target": "the sum of two terms",
    }


class Modest(AxialReward):
    """Expects a failure that does not come."""

    expected_failures: ClassVar = {"check_range": "not sure"}


class Misspelt(AxialReward):
    """Expects a failure of no check."""

    expected_failures: ClassVar = {"check_rnage": "typing"}


def test_a_sound_reward_passes():
    check_reward(FormatReward())


def test_failures_are_listed_together():
    with pytest.raises(AssertionError, match=r"(?s)Doubled breaks its contract.*check_range: .*check_perfect_answer: "):
        check_reward(Doubled())


def test_expected_failures_are_warned_about():
    with pytest.warns(UserWarning, match="fails as expected") as caught:
        check_reward(Admitted())
    expected = {f"{check} fails as expected: {reason}" for check, reason in Admitted.expected_failures.items()}
    assert {str(warning.message) for warning in caught} == expected


def test_an_expected_failure_that_passes_is_a_failure():
    with pytest.raises(AssertionError, match="check_range: passes, take it out of expected_failures"):
        check_reward(Modest())


def test_an_unknown_expected_failure_is_refused():
    with pytest.raises(InvalidComponentError, match=r"'check_rnage', which is not one of its checks.*check_range"):
        check_reward(Misspelt())


@pytest.mark.parametrize("component", [object(), FormatReward], ids=["no role", "class"])
def test_what_is_no_component_is_refused(component):
    with pytest.raises(InvalidComponentError, match="inherits from no role"):
        checks_of(component)


@pytest.mark.parametrize("check", [check_policy, check_propagator, check_dataset])
def test_another_role_is_refused(check):
    with pytest.raises(InvalidComponentError, match="FormatReward is not a"):
        check(FormatReward())


def test_one_test_a_check_with_speaking_ids():
    mark = parametrize_with_checks([FormatReward(), pytest.param(AxialReward(), marks=pytest.mark.slow, id="axial")])
    names, rows = mark.mark.args
    assert names == ("component", "check")
    assert len(rows) == 2 * len(checks_of(FormatReward()))
    assert "FormatReward-check_range" in [row.id for row in rows]
    axial = [row for row in rows if row.id.startswith("axial-check_")]
    assert len(axial) == len(rows) // 2
    assert all([mark.name for mark in row.marks] == ["slow"] for row in axial)


def test_expected_failures_become_strict_xfails():
    rows = parametrize_with_checks([Admitted()]).mark.args[1]
    marks = {row.id: row.marks for row in rows if row.marks}
    assert set(marks) == {f"Admitted-{name}" for name in Admitted.expected_failures}
    (mark,) = marks["Admitted-check_range"]
    assert mark.name == "xfail"
    assert mark.kwargs == {"reason": "the sum of two terms", "raises": AssertionError, "strict": True}


@parametrize_with_checks([Admitted()])
def test_admitted_failures_xfail(component, check):
    check(component)


class Raising(CaseDataset):
    """Raises what it is told to.

    Args:
        error: Name of an exception.
    """

    def __init__(self, error: str = "KeyError") -> None:
        self.error = error

    def _raise(self, *_):
        raise {"KeyError": KeyError, "SystemExit": SystemExit, "assert": AssertionError, "deep": RecursionError}[
            self.error
        ]

    __len__ = __getitem__ = volume_key = patient_id = _raise


@pytest.mark.parametrize("error", ["KeyError", "SystemExit", "assert", "deep"])
def test_whatever_a_component_raises_is_an_assertion_error(error):
    with pytest.raises(
        AssertionError, match=r"(?s)Raising breaks its contract.*check_length: .*test_contract\.py, line"
    ):
        check_dataset(Raising(error))


class Lost(AxialReward):
    """Raises."""

    def __call__(self, rollout, case):
        raise KeyError("boxes")


def test_each_check_by_itself_raises_nothing_else():
    raised = []
    for check in checks_of(Lost()):
        try:
            check(Lost())
        except AssertionError as error:
            raised.append(str(error))
    assert any("got KeyError: 'boxes'" in text for text in raised)


def test_an_interruption_by_the_user_passes():
    class Stopped(Raising):
        def _raise(self, *_):
            raise KeyboardInterrupt

        __len__ = __getitem__ = _raise

    with pytest.raises(KeyboardInterrupt):
        check_dataset(Stopped())


@pytest.mark.parametrize("size", [4, 8, 12, 20])
def test_samples_hold_a_target_of_the_size_asked_for(size):
    case = make_case(size)
    rollout = make_rollout(case)
    rows, columns = (case.target[rollout.evidence.key_slice].any(axis=axis).sum() for axis in (1, 0))
    assert (rows, columns) == (size, size)
    assert case.volume.voxels[case.target].mean() == pytest.approx(120, abs=2)
    assert case.volume.voxels[~case.target].mean() == pytest.approx(-60, abs=1)
    assert rollout.mask is case.target or (rollout.mask == case.target).all()


def test_the_kit_needs_neither_pytest_nor_torch():
    code = "import sys, medvol.testing; print([m for m in ('pytest', 'torch', 'medvol.rewards') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
