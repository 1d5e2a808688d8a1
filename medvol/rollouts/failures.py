"""Failures of rollouts: they are named and kept, never dropped."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from medvol.core.types import Rollout

POLICY_FAILED = "policy_failed"
"""Name of the failure of a case that the policy could not answer."""

PROPAGATION_FAILED = "propagation_failed"
"""Name of the failure of an answer that was parsed but could not be propagated."""

log = logging.getLogger(__name__)


def warn_of_failures(rollouts: Iterable[Rollout]) -> None:
    """Log what a policy or a propagator failed on, each error once; what could not be parsed is only counted."""
    failed = {id(rollout.error): rollout for rollout in rollouts if rollout.error is not None}
    for rollout in failed.values():
        log.warning("case %s: %s", rollout.case_id, rollout.detail)
