"""What SFT learns from, that it learns, and that a resumed run is the run that was not stopped."""

import hashlib
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from medvol.cli import main
from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.grounding.grammar import parse_evidence
from medvol.core.grounding.prompts import build_prompts
from medvol.core.training.checkpoint import SpecCheckpoint, load_module
from medvol.core.training.data import CaseDataModule
from medvol.core.training.schedule import warm_up_then_cosine
from medvol.core.training.sft import SFTModule
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings
from medvol.policies.qwen_vl import QwenVLPolicy
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator
from tests.fixtures.callbacks import StopAt

SHAPE = (8, 48, 48)


def make_module(**settings) -> SFTModule:
    defaults = {"learning_rate": 1e-3, "warmup_steps": 2, "reword": 0.5, "occupancy_weight": 1.0, "max_new_tokens": 40}
    return SFTModule(QwenVLPolicy(size="tiny"), ExtrudePropagator(), **{**defaults, **settings})


def make_data(workers: int = 0) -> CaseDataModule:
    train = PhantomDataset("train", 5, shape=SHAPE, cache=CacheSettings(scans=8))
    val = PhantomDataset("val", 1, shape=SHAPE)
    return CaseDataModule(train, val, batch_size=2, queries_per_volume=3, num_workers=workers, seed=3)


def make_trainer(folder, steps: int, **settings) -> pl.Trainer:
    return pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=settings.pop("limit_val_batches", 0),
        num_sanity_val_steps=0,
        deterministic=True,
        **settings,
    )


def digest(module: SFTModule) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def test_the_loss_is_the_mean_over_answer_tokens_of_separate_sequences():
    module = make_module(reword=0.0, occupancy_weight=0.0)
    module.configure_model()
    module.log = lambda *args, **kwargs: None
    module.__dict__["_trainer"] = type("Stub", (), {"global_step": 0})()
    cases = [PhantomDataset("train", 1, shape=SHAPE)[i] for i in range(3)]
    loss = module.training_step([cases], 0)
    policy = module.student
    pieces = []
    for case in cases:
        prompt = build_prompts(case.volume, [case.query.text], policy.template)
        answer = policy.encode(module._answer(case, prompt[0].slices, np.random.default_rng(0))[0])
        pieces.append(policy.log_probs(prompt, [[answer]])[0][0])
    torch.testing.assert_close(loss, -torch.cat(pieces).mean(), atol=1e-5, rtol=0)


def test_a_target_on_no_slice_shown_is_not_taught_as_absent(caplog):
    module = make_module(reword=0.0, occupancy_weight=0.0)
    module.configure_model()
    module.log = lambda *args, **kwargs: None
    module.__dict__["_trainer"] = type("Stub", (), {"global_step": 0})()
    case = PhantomDataset("train", 1, shape=(48, 48, 48))[0]
    shown = module._draw([case]).indices
    hidden = next(z for z in range(48) if z not in shown)
    thin = np.zeros_like(case.target)
    thin[hidden, 10:20, 10:20] = True
    unseen = replace(case, case_id="thin", target=thin)
    absent = replace(unseen, query=replace(case.query, kind="absent"), target=np.zeros_like(thin))
    [(_, taught)] = module._rows([case, unseen, absent], False, np.random.default_rng(0))
    assert [one.case_id for one in taught] == [case.case_id, absent.case_id]
    assert "thin: its target lies on none of the 24 slices shown" in caplog.text
    assert module.training_step([[unseen]], 0) is None


def test_the_gaze_loss_is_added_to_that_of_the_answers():
    losses = {}
    for weight in (0.0, 0.5):
        module = make_module(reword=0.0, occupancy_weight=0.0, gaze_weight=weight)
        module.configure_model()
        logged = {}
        module.log = lambda name, value, kept=logged, **kwargs: kept.update({name: float(value)})
        module.__dict__["_trainer"] = type("Stub", (), {"global_step": 0})()
        cases = [PhantomDataset("train", 1, shape=SHAPE)[i] for i in range(3)]
        losses[weight] = float(module.training_step([cases], 0).detach())
    assert logged["train/answer_loss"] == pytest.approx(losses[0.0], abs=1e-6)
    assert losses[0.5] == pytest.approx(losses[0.0] + 0.5 * logged["train/gaze_loss"], abs=1e-5)
    assert logged["train/gaze_loss"] > 1


def test_answers_are_true_anchors():
    module = make_module(label_rule="largest")
    module.configure_model()
    data = PhantomDataset("train", 1, shape=SHAPE)
    for case in (data[i] for i in range(len(data))):
        slices = build_prompts(case.volume, ["x"], module.policy.template)[0].slices
        evidence = parse_evidence(module._answer(case, slices, np.random.default_rng(0))[0], SHAPE)
        areas = case.target.sum((1, 2))
        assert areas[evidence.key_slice] == areas.max()
        rows, columns = np.nonzero(case.target[evidence.key_slice])
        step_px = 48 * module.policy.template.coordinate_step / 1000
        low, high = evidence.boxes.min(0), evidence.boxes.max(0)
        assert abs(low[0] - columns.min()) <= step_px
        assert abs(high[3] - rows.max() - 1) <= step_px
        assert (case.query.meaning or case.query.target) in evidence.rationale


class OccupancyLosses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, *args) -> None:
        self.values.append(float(trainer.callback_metrics["train/occupancy_loss"]))


