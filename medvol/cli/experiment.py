"""``medvol fit|validate|test|predict``: an experiment from YAML, run by Lightning.

A run has one folder, ``trainer.default_root_dir``; by default it is ``runs/`` and the name of the configuration.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from medvol.cli.diagnosis import find_fault
from medvol.cli.parsing import ComponentParsing, RefusedSettingsError, explain_failure, explain_refusal
from medvol.cli.saved_settings import SaveSettings, refuse_to_delete_sources
from medvol.cli.settings import FILE_SUFFIXES, gather_settings, read_yaml
from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.evaluation.module import EvaluationModule
from medvol.core.training.checkpoint import SpecCheckpoint, read_checkpoint
from medvol.core.training.checkpoint_files import use_whole_files
from medvol.core.training.data import CaseDataModule
from medvol.core.training.grpo import GRPOModule
from medvol.core.training.run_folder import RunFolder
from medvol.core.training.sft import SFTModule

log = logging.getLogger(__name__)

MODULES = (EvaluationModule, GRPOModule, SFTModule, CaseDataModule)
"""Their bare names work in YAML because they are imported here; they need no registry."""

INTERRUPTED = 130
TERMINATED = 143

_REMARKS = (
    r"(?s).*(JsonargparseDeprecationWarning|removed\s+in\s+v5)",  # LightningCLI calls what jsonargparse 5 removes
    "LightningCLI's args parameter is intended",  # this module is the command line
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning calls what torch deprecates
    "You have overridden `transfer_batch_to_device`",  # on purpose: cases stay as they are
    "You are using a custom batch sampler",  # it yields every case
    "Be aware that when using `ckpt_path`, callbacks",  # a test needs no callback that saves
    ".*does not have many workers",  # num_workers is the user's choice
)
_NO_MODEL = ("--model=EvaluationModule", "--model.policy=OraclePolicy", "--model.propagator=ExtrudePropagator")
"""Stands in where only data are looked at: Lightning's command line builds no experiment without a model."""


class ExperimentParser(ComponentParsing, LightningArgumentParser):
    """Lightning's parser, with components by name."""


