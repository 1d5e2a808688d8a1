"""Stops at every place of a fit: a run that goes on from one is the run that was left alone."""

import hashlib
import logging
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging

from medvol.core.roles import RewardTerm
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.checkpoint import SpecCheckpoint
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.settings import (
    AnswerSettings,
    GRPOOptimizerSettings,
    OptimizerSettings,
    RolloutSettings,
    StartSettings,
)
from medvol.training.sft import SFTModule
from tests.fixtures.light_policy import LightDataset, LightPolicy

STEPS = 7
IN_A_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
AROUND = ("on_train_start", "on_train_epoch_start", "on_train_epoch_end", "on_save_checkpoint", "on_train_end")
VALIDATING = (
    "on_validation_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
)
KINDS = {
    "sft": {},
    "validated each epoch": {"limit_val_batches": 2},
    "validated each other step": {"limit_val_batches": 2, "val_check_interval": 2, "check_val_every_n_epoch": None},
    "accumulating": {"accumulate_grad_batches": 2},
    "accumulating and validated": {"accumulate_grad_batches": 2, "limit_val_batches": 2, "val_check_interval": 1},
    "part of the data": {"limit_train_batches": 2, "limit_val_batches": 1},
    "epochs": {"max_steps": -1, "max_epochs": 3, "limit_val_batches": 1},
    "stopped early, each epoch": {"limit_val_batches": 1, "max_steps": 40, "patience": 1},
    "stopped early, each other step": {
        "limit_val_batches": 1,
        "max_steps": 40,
        "val_check_interval": 2,
        "check_val_every_n_epoch": None,
        "patience": 2,
    },
    "averaged weights": {
        "limit_val_batches": 2,
        "val_check_interval": 2,
        "check_val_every_n_epoch": None,
        "averaged": True,
    },
    "grpo": {},
    "grpo of two updates": {},
}


class LengthReward(RewardTerm):
    """Rewards digits by their sum."""

    needs: ClassVar = frozenset({"text"})

    def __call__(self, rollout, case):
        return sum(int(letter) for letter in rollout.completion.text) % 10 / 10


class SignalAt(pl.Callback):
    """Raises a signal once, in a hook, from a step on."""

    def __init__(self, hook: str, step: int, number: int) -> None:
        self.sent = False

        def send(trainer, *args, **kwargs) -> None:
            if trainer.global_step >= step and not self.sent and not trainer.sanity_checking:
                self.sent = True
                signal.raise_signal(number)

        setattr(self, hook, send)


def make_module(kind: str):
    if not kind.startswith("grpo"):
        optimizer = OptimizerSettings(learning_rate=0.05, warmup_steps=2)
        return SFTModule(LightPolicy(), ExtrudePropagator(), AnswerSettings(jitter=0.2), optimizer, reword=0.5)
    updates = 2 if kind.endswith("updates") else 1
    return GRPOModule(
        LightPolicy(),
        ExtrudePropagator(),
        [LengthReward()],
        rollouts=RolloutSettings(group_size=4),
        optimizer=GRPOOptimizerSettings(learning_rate=0.05, updates_per_rollout=updates),
        start=StartSettings(min_parse_rate=0.0),
    )


def fit(folder: Path, kind: str, *callbacks: pl.Callback) -> int:
    """Fit from where the folder's last checkpoint stands; returns the exit code."""
    settings = {"max_steps": STEPS, "max_epochs": -1, "limit_val_batches": 0, **KINDS[kind]}
    patience = settings.pop("patience", None)
    stoppers = [] if patience is None else [EarlyStopping("val/dsc", mode="max", patience=patience)]
    averages = [EMAWeightAveraging(use_buffers=False, decay=0.7)] if settings.pop("averaged", False) else []
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*stoppers, *averages, *callbacks, SpecCheckpoint()],
        deterministic=True,
        **settings,
    )
    data = CaseDataModule(LightDataset(7), LightDataset(2, first=20), batch_size=2, seed=3)
    last = folder / "checkpoints" / "last.ckpt"
    try:
        trainer.fit(make_module(kind), data, ckpt_path=last if last.exists() else None, weights_only=True)
    except SystemExit as stop:
        return 130 if isinstance(stop.__context__, KeyboardInterrupt) else 143
    return 0


def digest(folder: Path) -> str:
    """Weights, optimiser, schedule, place in the data, and which checkpoint is the best."""
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    found = hashlib.sha256()
    for name, tensor in sorted(content["state_dict"].items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    kept = content["callbacks"]["SpecCheckpoint"]
    best = (kept["best_model_score"], {Path(path).name: score for path, score in kept["best_k_models"].items()})
    place = content["loops"]["fit_loop"]["state_dict"]
    averaged = content.get("current_model_state", {})  # "state_dict" holds the average then
    for part in (averaged, content["optimizer_states"], content["lr_schedulers"], content["global_step"], place, best):
        found.update(repr(part).encode())
    return found.hexdigest()


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)


def stops(kind: str) -> list[tuple[str, int, int]]:
    """Each hook, at another step and with the other signal; MEDVOL_EVERY_STOP=1 takes every step of every hook."""
    hooks = [*IN_A_STEP, *AROUND, *(VALIDATING if KINDS[kind].get("limit_val_batches") else ())]
    if os.environ.get("MEDVOL_EVERY_STOP"):
        places = [(hook, step) for hook in hooks for step in range(STEPS)]
    else:
        places = [(hook, place % (STEPS - 1)) for place, hook in enumerate(hooks)]
    return [(hook, step, (signal.SIGINT, signal.SIGTERM)[step % 2]) for hook, step in places]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_is_the_run_that_was_left_alone(kind, tmp_path):
    assert fit(tmp_path / "whole", kind) == 0
    expected = digest(tmp_path / "whole")
    found = {}
    for hook, step, number in stops(kind):
        folder = tmp_path / "stopped"
        code = fit(folder, kind, SignalAt(hook, step, number))
        assert code in (0, 130 if number == signal.SIGINT else 143)
        codes = (code, fit(folder, kind))
        if codes[1] or digest(folder) != expected:
            found[hook, step] = codes
        shutil.rmtree(folder)
    assert not found


class TaughtPolicy(LightPolicy):
    """Remembers what it was taught, one text an answer."""

    def __init__(self, start: float = 0.5, model: str | None = None) -> None:
        super().__init__(start, model)
        self.taught: list[str] = []

    def encode(self, text):
        self.taught.append(text)
        return super().encode(text)


class AlikeDataset(LightDataset):
    """Cubes that all lie in the same place, so only the draws tell their answers apart."""

    def __getitem__(self, index):
        return replace(super().__getitem__(index), target=super().__getitem__(0).target)


@pytest.mark.filterwarnings("ignore")
def test_each_batch_of_an_optimiser_step_has_draws_of_its_own(tmp_path):
    policy = TaughtPolicy()
    module = SFTModule(policy, ExtrudePropagator(), AnswerSettings(jitter=0.2, think=False))
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=2,
        accumulate_grad_batches=3,
        limit_val_batches=0,
        callbacks=[SpecCheckpoint()],
    )
    trainer.fit(module, CaseDataModule(AlikeDataset(6), batch_size=1, seed=3))
    assert len(policy.taught) == 6
    assert len(set(policy.taught)) == 6
