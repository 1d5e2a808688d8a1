"""The experiment that ``medvol plan`` looks at: its module and data without its trainer, whatever that is for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, LightningModule

from medvol.cli.experiment import MODULES
from medvol.cli.folder_policies import from_here
from medvol.cli.parsing import ComponentParser, RefusedSettingsError, building, explain_refusal
from medvol.cli.settings import open_model, read_config
from medvol.core.errors import ConfigError, MedvolError
from medvol.core.roles import TrainablePolicy
from medvol.guarding.cases import look_up
from medvol.planning.plan import require_plannable
from medvol.planning.shadow import Device
from medvol.planning.step import Step
from medvol.training.data import CaseDataModule, require_enough_volumes
from medvol.training.grpo import GRPOModule
from medvol.training.module import TrainingModule
from medvol.training.rejection import RejectionModule
from medvol.training.sft import SFTModule
from medvol.training.volume_loader import group_by_volume

_LONGEST_CHAIN = 5

_NUMBERS = ("max_steps", "max_epochs", "limit_train_batches")
"""Settings of the trainer that say how long a run is."""


@dataclass
class PlannedExperiment:
    """What is planned.

    Args:
        module: Trains.
        policy: Of the module.
        step: Sizes of its step.
        device: Where it would run.
        trainer: Settings of the trainer, as the file has them.
        volumes: Of an epoch; None where the data cannot be read.
        assumptions: What was taken for granted, in sentences.
    """

    module: TrainingModule
    policy: TrainablePolicy
    step: Step
    device: Device
    trainer: Mapping[str, Any]
    volumes: int | None = None
    assumptions: list[str] = field(default_factory=list)


def read_experiment(path: str, options: Any) -> PlannedExperiment:
    """Read an experiment, with what the command line changes of it.

    Args:
        path: YAML file.
        options: ``model``, ``device``, ``devices``, ``answer_tokens`` and ``queries``; None leaves the file's.

    Raises:
        ConfigError: It is no training of a vision-language policy, or a setting is at fault.
    """
    settings = read_config(path)
    if not settings.get("model") or not settings.get("data"):
        raise ConfigError(f"{path!r} has no 'model' and 'data'; give the experiment of a fit")
    settings["model"] = open_model(settings, Path(path).parent)
    assumptions: list[str] = []
    _choose_model(settings, Path(path), options.model, assumptions)
    module, data = _build(path, settings)
    policy = module.policy
    require_plannable(policy)
    trainer = settings.get("trainer") or {}
    if not isinstance(trainer, Mapping):
        raise ConfigError(f"'trainer' in {path!r} holds no keys and values; it needs keys such as 'max_epochs'")
    for key in _NUMBERS:
        if not isinstance(trainer.get(key), int | float | None):
            raise ConfigError(f"trainer.{key} is {trainer[key]!r}; give a number")
    if trainer.get("precision", "32-true") not in (32, "32", "32-true"):
        assumptions.append(f"trainer.precision is {trainer['precision']}; planned in the types of the policy's weights")
    device: Device = options.device or _find_device(trainer, assumptions)
    step = _size_step(module, data, trainer, options, assumptions)
    planned = PlannedExperiment(module, policy, step, device, trainer, assumptions=assumptions)
    _look_at_data(planned, data, options.queries)
    return planned


def _choose_model(settings: dict[str, Any], path: Path, model: str | None, assumptions: list[str]) -> None:
    """Put a model in the policy's settings: that of the command line, or that which an earlier stage starts from."""
    own = _model_of(settings)
    if own is None and model is None:
        return
    chosen = model if model is not None else _find_origin(str(own), path)
    if chosen != own:
        node = settings["model"].get("init_args") if isinstance(settings["model"], Mapping) else None
        policy = node.get("policy") if isinstance(node, dict) else None
        policy = {"class_path": policy} if isinstance(policy, str) else policy
        if not isinstance(node, dict) or not isinstance(policy, dict):
            return  # there is no policy, which is refused where it is built
        node["policy"] = {**policy, "init_args": {**(policy.get("init_args") or {}), "model": chosen}}
        if model is None:
            assumptions.append(f"{own} does not exist yet; planned as {chosen}, which an earlier stage starts from")


def _model_of(settings: Mapping[str, Any]) -> str | None:
    """The policy's model as a file has it; None where it names none."""
    node: Any = settings
    for key in ("model", "init_args", "policy", "init_args", "model"):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, str) else None


def _find_origin(model: str, path: Path) -> str:
    """The model that a run starts from whose folder does not exist yet, by the experiments beside this one."""
    for _ in range(_LONGEST_CHAIN):
        if Path(model).exists() or Path(model).name != "model":
            break
        for file in sorted(path.parent.glob("*.yaml")):
            try:
                other = read_config(str(file))
            except ConfigError:
                continue  # some other file
            trainer = other.get("trainer")
            folder = trainer.get("default_root_dir") if isinstance(trainer, Mapping) else None
            if isinstance(folder, str) and Path(folder) == Path(model).parent and _model_of(other) not in (None, model):
                model = str(_model_of(other))
                break
        else:
            break
    return model


