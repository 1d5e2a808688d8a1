"""A broken promise, in words."""

from __future__ import annotations


class ContractViolation(AssertionError):
    """A component breaks a promise of its role."""


def require(condition: bool, what: str, expected: object, got: object, fix: str) -> None:
    """Raise when a promise is broken.

    Args:
        condition: True when it is kept.
        what: What was looked at.
        expected: What the contract promises.
        got: What was seen.
        fix: What to do about it.

    Raises:
        ContractViolation: The condition is False.
    """
    if not condition:
        raise ContractViolation(f"{what}: expected {expected}; got {got}; to fix it, {fix}")
