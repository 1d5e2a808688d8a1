"""What SFT learns from, that it learns, and that a resumed run is the run that was not stopped."""

import hashlib
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from scipy import ndimage

from medvol.cli import main
from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.specs import rebuild
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings
from medvol.evaluation.settings import EvaluationSettings
from medvol.grounding.grammar import parse_evidence
from medvol.grounding.prompts import build_prompts
from medvol.policies.scripted import ScriptedPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.checkpoint import SpecCheckpoint, load_policy, read_checkpoint
from medvol.training.data import CaseDataModule
from medvol.training.schedule import count_steps, warm_up_then_cosine
from medvol.training.settings import AnswerSettings, OptimizerSettings
from medvol.training.sft import SFTModule
from medvol.training.true_answers import write_answer

SHAPE = (8, 48, 48)


def make_module(**settings) -> SFTModule:
    defaults = {
        "optimizer": OptimizerSettings(learning_rate=1e-3, warmup_steps=2),
        "evaluation": EvaluationSettings(max_new_tokens=40),
        "reword": 0.5,
    }
    return SFTModule(TinyPolicy(), ExtrudePropagator(), **{**defaults, **settings})


def answer_of(module: SFTModule, case, slices) -> str:
    rng = np.random.default_rng(0)
    return write_answer(case, slices, module.answers, True, module.policy.template, rng).text


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
    module = make_module(reword=0.0)
    module.configure_model()
    module.log = lambda *args, **kwargs: None
    module.__dict__["_trainer"] = type("Stub", (), {"global_step": 0})()
    cases = [PhantomDataset("train", 1, shape=SHAPE)[i] for i in range(3)]
    loss = module.training_step([cases], 0)
    policy = module.policy
    pieces = []
    for case in cases:
        prompt = build_prompts(case.volume, [case.query.text], policy.template)
        answer = policy.encode(answer_of(module, case, prompt[0].slices))
        pieces.append(policy.log_probs(prompt, [[answer]])[0][0])
    torch.testing.assert_close(loss, -torch.cat(pieces).mean(), atol=1e-5, rtol=0)


def test_a_target_on_no_slice_shown_is_not_taught_as_absent(caplog):
    module = make_module(reword=0.0)
    module.configure_model()
    module.log = lambda *args, **kwargs: None
    module.__dict__["_trainer"] = type("Stub", (), {"global_step": 0})()
    case = PhantomDataset("train", 1, shape=(48, 48, 48))[0]
    shown = module.draw([case]).indices
    hidden = next(z for z in range(48) if z not in shown)
    thin = np.zeros_like(case.target)
    thin[hidden, 10:20, 10:20] = True
    unseen = replace(case, case_id="thin", target=thin)
    absent = replace(unseen, query=replace(case.query, kind="absent"), target=np.zeros_like(thin))
    [row] = module.choose_rows([case, unseen, absent], module.draw([case]), np.random.default_rng(0))
    assert [one.case_id for one in row.taught] == [case.case_id, absent.case_id]
    assert "thin: its target lies on none of the 24 slices shown" in caplog.text
    assert module.training_step([[unseen]], 0) is None


def test_answers_are_true_anchors():
    module = make_module(answers=AnswerSettings(label_rule="largest"))
    module.configure_model()
    data = PhantomDataset("train", 1, shape=SHAPE)
    for case in (data[i] for i in range(len(data))):
        slices = build_prompts(case.volume, ["x"], module.policy.template)[0].slices
        evidence = parse_evidence(answer_of(module, case, slices), SHAPE)
        areas = case.target.sum((1, 2))
        assert areas[evidence.key_slice] == areas.max()
        rows, columns = np.nonzero(case.target[evidence.key_slice])
        step_px = 48 * module.policy.template.coordinate_step / 1000
        low, high = evidence.boxes.min(0), evidence.boxes.max(0)
        assert abs(low[0] - columns.min()) <= step_px
        assert abs(high[3] - rows.max() - 1) <= step_px
        assert (case.query.meaning or case.query.target) in evidence.rationale