class ExperimentCLI(LightningCLI):
    """Lightning's command line with this project's defaults.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``; None builds the objects and runs nothing.
        arguments: What follows it.
    """

    def __init__(self, verb: str | None, arguments: Sequence[str]) -> None:
        self.verb = verb
        self.arguments = list(arguments)
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=ExperimentParser,
            trainer_defaults={"deterministic": True},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=SaveSettings,
            save_config_kwargs={"config_filename": f"{verb}.yaml"},
            args=[*([verb] if verb else []), *arguments],
            run=verb is not None,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The verb alone: the parsers of the others would take time and never be used."""
        return {self.verb: LightningCLI.subcommands()[self.verb]} if self.verb else {}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; what is refused is explained in a sentence.

        Raises:
            ConfigError: A setting is at fault.
            CheckpointError: The checkpoint to load is missing or none.
        """
        accepted = self._accepted_keys()
        _check_outline(gather_settings(self.arguments), accepted)
        try:
            super().parse_arguments(parser, args)
        except RefusedSettingsError as refusal:
            raise explain_refusal(refusal, self.arguments, accepted) from refusal

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a fit takes besides Lightning's options."""
        if self.verb == "fit":
            parser.add_argument("--overwrite", action="store_true", help="delete the run that is in the run folder")

    def before_instantiate_classes(self) -> None:
        """Give the run its folder, and find the checkpoint that it starts from.

        Raises:
            CheckpointError: The checkpoint is missing, or is none.
            ConfigError: A fit would mix with the run that is in the folder.
        """
        settings = self._part(self.config)
        if settings.trainer.default_root_dir is None:
            files = settings.get("config") or []
            name = Path(str(files[-1])).stem if files else "experiment"
            settings.trainer.default_root_dir = str(Path("runs") / name)
        self.folder = RunFolder(settings.trainer.default_root_dir)
        self.checkpoint = self._find_checkpoint(settings.get("ckpt_path"))
        if self.verb == "fit" and not settings.trainer.fast_dev_run and rank_zero_only.rank == 0:
            self._enter_folder(settings)

    def _find_checkpoint(self, word: str | None) -> Path | None:
        """The file to start from, looked at before anything is built."""
        if word is None:
            return None
        path = self.folder.find_checkpoint(word)
        step = read_checkpoint(path).get("global_step")
        if rank_zero_only.rank == 0:
            print(f"checkpoint {path}{'' if step is None else f', step {step}'}")
        return path

    def _enter_folder(self, settings: Namespace) -> None:
        """Go on with the run in the folder, replace it, or refuse."""
        goes_on = self.checkpoint is not None and self.folder.holds(self.checkpoint)
        if settings.overwrite:
            if goes_on:
                raise ConfigError(f"--overwrite would delete {self.checkpoint}, which --ckpt_path reads; drop one")
            doomed = self.folder.find()
            refuse_to_delete_sources(settings.as_dict(), doomed)
            self.save_config_kwargs["doomed"] = doomed
        elif not goes_on:
            self.folder.require_free()
        elif self.folder.find(("evaluation.json",)):
            log.warning("%s: evaluation.json is of the weights before this fit; test again after it", self.folder.path)

    def instantiate_classes(self) -> None:
        """Build module, data and trainer.

        Raises:
            ConfigError: A constructor refuses its settings.
        """
        try:
            super().instantiate_classes()
        except (TypeError, ValueError, ImportError, MisconfigurationException) as error:
            raise explain_failure(error, "the experiment") from error
        if self.checkpoint is not None:
            self._part(self.config_init).ckpt_path = str(self.checkpoint)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, with loggers and checkpoints unless the experiment has its own."""
        settings = self._part(self.config_init).trainer
        if settings.logger is None:
            kwargs["logger"] = default_loggers(Path(settings.default_root_dir))
        if self.verb == "fit" and settings.enable_checkpointing is not False:
            own = settings.callbacks or []
            kwargs["callbacks"] = add_checkpoints(own if isinstance(own, list) else [own])
        trainer = super().instantiate_trainer(**kwargs)
        use_whole_files(trainer, read_checkpoint)
        return trainer

    def fit(self, **arguments: Any) -> None:
        """Train, with no other fit in the folder."""
        if self.trainer.fast_dev_run or rank_zero_only.rank:
            self.trainer.fit(**arguments)
            return
        with self.folder.claim():
            self.trainer.fit(**arguments)

    def _part(self, config: Namespace) -> Namespace:
        """The settings of the verb."""
        part: Namespace = config[self.verb] if self.verb else config
        return part

    def _accepted_keys(self) -> dict[str, Any]:
        """Type hints of the top-level keys."""
        options: dict[str, Any] = {}
        if self.verb:
            left_out = {*self.subcommands()[self.verb], "return"}
            hints = get_type_hints(getattr(Trainer, self.verb))
            options = {key: hint for key, hint in hints.items() if key not in left_out}
        return {
            "model": LightningModule,
            "data": LightningDataModule,
            "trainer": Trainer,
            "seed_everything": bool | int,
            **options,
            **({"overwrite": bool} if self.verb == "fit" else {}),
            "config": str,
            "print_config": str,
            "help": str,
        }


def run(verb: str, arguments: Sequence[str]) -> int:
    """Run the verb; an interrupted fit has saved its last checkpoint.

    Raises:
        ConfigError: A setting is at fault.
        CheckpointError: A checkpoint does not fit the module.
    """
    try:
        with _calm():
            ExperimentCLI(verb, arguments)
    except SIGTERMException:
        return TERMINATED
    except SystemExit as stop:
        return INTERRUPTED if isinstance(stop.__context__, KeyboardInterrupt) else int(stop.code or 0)
    except MisconfigurationException as error:
        raise ConfigError(f"{verb} cannot run: {error}") from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise CheckpointError(
            "the checkpoint does not fit the module; use the configuration it was made with"
        ) from error
    return 0


def build_data(config: str | Path) -> CaseDataModule:
    """Build an experiment without running it, and give its data; a file that holds nothing but data will do.

    Raises:
        ConfigError: A setting is at fault, or the data are no CaseDataModule.
    """
    settings = read_yaml(Path(config))
    stand_in = _NO_MODEL if isinstance(settings, dict) and settings.keys() == {"data"} else ()
    with _calm():
        data = ExperimentCLI(None, ["--config", str(config), *stand_in]).datamodule
    if not isinstance(data, CaseDataModule):
        raise ConfigError(f"only the data sets of a CaseDataModule can be checked; data is a {type(data).__name__}")
    return data


def default_loggers(folder: Path) -> list[Logger]:
    """TensorBoard curves in the run folder, and a CSV table for each start in ``metrics/``."""
    return [TensorBoardLogger(folder, name="", version=""), CSVLogger(folder, name="metrics")]


def add_checkpoints(callbacks: list[Callback]) -> list[Callback]:
    """Add the usual checkpoints to callbacks that save none."""
    saving = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    return callbacks if saving else [*callbacks, SpecCheckpoint()]


def _check_outline(settings: dict[str, Any], accepted: dict[str, Any]) -> None:
    """Refuse what jsonargparse passes over: unknown keys without content, and a trainer that is no mapping."""
    fault = find_fault({key: None for key in settings if key not in accepted}, accepted)
    trainer = settings.get("trainer", {})
    if not (isinstance(trainer, dict) or str(trainer).endswith(FILE_SUFFIXES)):
        fault = f"trainer must hold keys and values; got {trainer!r}"
    if fault:
        raise ConfigError(fault)


@contextmanager
def _calm() -> Iterator[None]:
    """Leave out what a user can do nothing about: remarks on Lightning's own code, and advertisements."""
    console = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    console.addFilter(_is_no_tip)
    with warnings.catch_warnings():
        for message in _REMARKS:
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            console.removeFilter(_is_no_tip)


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
