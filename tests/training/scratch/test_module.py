"""What training from scratch adds to SFT: perception, curriculum, gaze, and that a resumed run is the whole run."""

from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from medvol.core.errors import ConfigError
from medvol.core.specs import rebuild
from medvol.datasets.phantom import PhantomDataset
from medvol.evaluation.settings import EvaluationSettings
from medvol.policies.scripted import ScriptedPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.checkpoint import SpecCheckpoint, load_policy, read_checkpoint
from medvol.training.scratch.curriculum import deal_rows
from medvol.training.scratch.module import ScratchModule
from medvol.training.scratch.settings import CurriculumSettings, GazeSettings, OccupancySettings, PerceptionSettings
from medvol.training.settings import OptimizerSettings
from medvol.training.sft import SFTModule
from tests.fixtures.callbacks import StopAt
from tests.training.test_sft import SHAPE, digest, make_data, make_trainer


def make_module(**settings) -> ScratchModule:
    defaults = {
        "optimizer": OptimizerSettings(learning_rate=1e-3, warmup_steps=2),
        "occupancy": OccupancySettings(weight=1.0),
        "evaluation": EvaluationSettings(max_new_tokens=40),
        "reword": 0.5,
    }
    return ScratchModule(TinyPolicy(), ExtrudePropagator(), **{**defaults, **settings})


def step_of(module: SFTModule, cases) -> torch.Tensor:
    module.configure_model()
    module.log = lambda *args, **kwargs: None
    module.__dict__["_trainer"] = type("Stub", (), {"global_step": 0})()
    return module.training_step([cases], 0)


def test_without_its_helps_it_is_sft():
    cases = [PhantomDataset("train", 1, shape=SHAPE)[i] for i in range(3)]
    modules = [kind(TinyPolicy(), ExtrudePropagator(), reword=0.5) for kind in (SFTModule, ScratchModule)]
    plain, scratch = (step_of(module, cases) for module in modules)
    assert torch.equal(plain, scratch)
    assert [*modules[0].state_dict()] == [*modules[1].state_dict()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PerceptionSettings(steps=-1), "perception.steps is -1; it must be a whole number, 0 or more"),
        (lambda: PerceptionSettings(slices=0), "perception.slices is 0; it must be a whole number, 1 or more"),
        (lambda: CurriculumSettings(rows=0), "curriculum.rows is 0; it must be a whole number, 1 or more"),
        (lambda: CurriculumSettings(queries=0), "curriculum.queries is 0"),
        (lambda: OccupancySettings(weight=-0.1), "occupancy.weight is -0.1"),
        (lambda: OccupancySettings(classes=1), "occupancy.classes is 1; it must be a whole number, 2 or more"),
        (lambda: GazeSettings(float("nan")), "gaze.weight is nan"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_only_a_trainable_policy_can_be_fitted():
    with pytest.raises(ConfigError, match="ScriptedPolicy has nothing to train; give ScratchModule"):
        ScratchModule(ScriptedPolicy(), ExtrudePropagator())


def test_the_gaze_loss_is_added_to_that_of_the_answers():
    losses = {}
    for weight in (0.0, 0.5):
        module = make_module(reword=0.0, occupancy=OccupancySettings(), gaze=GazeSettings(weight))
        module.configure_model()
        logged = {}
        module.log = lambda name, value, kept=logged, **kwargs: kept.update({name: float(value)})
        module.__dict__["_trainer"] = type("Stub", (), {"global_step": 0})()
        cases = [PhantomDataset("train", 1, shape=SHAPE)[i] for i in range(3)]
        losses[weight] = float(module.training_step([cases], 0).detach())
    assert logged["train/answer_loss"] == pytest.approx(losses[0.0], abs=1e-6)
    assert losses[0.5] == pytest.approx(losses[0.0] + 0.5 * logged["train/gaze_loss"], abs=1e-5)
    assert logged["train/gaze_loss"] > 1


class OccupancyLosses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, *args) -> None:
        self.values.append(float(trainer.callback_metrics["train/occupancy_loss"]))


def test_perception_trains_the_slice_encoder_alone_and_answers_come_after_it(tmp_path):
    start, listener = make_module().policy.load().state_dict(), OccupancyLosses()
    for steps, learns in ((30, [".visual."]), (31, [".visual.", ".language_model."])):
        module = make_module(perception=PerceptionSettings(30, slices=4))
        make_trainer(tmp_path, steps, callbacks=[listener], enable_checkpointing=False).fit(module, make_data())
        now = module.policy.load().state_dict()
        changed = [name for name in now if not now[name].equal(start[name])]
        assert {part for part in (".visual.", ".language_model.") if any(part in name for name in changed)} == {*learns}
    assert np.mean(listener.values[25:30]) < 0.8 * np.mean(listener.values[:5])


