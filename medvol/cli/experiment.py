"""``medvol fit|validate|test|predict``: an experiment from YAML, run by Lightning.

A run has one folder, ``trainer.default_root_dir``; by default it is ``runs/`` and the name of the configuration.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException

from medvol.cli.diagnosis import say_unknown
from medvol.cli.experiment_help import describe_verb
from medvol.cli.folder_policies import expand_folders
from medvol.cli.next_steps import describe_end, describe_fit, describe_stop
from medvol.cli.parsing import ComponentParsing, RefusedSettingsError, building, explain_failure, explain_refusal
from medvol.cli.places import find_homes, find_misplaced
from medvol.cli.remarks import calm
from medvol.cli.run_start import choose_folder, end_stopped, enter_folder, find_start, is_first_process
from medvol.cli.saved_settings import SaveSettings
from medvol.cli.seeds import follow_seed
from medvol.cli.settings import prefer_whole_numbers, read_configs, require_config_option
from medvol.cli.trainer_faults import explain_trainer, is_of_trainer, require_own_steps, require_sound
from medvol.core.errors import CheckpointError, ConfigError, MedvolError
from medvol.evaluation.module import EvaluationModule
from medvol.terminal.progress import Work, hide_progress
from medvol.training.checkpoint import add_checkpoints, read_checkpoint
from medvol.training.checkpoint_files import use_whole_files
from medvol.training.data import CaseDataModule
from medvol.training.grpo import GRPOModule
from medvol.training.loggers import default_loggers
from medvol.training.progress import TrainingProgress
from medvol.training.rejection import RejectionModule
from medvol.training.scratch.module import ScratchModule
from medvol.training.sft import SFTModule
from medvol.training.strategies import FSDP2Strategy

MODULES = (EvaluationModule, GRPOModule, RejectionModule, SFTModule, ScratchModule, CaseDataModule, FSDP2Strategy)
"""Their bare names work in YAML because they are imported here; they need no registry."""

INTERRUPTED = 130
TERMINATED = 143


class ExperimentParser(ComponentParsing, LightningArgumentParser):
    """Lightning's parser, with components by name."""


