"""Lightning's early stopping, by YAML, on medvol's own validation."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medvol.cli import main

Write = Callable[..., Path]


def stopper(patience: int, **settings: object) -> dict[str, object]:
    given = {"monitor": "val/dsc", "mode": "max", "patience": patience, **settings}
    return {"trainer__callbacks": [{"class_path": "EarlyStopping", "init_args": given}], "trainer__max_steps": 30}


@pytest.mark.parametrize("patience", [1, 2])
def test_a_fit_ends_when_validation_no_longer_gains(patience: int, experiment: Write, tmp_path: Path) -> None:
    """All validations score the same, so the first is the best."""
    assert main(["fit", "--config", str(experiment(**stopper(patience)))]) == 0
    run = tmp_path / "run"
    best, last = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert best["global_step"] == 3
    assert last["global_step"] == 3 + 3 * patience
    assert (run / "model").is_dir()


def test_the_same_command_again_does_not_train_on(experiment: Write, tmp_path: Path) -> None:
    config, last = experiment(**stopper(1)), tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert main(["fit", "--config", str(config)]) == 0
    before = torch.load(last, weights_only=True)
    assert main(["fit", "--config", str(config), "--ckpt_path", str(last)]) == 0
    after = torch.load(last, weights_only=True)
    assert after["global_step"] == before["global_step"] == 6
    for name, weight in before["state_dict"].items():
        torch.testing.assert_close(after["state_dict"][name], weight, rtol=0, atol=0)


def test_a_measure_that_is_not_logged_is_named(experiment: Write, refused: Callable[..., str]) -> None:
    message = refused("fit", "--config", experiment(**stopper(1, monitor="val/dice")))
    assert "val/dice" in message