def test_the_curriculum_shows_every_slice_once_and_asks_only_what_is_seen():
    module = make_module(curriculum=CurriculumSettings(5, slices=3))
    module.configure_model()
    data = PhantomDataset("train", 1, shape=SHAPE)
    cases = [data[i] for i in range(len(data))]
    module.__dict__["_trainer"] = type("Stub", (), {"global_step": 4})()
    rows = module.choose_rows(cases, module.draw(cases), np.random.default_rng(0))
    shown = [z for row in rows for z in row.slices.indices]
    assert len(shown) == len(set(shown))
    for row in rows:
        assert row.slices.drawn == tuple(range(8))
        assert 1 <= len(row.taught) <= 4
        for case in row.taught:
            assert case.target[list(row.slices.indices)].any()
    module.__dict__["_trainer"] = type("Stub", (), {"global_step": 5})()
    [row] = module.choose_rows(cases, module.draw(cases), np.random.default_rng(0))
    assert row.slices.indices == tuple(range(8))


def test_few_rows_of_a_volume_are_those_of_rare_labels():
    """A lesion on one slice of 24: two rows of one slice each hold it far more often than two of 24 slices would."""
    module = make_module()
    module.configure_model()
    data = PhantomDataset("train", 1, shape=(24, 48, 48))
    labels = np.ones((24, 48, 48), np.uint8)
    labels[7, 10:20, 10:20] = 2
    target = np.ones((24, 48, 48), bool)
    cases = [replace(data[0], labels=labels, target=target)]
    settings = CurriculumSettings(5, slices=1, rows=2)
    drawing = module.draw(cases)
    drawn = [deal_rows(cases, drawing, settings, np.random.default_rng(seed)) for seed in range(200)]
    assert all(len(rows) == 2 for rows in drawn)
    assert all(len(row.slices.indices) == 1 for rows in drawn for row in rows)
    with_lesion = sum(any(row.slices.indices == (7,) for row in rows) for rows in drawn)
    first = 1 / (1 + 23 / 24)
    expected = first + (1 - first) * 1 / (1 + 22 / 24)
    assert abs(with_lesion / 200 - expected) < 4 * (expected * (1 - expected) / 200) ** 0.5


@pytest.mark.slow
def test_a_few_steps_lower_the_loss_and_export_a_model(tmp_path):
    module, losses = make_module(curriculum=CurriculumSettings(4)), []

    class Listen(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(trainer.callback_metrics["train/answer_loss"]))

    make_trainer(tmp_path, 30, callbacks=[Listen()], enable_checkpointing=False).fit(module, make_data())
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])
    assert TinyPolicy(model=str(tmp_path / "model")).identity()["sha256"] == module.policy.identity()["sha256"]


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path):
    whole = make_module(curriculum=CurriculumSettings(3))
    make_trainer(tmp_path / "whole", 6, enable_checkpointing=False).fit(whole, make_data())
    stopped = make_module(curriculum=CurriculumSettings(3))
    callbacks = [StopAt(5), SpecCheckpoint(every_n_train_steps=4)]
    make_trainer(tmp_path / "stopped", 6, callbacks=callbacks).fit(stopped, make_data())
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 5  # the second epoch's third batch comes next
    resumed = make_module(curriculum=CurriculumSettings(3))
    trainer = make_trainer(tmp_path / "stopped", 6, callbacks=[SpecCheckpoint()])
    trainer.fit(resumed, make_data(), ckpt_path=last, weights_only=True)
    assert trainer.global_step == 6
    assert digest(resumed) == digest(whole)


def test_a_checkpoint_keeps_every_group_of_settings(tmp_path):
    groups = {
        "perception": PerceptionSettings(1, slices=2),
        "curriculum": CurriculumSettings(2, slices=2, rows=3, queries=1),
        "occupancy": OccupancySettings(0.5, classes=5, balance=0.35, extent_weight=0.2),
        "gaze": GazeSettings(0.1),
    }
    module = make_module(**groups)
    make_trainer(tmp_path, 2, callbacks=[SpecCheckpoint()]).fit(module, make_data())
    last = tmp_path / "checkpoints" / "last.ckpt"
    rebuilt = rebuild(read_checkpoint(last)["medvol_spec"], ScratchModule)
    assert isinstance(rebuilt, ScratchModule)
    assert {name: getattr(rebuilt, name) for name in groups} == groups
    assert rebuilt.optimizer == OptimizerSettings(learning_rate=1e-3, warmup_steps=2)
    assert load_policy(last).identity()["sha256"] == module.policy.identity()["sha256"]
