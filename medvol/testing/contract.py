"""Running the checks of a role: all at once in Python, or one test each under pytest."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvol.core.errors import InvalidComponentError
from medvol.core.roles import CaseDataset, Policy, Propagator, RewardTerm, RolloutEngine, TrainablePolicy
from medvol.testing.component_checks import COMPONENT_CHECKS
from medvol.testing.dataset_checks import DATASET_CHECKS
from medvol.testing.engine_checks import ENGINE_CHECKS
from medvol.testing.policy_checks import POLICY_CHECKS
from medvol.testing.propagator_checks import PROPAGATOR_CHECKS
from medvol.testing.reward_checks import REWARD_CHECKS
from medvol.testing.trainable_checks import TRAINABLE_CHECKS

if TYPE_CHECKING:
    import pytest

Check = Callable[[Any], None]
"""Raises AssertionError when a component breaks one promise; its name starts with ``check_``."""

CHECKS: Mapping[type, tuple[Check, ...]] = {
    Policy: POLICY_CHECKS,
    TrainablePolicy: TRAINABLE_CHECKS,
    Propagator: PROPAGATOR_CHECKS,
    RewardTerm: REWARD_CHECKS,
    CaseDataset: DATASET_CHECKS,
    RolloutEngine: ENGINE_CHECKS,
}
"""Checks of each role, besides those of every component."""


def checks_of(component: object) -> tuple[Check, ...]:
    """Checks that a component has to pass; each raises nothing but AssertionError, whatever the component does.

    Raises:
        InvalidComponentError: It inherits from no role, or expects to fail a check that does not exist.
    """
    own = [check for role, checks in CHECKS.items() if isinstance(component, role) for check in checks]
    if not own:
        raise InvalidComponentError(
            f"{type(component).__name__} inherits from no role; inherit from Policy, Propagator, RewardTerm, "
            "CaseDataset or RolloutEngine, and give an instance"
        )
    checks = tuple(map(_contained, (*COMPONENT_CHECKS, *own)))
    unknown = sorted(set(_expected_failures(component)) - {check.__name__ for check in checks})
    if unknown:
        raise InvalidComponentError(
            f"{type(component).__name__}.expected_failures names {unknown[0]!r}, which is not one of its checks: "
            f"{', '.join(check.__name__ for check in checks)}"
        )
    return checks


def _contained(check: Check) -> Check:
    """A check that tells of whatever a component raises; only the user's own interruption passes."""

    @wraps(check)
    def contained(component: Any) -> None:
        try:
            check(component)
        except AssertionError as error:
            if str(error):
                raise
            raise AssertionError(f"an assert of {type(component).__name__} failed{_place(error)}") from error
        except (Exception, SystemExit) as error:
            promise = (check.__doc__ or "").partition("\n")[0].rstrip(".")
            raised = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise AssertionError(
                f"expected of {type(component).__name__}: {promise}; got {raised}{_place(error)}"
            ) from error

    return contained


def _place(error: BaseException) -> str:
    """Where an error was raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "" if frame is None else f" ({Path(frame.tb_frame.f_code.co_filename).name}, line {frame.tb_lineno})"


def check_policy(policy: Policy) -> None:
    """Run every check of a policy; raises one AssertionError that lists what fails."""
    _run(policy, Policy)


def check_propagator(propagator: Propagator) -> None:
    """Run every check of a propagator; raises one AssertionError that lists what fails."""
    _run(propagator, Propagator)


def check_reward(term: RewardTerm) -> None:
    """Run every check of a reward term; raises one AssertionError that lists what fails."""
    _run(term, RewardTerm)


def check_dataset(dataset: CaseDataset) -> None:
    """Run every check of a data set on its first cases; raises one AssertionError that lists what fails."""
    _run(dataset, CaseDataset)


def check_engine(engine: RolloutEngine) -> None:
    """Run every check of a rollout engine with a small policy; raises one AssertionError that lists what fails."""
    _run(engine, RolloutEngine)


def parametrize_with_checks(components: Iterable[Any]) -> pytest.MarkDecorator:
    """Make one test a check of a function that takes ``component`` and ``check``.

    Args:
        components: Instances, or ``pytest.param(instance, marks=..., id=...)``. An expected failure becomes a strict
            xfail with its reason.
    """
    import pytest

    rows = []
    for item in components:
        wrapped = isinstance(item, type(pytest.param()))
        component = item.values[0] if wrapped else item
        marks = list(item.marks) if wrapped else []
        name = (item.id if wrapped else None) or type(component).__name__
        expected = _expected_failures(component)
        for check in checks_of(component):
            reason = expected.get(check.__name__)
            extra = [] if reason is None else [pytest.mark.xfail(reason=reason, raises=AssertionError, strict=True)]
            rows.append(pytest.param(component, check, marks=[*marks, *extra], id=f"{name}-{check.__name__}"))
    return pytest.mark.parametrize(("component", "check"), rows)


def _run(component: Any, role: type) -> None:
    if not isinstance(component, role):
        raise InvalidComponentError(f"{type(component).__name__} is not a {role.__name__}; give an instance of one")
    expected = _expected_failures(component)
    failures = []
    for check in checks_of(component):
        try:
            check(component)
        except AssertionError as error:
            if check.__name__ in expected:
                warnings.warn(f"{check.__name__} fails as expected: {expected[check.__name__]}", stacklevel=3)
            else:
                failures.append(f"{check.__name__}: {error}")
        else:
            if check.__name__ in expected:
                failures.append(f"{check.__name__}: passes, take it out of expected_failures")
    if failures:
        raise AssertionError(f"{type(component).__name__} breaks its contract\n  " + "\n  ".join(failures))


def _expected_failures(component: object) -> Mapping[str, str]:
    expected: Mapping[str, str] = getattr(component, "expected_failures", {})
    if not isinstance(expected, Mapping):
        raise InvalidComponentError(
            f"{type(component).__name__}.expected_failures is {expected!r:.200}; write {{'check_x': 'reason'}}"
        )
    return expected