@pytest.mark.slow
def test_a_checkpoint_rebuilds_a_module_made_in_python(tmp_path):
    module = make_module(seed=4, answers=AnswerSettings(label_rule="largest", think=False))
    trainer = make_trainer(tmp_path, 3, callbacks=[SpecCheckpoint()], limit_val_batches=1)
    trainer.fit(module, make_data())
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert load_policy(last).identity()["sha256"] == module.policy.identity()["sha256"]
    rebuilt = rebuild(read_checkpoint(last)["medvol_spec"], SFTModule)
    assert isinstance(rebuilt, SFTModule)
    assert (rebuilt.seed, rebuilt.reword) == (4, 0.5)
    assert (rebuilt.answers, rebuilt.optimizer, rebuilt.evaluation) == (
        AnswerSettings(label_rule="largest", think=False),
        OptimizerSettings(learning_rate=1e-3, warmup_steps=2),
        EvaluationSettings(max_new_tokens=40),
    )
    assert main(["convert", str(last), str(tmp_path / "exported")]) == 0
    exported, trained = TinyPolicy(model=str(tmp_path / "exported")), module.policy
    assert exported.identity()["sha256"] == trained.identity()["sha256"]
    assert exported.template == trained.template


def test_hostile_checkpoints_are_refused(tmp_path):
    path = tmp_path / "x.ckpt"
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_policy(path)
    path.write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="not a file of plain values"):
        load_policy(path)
    spec = {"schema": 1, "component": "os.system", "settings": {"command": f"touch {tmp_path}/canary"}}
    module = {"schema": 1, "component": "medvol/SFTModule", "settings": {"policy": spec}}
    torch.save({"state_dict": {}, "medvol_spec": module}, path)
    with pytest.raises(CheckpointError, match="not a component"):
        load_policy(path)
    torch.save({"state_dict": {}, "evil": Evil(tmp_path / "canary")}, path)
    with pytest.raises(CheckpointError, match="plain values"):
        load_policy(path)
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


@pytest.mark.parametrize(
    ("ends", "updates", "steps"),
    [
        ({"max_epochs": 1}, 4, 24),
        ({"max_epochs": 2}, 1, 12),
        ({"max_epochs": 1, "max_steps": 1000}, 4, 24),
        ({"max_epochs": 1, "max_steps": 10}, 4, 10),
        ({"max_epochs": -1, "max_steps": 50}, 4, 50),
        ({"max_epochs": -1}, 4, float("inf")),
    ],
)
def test_steps_of_a_fit_are_batches_times_updates(ends, updates, steps):
    """Six batches an epoch."""
    found = []

    class Counting(BoringModel):
        def configure_optimizers(self):
            found.append(count_steps(self.trainer, updates))
            self.trainer.should_stop = True
            return super().configure_optimizers()

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(**ends, limit_train_batches=6, limit_val_batches=0, accelerator="cpu", **quiet).fit(Counting())
    assert found == [steps]


def test_a_schedule_without_an_end_stays_at_its_peak():
    share = warm_up_then_cosine(2, float("inf"), 0.1)
    assert [share(step) for step in (0, 1, 2, 10**6)] == [0.5, 1.0, 1.0, 1.0]


def test_warm_up_then_cosine():
    share = warm_up_then_cosine(10, 110, 0.1)
    assert share(0) == pytest.approx(0.1)
    assert share(9) == share(10) == pytest.approx(1.0)
    assert share(60) == pytest.approx(0.1 + 0.9 * 0.5)
    assert share(110) == share(500) == pytest.approx(0.1)
    assert warm_up_then_cosine(0, 10, 0.0)(0) == 1.0


def test_sft_teaches_as_many_anchors_as_the_template_allows():
    dataset = PhantomDataset("train", 2, shape=(24, 48, 48), lesion_share=0.0, nodule_share=1.0)
    case = next(dataset[i] for i in range(len(dataset)) if dataset[i].query.target == "lesion")
    _, parts = ndimage.label(case.target, np.ones((3, 3, 3)))
    template = replace(TINY_TEMPLATE, max_anchors=4)
    slices = build_prompts(case.volume, [case.query.text], template)[0].slices
    for most in (1, 4):
        rng = np.random.default_rng(0)
        truth = write_answer(case, slices, AnswerSettings(), True, replace(template, max_anchors=most), rng)
        read = parse_evidence(truth.text, case.volume.shape, most)
        keys = [anchor.key_slice for anchor in read.anchors]
        assert keys == sorted(keys)
        assert len(keys) == (parts if most == 4 else 1) > 0
        for anchor in read.anchors:
            assert case.target[anchor.key_slice].any()
    given = replace(case, anchor=read)
    again = write_answer(given, slices, AnswerSettings(think=False), True, template, np.random.default_rng(0))
    assert [anchor.key_slice for anchor in again.evidence.anchors] == keys
    fewer = replace(template, max_anchors=parts - 1)
    taught = write_answer(given, slices, AnswerSettings(), True, fewer, np.random.default_rng(0)).evidence
    assert len(taught.anchors) == parts - 1
