"""Contract checks for all components. Only the decorator needs pytest.

    from medvol.testing import check_reward, parametrize_with_checks

    check_reward(MyReward())                                # in a notebook: one AssertionError that lists what fails

    @parametrize_with_checks([MyReward(), MyReward(2.0)])   # in a test file: one test a check
    def test_contract(component, check):
        check(component)

A component that cannot meet a check says so in ``expected_failures = {"check_x": "reason"}``.
"""

from medvol.testing.contract import (
    check_dataset,
    check_engine,
    check_policy,
    check_propagator,
    check_reward,
    checks_of,
    parametrize_with_checks,
)
from medvol.testing.fixtures import make_case, make_rollout, make_volume

__all__ = [
    "check_dataset",
    "check_engine",
    "check_policy",
    "check_propagator",
    "check_reward",
    "checks_of",
    "make_case",
    "make_rollout",
    "make_volume",
    "parametrize_with_checks",
]
