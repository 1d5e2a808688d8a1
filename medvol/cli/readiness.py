"""What a fit, a test or a prediction asks of an experiment before it loads anything, asked by ``medvol check``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer

from medvol.checking.findings import Finding
from medvol.cli.experiment import MODULES, ExperimentParser, accepted_keys, check_outline
from medvol.cli.folder_policies import from_here
from medvol.cli.parsing import RefusedSettingsError, building, explain_refusal
from medvol.cli.settings import read_yaml
from medvol.cli.trainer_faults import require_sound
from medvol.core.errors import MedvolError
from medvol.core.roles import Policy, Propagator, RewardTerm, RolloutEngine
from medvol.evaluation.module import EvaluationModule
from medvol.guarding.guard import name_component, require_ready
from medvol.training.data import CaseDataModule
from medvol.training.module import TrainingModule
from medvol.training.movement import require_wide

_ACCEPTED = {"model": LightningModule, "trainer": Trainer, "seed_everything": bool | int}
_VERBS = ("fit", "validate", "test", "predict")


def find_obstacles(config: Path, data: CaseDataModule) -> Iterator[Finding]:
    """What would stop a run of the experiment before it begins: settings, weights, extras.

    The trainer is not built, as it may be meant for another machine.

    Args:
        config: YAML file of the experiment; one without a model has nothing to ask.
        data: Its data, built.
    """
    settings = read_yaml(config)
    if not isinstance(settings, dict) or not settings.get("model"):
        return
    try:
        module = _build(config, settings)
    except MedvolError as error:
        yield Finding("refused_setting", "experiment", str(error))
        return
    if isinstance(module, EvaluationModule):
        for component in module.needed_components:
            yield from _ask(component)
    if isinstance(module, TrainingModule) and data.augmentation is not None:
        try:
            data.augmentation.load()
        except MedvolError as error:
            yield Finding("not_ready", "data.augment", str(error))


def _build(config: Path, settings: dict[str, Any]) -> LightningModule:
    """The module; the settings of the trainer are parsed and looked at."""
    check_outline(settings, {key: hint for verb in _VERBS for key, hint in accepted_keys(verb).items()})
    chosen = {key: settings[key] for key in _ACCEPTED if settings.get(key) is not None}
    parser = ExperimentParser(exit_on_error=True)
    parser.add_subclass_arguments(LightningModule, "model", required=True)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, sub_configs=True)
    parser.add_argument("--seed_everything", type=_ACCEPTED["seed_everything"], default=True)
    assert MODULES, "imported, so that their bare names are known"
    try:
        with from_here(), chdir(config.parent):
            parsed = parser.parse_string(yaml.safe_dump(chosen, sort_keys=False))
    except RefusedSettingsError as refusal:
        raise explain_refusal(refusal, chosen, _ACCEPTED) from refusal
    is_empty = settings.get("seed_everything", True) is None
    require_sound(parsed.trainer, None if is_empty else parsed.seed_everything)
    with building("the experiment"):
        built = parser.instantiate(parsed)
    module: LightningModule = built.model
    if isinstance(module, TrainingModule):
        require_wide(parsed.trainer.precision)
    return module


def _ask(component: Policy | Propagator | RewardTerm | RolloutEngine) -> Iterator[Finding]:
    try:
        require_ready(component)
    except MedvolError as error:
        yield Finding("not_ready", name_component(component), str(error))