def test_perception_trains_the_slice_encoder_alone_and_answers_come_after_it(tmp_path):
    start, listener = make_module().student.load().state_dict(), OccupancyLosses()
    for steps, learns in ((30, [".visual."]), (31, [".visual.", ".language_model."])):
        module = make_module(perception_steps=30, perception_slices=4)
        make_trainer(tmp_path, steps, callbacks=[listener], enable_checkpointing=False).fit(module, make_data())
        now = module.student.load().state_dict()
        changed = [name for name in now if not now[name].equal(start[name])]
        assert {part for part in (".visual.", ".language_model.") if any(part in name for name in changed)} == {*learns}
    assert np.mean(listener.values[25:30]) < 0.8 * np.mean(listener.values[:5])


def test_the_curriculum_shows_every_slice_once_and_asks_only_what_is_seen():
    module = make_module(curriculum_steps=5, curriculum_slices=3)
    module.configure_model()
    data = PhantomDataset("train", 1, shape=SHAPE)
    cases = [data[i] for i in range(len(data))]
    rows = module._rows(cases, True, np.random.default_rng(0))
    shown = [z for slices, _ in rows for z in slices.indices]
    assert len(shown) == len(set(shown))
    for slices, asked in rows:
        assert slices.drawn == tuple(range(8))
        assert 1 <= len(asked) <= 4
        for case in asked:
            assert case.target[list(slices.indices)].any()


def test_few_rows_of_a_volume_are_those_of_rare_labels():
    """A lesion on one slice of 24: two rows of one slice each hold it far more often than two of 24 slices would."""
    module = make_module(curriculum_steps=5, curriculum_slices=1, curriculum_rows=2)
    module.configure_model()
    data = PhantomDataset("train", 1, shape=(24, 48, 48))
    labels = np.ones((24, 48, 48), np.uint8)
    labels[7, 10:20, 10:20] = 2
    target = np.ones((24, 48, 48), bool)
    cases = [replace(data[0], labels=labels, target=target)]
    drawn = [module._rows(cases, True, np.random.default_rng(seed)) for seed in range(200)]
    assert all(len(rows) == 2 for rows in drawn)
    assert all(len(slices.indices) == 1 for rows in drawn for slices, _ in rows)
    with_lesion = sum(any(slices.indices == (7,) for slices, _ in rows) for rows in drawn)
    first = 1 / (1 + 23 / 24)
    expected = first + (1 - first) * 1 / (1 + 22 / 24)
    assert abs(with_lesion / 200 - expected) < 4 * (expected * (1 - expected) / 200) ** 0.5


@pytest.mark.slow
def test_a_few_steps_lower_the_loss_and_export_a_model(tmp_path):
    module, losses = make_module(curriculum_steps=4), []

    class Listen(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(trainer.callback_metrics["train/answer_loss"]))

    make_trainer(tmp_path, 30, callbacks=[Listen()], enable_checkpointing=False).fit(module, make_data())
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])
    assert QwenVLPolicy(model=str(tmp_path / "model")).identity()["sha256"] == module.student.identity()["sha256"]


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path):
    whole = make_module(curriculum_steps=3)
    make_trainer(tmp_path / "whole", 6, enable_checkpointing=False).fit(whole, make_data())
    stopped = make_module(curriculum_steps=3)
    callbacks = [StopAt(5), SpecCheckpoint(every_n_train_steps=4)]
    make_trainer(tmp_path / "stopped", 6, callbacks=callbacks).fit(stopped, make_data())
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 5  # the second epoch's third batch comes next
    resumed = make_module(curriculum_steps=3)
    trainer = make_trainer(tmp_path / "stopped", 6, callbacks=[SpecCheckpoint()])
    trainer.fit(resumed, make_data(), ckpt_path=last, weights_only=True)
    assert trainer.global_step == 6
    assert digest(resumed) == digest(whole)


@pytest.mark.slow
def test_a_checkpoint_rebuilds_a_module_made_in_python(tmp_path):
    module = make_module(seed=4)
    trainer = make_trainer(tmp_path, 3, callbacks=[SpecCheckpoint()], limit_val_batches=1)
    trainer.fit(module, make_data())
    rebuilt = load_module(tmp_path / "checkpoints" / "last.ckpt")
    assert digest(rebuilt) == digest(module)
    assert isinstance(rebuilt, SFTModule)
    assert (rebuilt.seed, rebuilt.reword) == (4, 0.5)
    assert main(["convert", str(tmp_path / "checkpoints" / "last.ckpt"), str(tmp_path / "exported")]) == 0
    exported, trained = QwenVLPolicy(model=str(tmp_path / "exported")), module.student
    assert exported.identity()["sha256"] == trained.identity()["sha256"]
    assert exported.template == trained.template


def test_hostile_checkpoints_are_refused(tmp_path):
    path = tmp_path / "x.ckpt"
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_module(path)
    path.write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="not a file of plain values"):
        load_module(path)
    spec = {"class_path": "os.system", "init_args": {"command": f"touch {tmp_path}/canary"}}
    torch.save({"state_dict": {}, "medvol_spec": spec}, path)
    with pytest.raises(CheckpointError, match="not a component"):
        load_module(path)
    torch.save({"state_dict": {}, "evil": Evil(tmp_path / "canary")}, path)
    with pytest.raises(CheckpointError, match="plain values"):
        load_module(path)
    assert not (tmp_path / "canary").exists()


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_only_a_trainable_policy_can_be_fitted():
    with pytest.raises(ConfigError, match="nothing to train"):
        SFTModule(ScriptedPolicy(), ExtrudePropagator())


def test_warm_up_then_cosine():
    share = warm_up_then_cosine(10, 110, 0.1)
    assert share(0) == pytest.approx(0.1)
    assert share(9) == share(10) == pytest.approx(1.0)
    assert share(60) == pytest.approx(0.1 + 0.9 * 0.5)
    assert share(110) == share(500) == pytest.approx(0.1)
    assert warm_up_then_cosine(0, 10, 0.0)(0) == 1.0
