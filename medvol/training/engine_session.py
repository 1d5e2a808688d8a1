"""EngineSession: a rollout engine for the length of a fit, each call of it through the guard."""

from __future__ import annotations

import logging

from medvol.core.errors import EngineError, MedvolError
from medvol.core.roles import Policy, RolloutEngine, TrainablePolicy
from medvol.guarding.guard import guarded
from medvol.guarding.promises import BreachError, form_of

log = logging.getLogger(__name__)


class EngineSession:
    """Starts an engine when it is first needed, and stops it.

    Args:
        engine: Anybody's.
    """

    def __init__(self, engine: RolloutEngine) -> None:
        self.engine = engine
        self._asked: Policy | None = None

    @property
    def asked(self) -> Policy:
        """Who is asked for completions."""
        assert self._asked is not None, "sync started it"
        return self._asked

    def sync(self, policy: TrainablePolicy) -> None:
        """Let all further completions come from the weights that a policy has now.

        Raises:
            EngineError: The engine failed, or does not say who is asked.
        """
        if self._asked is None:
            with guarded(self.engine, EngineError, "did not start"):
                asked: object = self.engine.start(policy)
                if not isinstance(asked, Policy):
                    raise BreachError(f"returned {form_of(asked)} from start; it is the Policy that is asked")
                self._asked = asked
        with guarded(self.engine, EngineError, "did not take the weights"):
            self.engine.sync()

    def rest(self) -> None:
        """Make room for the update.

        Raises:
            EngineError: The engine failed.
        """
        with guarded(self.engine, EngineError, "did not make room for the update"):
            self.engine.rest()

    def stop(self) -> None:
        """End what was begun.

        Raises:
            EngineError: The engine failed.
        """
        self._asked = None
        with guarded(self.engine, EngineError, "did not stop"):
            self.engine.stop()

    def abandon(self) -> None:
        """End what was begun after an error, which is told rather than another one."""
        try:
            self.stop()
        except MedvolError as error:
            log.warning("%s", error)
