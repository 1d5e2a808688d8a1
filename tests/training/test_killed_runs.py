"""A run killed again and again, and the run that was left alone."""

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
from safetensors import safe_open

STEPS, KILLS = 12, 10
HOOKS = ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end", "on_save_checkpoint")


class KillAt(pl.Callback):
    """Ends the process on the spot, as the kernel would."""

    def __init__(self, hook: str, step: int) -> None:
        def die(trainer, *args) -> None:
            if trainer.global_step >= step:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(self, hook, die)


def run(folder: Path, hook: str = "", step: int = 0) -> None:
    """Fit from where the folder's last checkpoint stands; called in a process of its own."""
    from medvol.training.checkpoint import SpecCheckpoint
    from tests.training.test_grpo import make_data, make_module, make_trainer

    last = folder / "checkpoints" / "last.ckpt"
    callbacks: list[pl.Callback] = [KillAt(hook, step)] if hook else []
    trainer = make_trainer(folder, STEPS, callbacks=[*callbacks, SpecCheckpoint(every_n_train_steps=1)])
    module = make_module(loss={"beta": 0.05}, optimizer={"warmup_steps": 2})
    trainer.fit(module, make_data(5), ckpt_path=last if last.exists() else None, weights_only=True)


def start(folder: Path, hook: str = "", step: int = 0) -> int:
    code = (
        "import torch; torch.set_num_threads(1); from pathlib import Path; "
        f"from tests.training.test_killed_runs import run; run(Path({str(folder)!r}), {hook!r}, {step})"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    with safe_open(folder / "model" / "model.safetensors", "np") as file:
        for name in sorted(file.keys()):
            found.update(name.encode() + file.get_tensor(name).tobytes())
    return found.hexdigest()


@pytest.mark.slow
def test_ten_kills_leave_no_trace(tmp_path):
    assert start(tmp_path / "whole") == 0
    draw = random.Random(0)
    moments = [(draw.choice(HOOKS), step) for step in sorted(draw.choices(range(STEPS - 1), k=KILLS))]
    for hook, step in moments:
        assert start(tmp_path / "killed", hook, step) == -signal.SIGKILL
    assert start(tmp_path / "killed") == 0
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
