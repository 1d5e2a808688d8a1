"""The configuration that a run keeps of itself, and what a fit does about the run that was in its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

from medvol.cli.settings import read_yaml
from medvol.core.atomic_files import write_whole
from medvol.core.errors import ConfigError
from medvol.evaluation.module import EvaluationModule
from medvol.training.former_run import FormerRun
from medvol.training.run_folder import VOLUMES, RunFolder

log = logging.getLogger(__name__)

_EXPERIMENT = ("model", "data", "seed_everything")
"""Keys that make an experiment what it is; the others say how it is run."""


class SaveSettings(SaveConfigCallback):
    """Writes the configuration to the run folder, whole, once nothing is refused any more.

    That of a test is written together with its scores.

    Args:
        former: The run that this one replaces; it is deleted after the first step.
        goes_on: The run that is in the folder goes on, so that it is told when the experiment is another one.
    """

    def __init__(self, *args: Any, former: FormerRun | None = None, goes_on: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})
        self.former = former
        self.goes_on = goes_on

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save nothing yet: the run may still be refused."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set aside what is replaced."""
        if self.former is not None:
            self.former.set_aside()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save: the state of the checkpoint is loaded by now, and the first validation is through."""
        super().setup(trainer, pl_module, "fit")

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Delete what is replaced once a step was taken."""
        if trainer.global_step > 0:
            self._drop_former()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Delete it also when the fit ends without a step."""
        self._drop_former()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless a fit validates."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            super().setup(trainer, pl_module, "validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, or let the module do so."""
        super().setup(trainer, pl_module, "test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        super().setup(trainer, pl_module, "predict")

    def _drop_former(self) -> None:
        if self.former is not None:
            self.former.drop()
            self.former = None

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file, and say what differs from the one that it replaces."""
        path = Path(trainer.default_root_dir) / self.config_filename
        settings = self.config.clone()
        settings.pop("overwrite", None)
        text = self.parser.dump(settings, skip_none=False)
        if self.goes_on and path.is_file():
            _tell_changes(path, yaml.safe_load(text))
        if stage == "test" and isinstance(pl_module, EvaluationModule):
            pl_module.beside[path.name] = text
            return
        with write_whole(path) as partial:
            partial.write_text(text, encoding="utf-8")


def refuse_to_delete_sources(settings: Any, folder: RunFolder, doomed: Sequence[Path]) -> None:
    """Refuse to delete what the settings read.

    A folder above the run folder may be read: that of a whole project does not mean the results of its runs.

    Args:
        settings: Of the fit.
        folder: Of the fit.
        doomed: What would be deleted.

    Raises:
        ConfigError: A setting names a file or folder that would be deleted, or a folder of data in which masks would.
    """
    gone = [path.resolve() for path in doomed]
    volumes = [path.resolve() for path in folder.find(VOLUMES)]
    for key, value in _flatten(settings):
        if not isinstance(value, str) or not value or key == "trainer.default_root_dir":
            continue
        place = Path(value).resolve()
        holds_data = key.startswith("data.") and folder.holds(place)
        if any(place.is_relative_to(path) for path in gone):
            what = repr(value)
        elif holds_data and any(path.is_relative_to(place) for path in volumes):
            what = f"masks in {value!r}"
        else:
            continue
        raise ConfigError(
            f"--overwrite would delete {what}, which {key} reads; choose another folder "
            "(--trainer.default_root_dir FOLDER)"
        )


def _tell_changes(path: Path, settings: dict[str, Any]) -> None:
    former, now = (dict(_flatten({key: tree.get(key) for key in _EXPERIMENT})) for tree in (read_yaml(path), settings))
    changed = [key for key in {**former, **now} if former.get(key) != now.get(key)]
    if changed:
        listed = "; ".join(f"{key}: {former.get(key)} before, {now.get(key)} now" for key in changed[:8])
        more = f"; and {len(changed) - 8} more" if len(changed) > 8 else ""
        log.warning(
            "the experiment is not that of %s, which is replaced: %s%s; the optimiser goes on as the checkpoint has it",
            path,
            listed,
            more,
        )


def _flatten(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Keys with dots and the values at the leaves."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if items is None:
        yield name, node
        return
    for key, child in items:
        yield from _flatten(child, f"{name}.{key}" if name else str(key))