def _build(path: str, settings: Mapping[str, Any]) -> tuple[TrainingModule, CaseDataModule]:
    chosen = {"model": settings["model"], "data": settings["data"]}
    parser = ComponentParser(exit_on_error=True)
    parser.add_subclass_arguments(LightningModule, "model", required=True)
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    accepted = {"model": LightningModule, "data": LightningDataModule}
    assert MODULES, "imported, so that their bare names are known"
    try:
        with from_here(), chdir(Path(path).parent):
            parsed = parser.parse_string(yaml.safe_dump(chosen, sort_keys=False))
    except RefusedSettingsError as refusal:
        raise explain_refusal(refusal, chosen, accepted) from refusal
    with building("the experiment"):
        built = parser.instantiate(parsed)
    if not isinstance(built.model, TrainingModule):
        raise ConfigError(f"{type(built.model).__name__} trains nothing; give an experiment of SFTModule or GRPOModule")
    if not isinstance(built.data, CaseDataModule):
        raise ConfigError(f"{type(built.data).__name__} cannot be planned; give the data as a CaseDataModule")
    return built.model, built.data


def _find_device(trainer: Mapping[str, Any], assumptions: list[str]) -> Device:
    accelerator = trainer.get("accelerator", "auto")
    if accelerator in ("cpu", "gpu", "cuda"):
        return "cpu" if accelerator == "cpu" else "cuda"
    assumptions.append("the trainer takes any accelerator; planned for an NVIDIA GPU (--device cpu plans for a CPU)")
    return "cuda"


def _count_devices(trainer: Mapping[str, Any], assumptions: list[str]) -> int:
    """Devices of all machines; one a machine where the file leaves their number open."""
    devices, machines = trainer.get("devices", 1), _read_count(trainer, "num_nodes")
    listed = len(devices) if isinstance(devices, list) else devices
    if isinstance(listed, int) and listed >= 1:
        return listed * machines
    assumptions.append(
        f"trainer.devices is {devices!r}; planned for one device a machine (--devices says how many there are)"
    )
    return machines


def _read_count(trainer: Mapping[str, Any], key: str) -> int:
    """A whole number of the trainer; 1 where it has none."""
    count = trainer.get(key) or 1
    if not isinstance(count, int) or count < 1:
        raise ConfigError(f"trainer.{key} is {count!r}; give a whole number, 1 or more")
    return count


def _size_step(
    module: TrainingModule, data: CaseDataModule, trainer: Mapping[str, Any], options: Any, assumptions: list[str]
) -> Step:
    if not isinstance(module, GRPOModule | SFTModule):
        raise ConfigError(f"{type(module).__name__} cannot be planned; SFTModule, GRPOModule and RejectionModule can")
    if type(module) not in (GRPOModule, RejectionModule, SFTModule):
        assumptions.append(f"what {type(module).__name__} adds to {type(module).__mro__[1].__name__} is not counted")
    devices = options.devices or _count_devices(trainer, assumptions)
    require_enough_volumes(data.batch_size, devices)
    strategy = trainer.get("strategy", "auto")
    if "deepspeed" in str(strategy).lower() and devices > 1:
        assumptions.append("trainer.strategy shares the optimiser's states out; planned as if each device had them all")
    common = Step(
        method="SFT",
        batch=data.batch_size,
        devices=devices,
        sharded="fsdp2" in str(strategy).lower(),
        workers=data.num_workers,
        moments=module.optimizer.moments,
    )
    if isinstance(module, SFTModule):
        accumulation = _read_count(trainer, "accumulate_grad_batches")
        return replace(common, accumulation=accumulation, answer_tokens=options.answer_tokens)
    return replace(
        common,
        method="rejection sampling" if isinstance(module, RejectionModule) else "GRPO",
        answers=module.rollouts.group_size,
        answer_tokens=options.answer_tokens or module.evaluation.max_new_tokens,
        volumes_per_pass=module.optimizer.volumes_per_pass,
        reference=module.loss.beta > 0,
        updates=module.optimizer.updates_per_rollout,
    )


def _look_at_data(planned: PlannedExperiment, data: CaseDataModule, queries: int | None) -> None:
    """Take the number of volumes and queries from the data, and the size of a scan from its first case."""
    dataset, say = data.splits["train"], planned.assumptions.append
    found = None
    try:
        if dataset is not None:
            groups = group_by_volume(dataset)
            planned.volumes = len(groups)
            if len(groups) < planned.step.batch:
                say(f"data.batch_size is {planned.step.batch}, and a batch holds the {len(groups)} volumes of the data")
                planned.step = replace(planned.step, batch=max(1, len(groups)))
            found = max(map(len, groups), default=None)
            case = look_up(dataset, 0)
            planned.step = replace(planned.step, query=case.query.text, scan_shape=case.volume.shape)
    except (MedvolError, OSError) as error:
        z, y, x = planned.step.scan_shape
        say(f"the training data cannot be read here ({error}); a scan is taken to have {z} x {y} x {x} voxels")
    asked = queries or data.queries_per_volume
    if asked is None and found is None:
        say("how many queries a volume has is not known; planned for 1 (--queries says how many)")
    own = min(asked or found or 1, found or asked or 1) if queries is None else queries
    planned.step = replace(planned.step, queries=own)
