"""What the trainer has against its settings, with the setting and its value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from jsonargparse import Namespace

from medvol.cli.places import find_class
from medvol.core.errors import ConfigError
from medvol.training.refused_callbacks import require_sound_callbacks

_LEAST = {
    "max_steps": -1,
    "max_epochs": -1,
    "min_steps": 0,
    "min_epochs": 0,
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "num_sanity_val_steps": -1,
    "num_nodes": 1,
    "fast_dev_run": 0,
}
"""Whole numbers of the trainer that are looked at late, or not at all; -1 sets no end."""

_LARGEST_SEED = 2**32 - 1

_TRAINER_CODE = ("lightning", "lightning_utilities")


def require_sound(settings: Mapping[str, Any], seed: Any) -> None:
    """Refuse numbers that the trainer would stumble over.

    Args:
        settings: Of the trainer.
        seed: ``seed_everything``.

    Raises:
        ConfigError: One is out of range.
    """
    for key, least in _LEAST.items():
        value = settings.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value < least:
            end = " (-1 sets no end)" if key in ("max_steps", "max_epochs") else ""
            raise ConfigError(f"trainer.{key} is {value}; it must be {least} or more{end}")
    if settings.get("overfit_batches"):
        raise ConfigError(
            f"trainer.overfit_batches is {settings['overfit_batches']}, and batches here are whole volumes; leave it "
            "out, and give data.train a data set of few volumes"
        )
    clip = settings.get("gradient_clip_val")
    if clip is not None and not clip >= 0:
        raise ConfigError(f"trainer.gradient_clip_val is {clip}; it must be 0 or more")
    callbacks = settings.get("callbacks") or []
    named = [
        (find_class(callback.get("class_path", ""), None), callback.get("init_args") or {})
        for callback in (callbacks if isinstance(callbacks, list) else [callbacks])
        if isinstance(callback, Mapping | Namespace)
    ]
    require_sound_callbacks((kind, own.get("use_buffers", True)) for kind, own in named if isinstance(kind, type))
    if seed is None:
        raise ConfigError(f"seed_everything is empty; give a whole number from 0 to {_LARGEST_SEED}, or leave it out")
    if not isinstance(seed, bool) and not 0 <= seed <= _LARGEST_SEED:
        raise ConfigError(f"seed_everything is {seed}; it must be from 0 to {_LARGEST_SEED}")


def require_own_steps(settings: Mapping[str, Any], module: str) -> None:
    """Refuse what the trainer cannot do for a module that steps its optimiser itself.

    Raises:
        ConfigError: It is asked for.
    """
    if settings.get("gradient_clip_val"):
        raise ConfigError(
            f"trainer.gradient_clip_val is {settings['gradient_clip_val']}, and {module} scales its gradients itself; "
            "leave it out and set model.optimizer.max_grad_norm"
        )
    if settings.get("accumulate_grad_batches", 1) != 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches is {settings['accumulate_grad_batches']}, and {module} takes its steps "
            "itself; leave it out and set data.batch_size"
        )


def explain_trainer(error: BaseException, settings: Mapping[str, Any]) -> ConfigError:
    """The trainer's own words, after the setting that they are about.

    Args:
        error: Raised by the trainer.
        settings: Of the trainer.
    """
    words = " ".join(str(error).split()).rstrip(".!")
    for key, value in _candidates(words, settings):
        advice = "; set it to cpu, or to auto" if key == "accelerator" else ""
        return ConfigError(f"trainer.{key} is {value!r}, which cannot be used here: {words}{advice}")
    return ConfigError(f"the trainer cannot run with these settings: {words}")


def is_of_trainer(error: BaseException) -> bool:
    """Whether the trainer's own code raised an error, rather than what it calls."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", "")) if trace is not None else ""
    return module.partition(".")[0] in _TRAINER_CODE


def _candidates(words: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings that a text names, then those whose value it names."""
    for end in ("`? ?[=(]{value}\\b", "=", ""):  # ``devices=0`` says more than the word alone
        for key, value in settings.items():
            pattern = rf"\b{re.escape(key)}\b" + end.replace("{value}", re.escape(str(value)))
            if value is not None and re.search(pattern, words):
                yield key, value
    for key in ("accelerator", "strategy", "precision", "devices", "max_time"):
        value = settings.get(key)
        if isinstance(value, str) and re.search(rf"\b{re.escape(value)}\b", words, re.IGNORECASE):
            yield key, value
