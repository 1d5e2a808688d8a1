"""Models in place of a policy's name: ``policy: FOLDER`` or ``bundled:base`` in YAML, ``--policy FOLDER`` elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from contextvars import ContextVar
from os.path import isfile
from typing import Any

from medvol.core.bundled import hint_at_checkpoint, is_model
from medvol.core.errors import CheckpointError
from medvol.core.specs import short_name
from medvol.weights.folder_policy import find_policy

_KEY = "policy"

_start: ContextVar[str] = ContextVar("start", default=os.curdir)


@contextmanager
def from_here() -> Iterator[None]:
    """Within it, folders of policies count from the present working folder, whichever one a parser changes into.

    A parser reads a file in the folder of that file, and the model is opened when it is back again.
    """
    before = _start.get()
    token = _start.set(os.getcwd() if before == os.curdir else before)
    try:
        yield
    finally:
        _start.reset(token)


def name_policies(value: Any) -> Any:
    """Write every folder under a key ``policy`` as the policy that wrote it, with the settings that open it.

    Folders count from where ``from_here`` was entered.

    Args:
        value: What a YAML text holds; the rest of it is given back as it is.

    Raises:
        CheckpointError: A folder is no model folder, there is none, or its policy is not installed.
    """
    with chdir(_start.get()):
        return _name_all(value)


def _name_all(value: Any) -> Any:
    if isinstance(value, list):
        return [_name_all(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _name(item) if key == _KEY else _name_all(item) for key, item in value.items()}


def expand_folders(arguments: Sequence[str]) -> list[str]:
    """Do the same for every option ``--policy`` or ``--SOMETHING.policy`` of a command line.

    Raises:
        CheckpointError: As for ``name_policies``.
    """
    joined = [part for argument in arguments for part in _split(argument)]
    return [
        _write(argument) if _is_policy(previous) else argument
        for previous, argument in zip(["", *joined], joined, strict=False)
    ]


def _split(argument: str) -> list[str]:
    """An option and its value, where it is that of a policy."""
    option, joined, value = argument.partition("=")
    return [option, value] if joined and _is_policy(option) else [argument]


def _is_policy(option: str) -> bool:
    return option == f"--{_KEY}" or (option.startswith("--") and option.endswith(f".{_KEY}"))


def _write(value: str) -> str:
    return json.dumps(_name(value)) if is_model(value) else _refuse_path(value)


def _name(value: Any) -> Any:
    if not isinstance(value, str):
        return _name_all(value)
    if not is_model(value):
        return _refuse_path(value)
    spec = find_policy(value)
    return {"class_path": short_name(spec), "init_args": spec["settings"]}


def _refuse_path(value: str) -> str:
    """Refuse what can only be meant as a model folder, where there is none; other values are given back."""
    is_settings = value.lstrip().startswith(("{", "[")) or value.endswith((".yaml", ".yml", ".json"))
    if ("/" in value and not is_settings and not isfile(value)) or value.endswith(".ckpt"):
        hint = hint_at_checkpoint(value)
        raise CheckpointError(f"there is no model folder {value!r}; give one, or the name of a policy{hint}")
    return value
