"""The contract kit: whoever writes a component checks it with this.

    from medvol.testing import check_reward, parametrize_with_checks

    check_reward(MyReward())                      # raises ContractViolation, listing every broken promise

    @parametrize_with_checks([MyReward()])        # or one test a promise, under pytest
    def test_contract(component, check):
        check(component)

A component that needs small settings is given with them; one that cannot keep a promise declares
``expected_failures = {"check_name": "reason"}``.
"""

from medvol.testing.contract import ContractViolation
from medvol.testing.fixtures import make_case, make_prompts, make_rollout, make_target, make_volume, true_anchor
from medvol.testing.kit import (
    check_dataset,
    check_policy,
    check_propagator,
    check_reward,
    checks_of,
    expected_failures,
    parametrize_with_checks,
)

__all__ = [
    "ContractViolation",
    "check_dataset",
    "check_policy",
    "check_propagator",
    "check_reward",
    "checks_of",
    "expected_failures",
    "make_case",
    "make_prompts",
    "make_rollout",
    "make_target",
    "make_volume",
    "parametrize_with_checks",
    "true_anchor",
]