class ExperimentCLI(LightningCLI):
    """Lightning's command line with this project's defaults.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``; None builds the objects and runs nothing.
        arguments: What follows it.
        screen: Keeps what is shown of the run, until it is over.
    """

    def __init__(self, verb: str | None, arguments: Sequence[str], screen: ExitStack) -> None:
        self.verb = verb
        self.screen = screen
        self.arguments = expand_folders(arguments)
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=ExperimentParser,
            trainer_defaults={"deterministic": True, "enable_model_summary": False},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=SaveSettings,
            save_config_kwargs={"config_filename": f"{verb}.yaml"},
            parser_kwargs={verb: describe_verb(verb)} if verb else {},
            args=[*([verb] if verb else []), *self.arguments],
            run=verb is not None,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The verb alone: the parsers of the others would take time and never be used."""
        return {self.verb: {*LightningCLI.subcommands()[self.verb], "verbose"}} if self.verb else {}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """The parser; a configuration that it writes begins with the version that wrote it."""
        return super().init_parser(**{**kwargs, "dump_header": [f"medvol {version('medvol-r1')}"]})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; what is refused is explained in a sentence.

        Raises:
            ConfigError: A setting is at fault.
            CheckpointError: The checkpoint to load is missing or none.
        """
        accepted = accepted_keys(self.verb)
        require_config_option(self.verb or "check", self.arguments)
        written = read_configs(self.arguments)
        check_outline(written, accepted)
        try:
            super().parse_arguments(parser, args)
        except RefusedSettingsError as refusal:
            raise explain_refusal(refusal, written, accepted) from refusal
        settings = self._part(self.config)
        require_sound(settings.trainer, settings.seed_everything)
        follow_seed(settings)

    def _parse_ckpt_path(self) -> None:
        """Leave the checkpoint to ``find_start``: Lightning would read it here, and look for settings that it lacks."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what a fit takes besides Lightning's options."""
        prefer_whole_numbers(parser)
        if self.verb == "fit":
            parser.add_argument("--overwrite", action="store_true", help="delete the run that is in the run folder")

    def before_instantiate_classes(self) -> None:
        """Give the run its folder, find the checkpoint that it starts from, and begin to show how far it is.

        Raises:
            CheckpointError: The checkpoint is missing, or is none.
            ConfigError: A fit would mix with the run that is in the folder.
            RecordError: A file of the user's own would be replaced.
        """
        settings = self._part(self.config)
        self.folder = choose_folder(settings, self.verb)
        if settings.trainer.enable_progress_bar is False or not is_first_process():
            self.screen.enter_context(hide_progress())
        self.work = Work(self.verb or "preparing")
        self.screen.enter_context(self.work)
        self.work.advance(0, "preparing")
        self.start = find_start(self.folder, settings.get("ckpt_path"), self.verb == "fit")
        if self.verb == "fit" and not settings.trainer.fast_dev_run and is_first_process():
            self.save_config_kwargs |= enter_folder(self.folder, self.start.checkpoint, settings)

    def instantiate_classes(self) -> None:
        """Build module, data and trainer.

        Raises:
            ConfigError: A constructor refuses its settings.
        """
        with building("the experiment", self._explain):
            super().instantiate_classes()
        if self.start.checkpoint is not None:
            self._part(self.config_init).ckpt_path = str(self.start.checkpoint)

    def _explain(self, error: BaseException, what: str) -> MedvolError:
        if isinstance(error, MisconfigurationException) or is_of_trainer(error):
            return explain_trainer(error, self._part(self.config).trainer)
        return explain_failure(error, what)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; that of a fit has loggers and checkpoints unless the experiment has its own."""
        settings = self._part(self.config_init).trainer
        if settings.logger is None:
            kwargs["logger"] = self.verb == "fit" and default_loggers(Path(settings.default_root_dir))
        callbacks = own if isinstance(own := settings.callbacks or [], list) else [own]
        if self.verb == "fit" and settings.enable_checkpointing is not False:
            callbacks = add_checkpoints(callbacks)
        if settings.enable_progress_bar is not False:
            callbacks = self._add_progress(callbacks)
        trainer = super().instantiate_trainer(**{**kwargs, "callbacks": callbacks})
        use_whole_files(trainer, read_checkpoint)
        return trainer

    def fit(self, **arguments: Any) -> None:
        """Train, with no other fit in the folder; say at the end what there is now, and after a stop how it goes on.

        Raises:
            ConfigError: The module only evaluates.
        """
        if type(self.model).training_step is LightningModule.training_step:
            raise ConfigError(
                f"{type(self.model).__name__} evaluates a policy and trains none; to train one set model.class_path to "
                "SFTModule (from true answers) or GRPOModule (from rewards), to score it use `medvol test`"
            )
        if not self.model.automatic_optimization:
            require_own_steps(self._part(self.config).trainer, type(self.model).__name__)
        alone = self._part(self.config_init).trainer.fast_dev_run or not is_first_process()
        try:
            with nullcontext() if alone else self.folder.claim(lambda: self.trainer.global_step > 0):
                self._call_trainer(**arguments)
        except (KeyboardInterrupt, SystemExit, SIGTERMException):
            if self.trainer.is_global_zero:
                self.work.finish()
                print(f"medvol: {describe_stop(self.trainer)}", file=sys.stderr)
            raise
        self.work.finish()
        if self.trainer.is_global_zero:
            print("\n".join(describe_fit(self.trainer, self.datamodule)))
            if self.trainer.global_step <= self.start.step:
                print(f"medvol: no step was trained: {describe_end(self.start.step)}", file=sys.stderr)

    def validate(self, **arguments: Any) -> None:
        """Validate; the module prints its scores."""
        self._call_trainer(**arguments, verbose=False)

    def test(self, **arguments: Any) -> None:
        """Test; the module prints its scores."""
        self._call_trainer(**arguments, verbose=False)

    def predict(self, **arguments: Any) -> None:
        """Answer; the module writes the answers."""
        self._call_trainer(**arguments)

    def _call_trainer(self, **arguments: Any) -> None:
        """Run the verb; what the trainer has against the settings is told with the setting.

        Raises:
            ConfigError: It cannot run with them.
        """
        try:
            getattr(self.trainer, str(self.verb))(**arguments)
        except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
            if isinstance(error, MisconfigurationException) or is_of_trainer(error):
                raise explain_trainer(error, self._part(self.config).trainer) from error
            raise

    def _add_progress(self, callbacks: list[Callback]) -> list[Callback]:
        """Show the run, unless the experiment has a display of its own, beside which no other has room."""
        if any(isinstance(callback, ProgressBar) for callback in callbacks):
            self.work.finish()
            self.screen.enter_context(hide_progress())
            return callbacks
        return [*callbacks, TrainingProgress(self.work)]

    def _part(self, config: Namespace) -> Namespace:
        """The settings of the verb."""
        part: Namespace = config[self.verb] if self.verb else config
        return part


def accepted_keys(verb: str | None) -> dict[str, Any]:
    """Type hints of the top-level keys of an experiment for a verb."""
    options: dict[str, Any] = {}
    if verb:
        left_out = {*LightningCLI.subcommands()[verb], "verbose", "return"}
        hints = get_type_hints(getattr(Trainer, verb))
        options = {key: hint for key, hint in hints.items() if key not in left_out}
    return {
        "model": LightningModule,
        "data": LightningDataModule,
        "trainer": Trainer,
        "seed_everything": bool | int,
        **options,
        **({"overwrite": bool} if verb == "fit" else {}),
        "config": str,
        "print_config": str,
        "help": str,
    }


def run(verb: str, arguments: Sequence[str]) -> int:
    """Run the verb; 1 when a case of a prediction failed. An interrupted fit has saved its last checkpoint.

    Of several processes the first one tells how it went: it would be killed if another one ended with a code before it.

    Raises:
        ConfigError: A setting is at fault.
        CheckpointError: A checkpoint does not fit the module.
    """
    try:
        with calm(), ExitStack() as screen:
            module = ExperimentCLI(verb, arguments, screen).model
    except SIGTERMException:
        return end_stopped(verb, TERMINATED)
    except SystemExit as stop:
        interrupted = isinstance(stop.__context__, KeyboardInterrupt)
        return end_stopped(verb, INTERRUPTED) if interrupted else int(stop.code or 0)
    except (RuntimeError, ValueError) as error:
        if not re.search("loading state_dict|loaded state dict", str(error)):  # torch, of a network and an optimiser
            raise
        raise CheckpointError("the checkpoint does not fit the module; use the settings it was made with") from error
    return int(isinstance(module, EvaluationModule) and module.failed and is_first_process())


def check_outline(settings: dict[str, Any], accepted: dict[str, Any]) -> None:
    """Refuse what jsonargparse passes over: unknown keys without content, and groups that are no mappings."""
    unknown = next((key for key in settings if key not in accepted), None)
    if unknown is not None:
        homes = find_homes(unknown, settings, accepted)
        raise ConfigError(say_unknown(unknown, "", None, accepted, homes))
    if misplaced := find_misplaced(settings, accepted):
        raise ConfigError(misplaced)
