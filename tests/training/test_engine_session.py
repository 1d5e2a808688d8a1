"""An engine in a fit: whatever it does wrong names it, and it is stopped however the fit ends."""

from pathlib import Path

import lightning.pytorch as pl
import pytest

from medvol.core.errors import ConfigError, EngineError, MedvolError, RewardError
from medvol.core.roles import RewardTerm, RolloutEngine
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.data import CaseDataModule
from medvol.training.engine_session import EngineSession
from medvol.training.grpo import GRPOModule
from medvol.training.settings import LossSettings, RolloutSettings, StartSettings
from tests.fixtures.light_policy import LightDataset, LightPolicy


class Failing(RolloutEngine):
    """Lets the policy answer, until one of its calls fails."""

    in_process = True

    def __init__(self, where: str = "", error: BaseException | None = None) -> None:
        self.where, self.error = where, error or RuntimeError("no room")
        self.calls: list[str] = []

    def _do(self, call: str) -> None:
        self.calls.append(call)
        if call == self.where:
            raise self.error

    def start(self, policy):
        self._do("start")
        return policy

    def sync(self):
        self._do("sync")

    def rest(self):
        self._do("rest")

    def stop(self):
        self._do("stop")


class Silent(Failing):
    """Does not say who is asked."""

    def start(self, policy):
        return None


class Paying(RewardTerm):
    """Pays by the length of an answer; fails in the second step."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.asked = 0

    def __call__(self, rollout, case):
        self.asked += 1
        if self.error is not None and self.asked > 2:
            raise self.error
        return len(rollout.completion.text) % 7 / 7


def fit(folder: Path, engine: RolloutEngine, error: BaseException | None = None) -> None:
    module = GRPOModule(
        LightPolicy(),
        ExtrudePropagator(),
        [Paying(error)],
        rollouts=RolloutSettings(group_size=2),
        engine=engine,
        loss=LossSettings(beta=0.0),
        start=StartSettings(min_parse_rate=0.0),
    )
    trainer = pl.Trainer(
        max_steps=3,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
    )
    trainer.fit(module, CaseDataModule(LightDataset(3), batch_size=1))


STEP = ["sync", "rest"]


def test_an_engine_is_started_once_and_stopped(tmp_path):
    engine = Failing()
    fit(tmp_path, engine)
    assert engine.calls == ["start", *STEP * 3, "stop"]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("start", "did not start: RuntimeError: no room"),
        ("sync", "did not take the weights: RuntimeError: no room"),
        ("rest", "did not make room for the update: RuntimeError: no room"),
        ("stop", "did not stop: RuntimeError: no room"),
    ],
)
def test_whatever_an_engine_raises_names_it(where, words, tmp_path, caplog):
    engine = Failing(where)
    with pytest.raises(EngineError, match=f"the rollout engine Failing of the module .* {words}"):
        fit(tmp_path, engine)
    assert engine.calls[-1] == "stop"
    assert ("did not stop" in caplog.text) == (where == "stop")


def test_what_an_engine_says_of_itself_passes():
    with pytest.raises(ConfigError, match="it cannot answer for this policy"):
        EngineSession(Failing("start", ConfigError("it cannot answer for this policy"))).sync(LightPolicy())


def test_an_engine_says_who_is_asked():
    session = EngineSession(Silent())
    with pytest.raises(EngineError, match=r"Silent of .* returned None from start; it is the Policy that is asked"):
        session.sync(LightPolicy())


@pytest.mark.parametrize(
    ("error", "raised"), [(RuntimeError("no answer"), RewardError), (KeyboardInterrupt(), SystemExit)]
)
def test_an_engine_is_stopped_when_a_fit_fails(error, raised, tmp_path):
    engine = Failing()
    with pytest.raises(raised):
        fit(tmp_path, engine, error)
    assert engine.calls == ["start", *STEP, "sync", "stop"]


def test_an_engine_that_does_not_stop_hides_no_error(tmp_path, caplog):
    with pytest.raises(RewardError, match="no answer"):
        fit(tmp_path, Failing("stop"), RuntimeError("no answer"))
    assert "the rollout engine Failing of the module" in caplog.text
    assert "did not stop: RuntimeError: no room" in caplog.text
    assert issubclass(RewardError, MedvolError)
