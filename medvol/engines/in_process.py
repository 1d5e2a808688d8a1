"""InProcessEngine: the policy that is trained answers itself."""

from __future__ import annotations

from medvol.core.roles import Policy, RolloutEngine, TrainablePolicy


class InProcessEngine(RolloutEngine):
    """The policy that is trained answers itself: the slices of a volume are read once for all completions about it."""

    in_process = True

    def start(self, policy: TrainablePolicy) -> Policy:
        """The policy itself."""
        return policy
