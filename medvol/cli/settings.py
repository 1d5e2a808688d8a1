"""Configuration files, judged before jsonargparse reads them: what is none is refused with its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import zip_longest
from operator import or_
from pathlib import Path
from typing import Any, get_args

import yaml
from jsonargparse import ArgumentParser, get_loader

from medvol.core.errors import ConfigError
from medvol.core.yaml_text import UNREADABLE, RefusedYAMLError, judge_yaml

_KINDS = {"list": "a list", "str": "a text", "int": "a number", "float": "a number", "bool": "a truth value"}

FILE_SUFFIXES = (".yaml", ".yml", ".json")
"""A value that ends in one of these may be a file that holds the value."""


def require_config_option(verb: str, arguments: Sequence[str]) -> None:
    """Refuse a configuration that is given without its option.

    Raises:
        ConfigError: The first word is a file, or ``config`` is written in another way.
    """
    first = arguments[0] if arguments else ""
    bare = first.lstrip("-").removeprefix("config=")
    if not first:
        raise ConfigError(f"medvol {verb} needs an experiment: medvol {verb} --config EXPERIMENT.yaml")
    if not first.startswith("-") and bare.endswith(FILE_SUFFIXES):
        raise ConfigError(f"{bare!r} stands alone; a configuration is given as: medvol {verb} --config {bare}")
    for word in arguments:
        if word.startswith("-c") and word != "-c":
            raise ConfigError(f"unknown option {word!r}; a configuration is given as: medvol {verb} --config FILE")


def read_configs(arguments: Sequence[str]) -> dict[str, Any]:
    """What all ``--config`` files hold; of a key that several have, the last one counts.

    Raises:
        ConfigError: A configuration file is missing or is none.
    """
    settings: dict[str, Any] = {}
    for word, after in zip_longest(arguments, arguments[1:], fillvalue=""):
        if word in ("-c", "--config") or word.startswith("--config="):
            settings |= read_config(word.partition("=")[2] if "=" in word else after)
    return settings


def read_config(path: str) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        ConfigError: It is missing, or holds no keys and values.
    """
    if not path or path.startswith("--"):
        raise ConfigError("--config needs the path of a YAML file")
    content = read_yaml(Path(path))
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        kind = f"holds {_KINDS.get(type(content).__name__, 'other keys than words')}, not keys and values"
        kind = "is empty" if content in (None, "") else kind
        raise ConfigError(f"the configuration file {path!r} {kind}; write settings, as in `KEY: VALUE`")
    return content


def read_model_settings(path: str) -> dict[str, Any]:
    """Settings of the model of an experiment, as ``open_model`` has them; none where it has no keys and values.

    Raises:
        ConfigError: The file is no configuration.
    """
    model = open_model(read_config(path), Path(path).parent)
    settings = model.get("init_args", model) if isinstance(model, dict) else None
    return settings if isinstance(settings, dict) else {}


def open_model(settings: Mapping[str, Any], folder: Path) -> Any:
    """The model of an experiment; where it or one of its settings is the name of a file, what that file holds.

    Args:
        settings: Of the experiment.
        folder: Where its file lies; names count from the folder of the file that has them, as for jsonargparse.

    Raises:
        ConfigError: Such a file is not YAML.
    """
    model, folder = _open_value(settings.get("model"), folder)
    if not isinstance(model, dict):
        return model
    if not isinstance(model.get("init_args"), dict):
        return {key: _open_value(value, folder)[0] for key, value in model.items()}
    return {**model, "init_args": {key: _open_value(value, folder)[0] for key, value in model["init_args"].items()}}


def _open_value(value: Any, folder: Path) -> tuple[Any, Path]:
    """What a file holds that a value names, and the folder of that file; else the value itself."""
    if isinstance(value, str) and value.endswith(FILE_SUFFIXES) and (folder / value).is_file():
        return read_yaml(folder / value), (folder / value).parent
    return value, folder


def read_yaml(path: Path) -> Any:
    """Read a YAML file as jsonargparse does.

    Raises:
        ConfigError: It is missing, is not text, or is not YAML.
    """
    name = f"the configuration file {str(path)!r}"
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise ConfigError(f"{name} {what}; give the path of a YAML file")
    try:
        text = path.read_text(encoding="utf-8")
        return load_yaml(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text; give a YAML file") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}" if mark else ""
        problem = str(error.problem).replace("but found another", "a second document begins with ---; give one")
        if mark and text[mark.index : mark.index + 1] == "\t":
            problem = "it holds a tab; indent with spaces"
        raise ConfigError(f"{name} is not YAML{where}: {problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} cannot be read: {error}") from error


def load_yaml(text: str) -> Any:
    """Build the values of a YAML text as jsonargparse does, once it is judged.

    Raises:
        yaml.YAMLError: It is not YAML, or would take too much.
    """
    judge_yaml(text)
    try:
        return get_loader("yaml")(text)
    except UNREADABLE as error:
        raise RefusedYAMLError(f"one of its values cannot be read: {error}") from error


def prefer_whole_numbers(parser: ArgumentParser) -> None:
    """Read 1 as a whole number wherever a share is allowed too: of ``limit_test_batches`` 1 is a batch, and 1.0 is all.

    The first type of a union that fits is taken. Python gives equal unions one order, that of the first one that any
    library wrote, so what 1 meant hung on what was imported before.
    """
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        if {int, float} <= set(get_args(hint)):
            others = [part for part in get_args(hint) if part not in (int, float)]
            action._typehint = reduce(or_, [int, float, *others])  # type: ignore[attr-defined]
