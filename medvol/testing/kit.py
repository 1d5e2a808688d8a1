"""Running the checks of a role: all at once, or one test each under pytest."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from medvol.core.roles import CaseDataset, Policy, Propagator, RewardTerm, TrainablePolicy
from medvol.testing import (
    component_checks,
    dataset_checks,
    policy_checks,
    propagator_checks,
    reward_checks,
    trainable_checks,
)
from medvol.testing.contract import ContractViolation

Check = Callable[[Any], None]

_ROLES: tuple[tuple[type, tuple[Check, ...]], ...] = (
    (Policy, policy_checks.CHECKS),
    (TrainablePolicy, trainable_checks.CHECKS),
    (Propagator, propagator_checks.CHECKS),
    (RewardTerm, reward_checks.CHECKS),
    (CaseDataset, dataset_checks.CHECKS),
)


def checks_of(component: Any) -> tuple[Check, ...]:
    """The checks that a component, or a class of components, has to pass.

    Raises:
        TypeError: It has none of the four roles.
    """
    cls = component if inspect.isclass(component) else type(component)
    checks = [check for role, role_checks in _ROLES if issubclass(cls, role) for check in role_checks]
    if not checks:
        roles = ", ".join(role.__name__ for role, _ in _ROLES)
        raise TypeError(f"{cls.__name__} has no role; a component inherits from one of {roles}")
    return (*component_checks.CHECKS, *checks)


def check_policy(policy: Policy) -> dict[str, str]:
    """Check that a policy keeps the promises of its role; see ``check_component``."""
    return check_component(policy, Policy)


def check_propagator(propagator: Propagator) -> dict[str, str]:
    """Check that a propagator keeps the promises of its role; see ``check_component``."""
    return check_component(propagator, Propagator)


def check_reward(term: RewardTerm) -> dict[str, str]:
    """Check that a reward term keeps the promises of its role; see ``check_component``."""
    return check_component(term, RewardTerm)


def check_dataset(dataset: CaseDataset) -> dict[str, str]:
    """Check that a data set keeps the promises of its role; see ``check_component``."""
    return check_component(dataset, CaseDataset)


def check_component(component: Any, role: type) -> dict[str, str]:
    """Run all checks of a component.

    A component declares promises that it cannot keep as ``expected_failures = {"check_name": "reason"}``.

    Args:
        component: An instance, with settings that make it small.
        role: Role that it must have.

    Returns:
        The expected failures that happened, with their reasons.

    Raises:
        ContractViolation: Checks fail; the message lists all of them. Also when an expected failure does not happen.
    """
    name = type(component).__name__
    if not isinstance(component, role):
        raise ContractViolation(f"{name} is no {role.__name__}; inherit from medvol.core.roles.{role.__name__}")
    expected = expected_failures(component)
    problems = {check.__name__: _run(check, component) for check in checks_of(component)}
    broken = [f"{check}: {problem}" for check, problem in problems.items() if problem and check not in expected]
    kept = [f"{check}: passes; remove it from expected_failures" for check in expected if not problems[check]]
    if broken or kept:
        raise ContractViolation(f"{name} breaks its contract:\n" + "\n".join(f"  {line}" for line in (*broken, *kept)))
    return dict(expected)


def parametrize_with_checks(components: Iterable[Any]) -> Any:
    """Decorate a pytest function ``test(component, check)`` to run every check of every component as one test.

    Tests are named ``FormatReward-check_range``; an expected failure is shown as xfail with its reason.

        @parametrize_with_checks([FormatReward(), AxialReward(delta=3)])
        def test_contract(component, check):
            check(component)
    """
    import pytest

    parameters = []
    for component in components:
        expected = expected_failures(component)
        for check in checks_of(component):
            reason = expected.get(check.__name__)
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            name = f"{type(component).__name__}-{check.__name__}"
            parameters.append(pytest.param(component, check, marks=marks, id=name))
    return pytest.mark.parametrize(("component", "check"), parameters)


def expected_failures(component: Any) -> Mapping[str, str]:
    """Promises that a component, or its class, says it cannot keep, with the reasons.

    Raises:
        ContractViolation: A check of that name does not exist, or the reason is empty.
    """
    declared: Mapping[str, str] = getattr(component, "expected_failures", {})
    known = {check.__name__ for check in checks_of(component)}
    for check, reason in declared.items():
        if check not in known or not reason:
            raise ContractViolation(
                f"expected_failures holds {check!r}: {reason!r}; it maps a check to a reason, and the checks are "
                f"{', '.join(sorted(known))}"
            )
    return declared


def _run(check: Check, component: Any) -> str:
    """What is wrong; empty when nothing is."""
    try:
        check(component)
    except ContractViolation as violation:
        return str(violation)
    except Exception as error:  # a component may fail in any way; the list names it beside the others
        return f"raised {type(error).__name__}: {error}"
    return ""
