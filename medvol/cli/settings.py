"""Settings as the user wrote them: configuration files and command line as one tree, before anything is built.

jsonargparse reads the same sources for itself; this tree serves to refuse what is no configuration file, and to find
what is at fault when jsonargparse refuses the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from medvol.core.errors import ConfigError
from medvol.core.yaml_text import UNREADABLE, RefusedYAMLError, judge_yaml

COMPONENT_KEYS = ("class_path", "init_args", "dict_kwargs")
"""What a mapping that names a component may hold."""

_KINDS = {"list": "a list", "str": "a text", "int": "a number", "float": "a number", "bool": "a truth value"}

_PROBLEMS = {"but found another document": "a second document begins with ---; give one document"}
"""Words of the YAML reader that say little to somebody who has not written one."""

FILE_SUFFIXES = (".yaml", ".yml", ".json")
"""A value that ends in one of these may be a file that holds the value."""


def gather_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """Merge all ``--config`` files and ``--key value`` arguments, the later over the earlier.

    Raises:
        ConfigError: A configuration file is missing or is none.
    """
    tree: dict[str, Any] = {}
    for key, value in _options(arguments):
        if key == "config":
            _merge(tree, _read_config(value))
        elif value is not None:
            _assign(tree, key.split("."), _parse(value))
    return tree


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


def read_yaml(path: Path) -> Any:
    """Read a YAML file as jsonargparse does; names of further files in it count from its folder.

    Raises:
        ConfigError: It is missing, is not text, or is not YAML.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise ConfigError(f"the configuration file {str(path)!r} {what}; give the path of a YAML file")
    try:
        text = path.read_text(encoding="utf-8")
        content = load_yaml(text)
        _refuse_repeats(yaml.compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), path, set())
    except UnicodeDecodeError as error:
        raise ConfigError(f"the configuration file {str(path)!r} is not UTF-8 text; give a YAML file") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}" if mark else ""
        problem = _PROBLEMS.get(str(error.problem), error.problem)
        if mark and text[mark.index : mark.index + 1] == "\t":
            problem = "it holds a tab; indent with spaces"
        raise ConfigError(f"the configuration file {str(path)!r} is not YAML{where}: {problem}") from error
    except RefusedYAMLError as error:
        raise ConfigError(f"the configuration file {str(path)!r} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the configuration file {str(path)!r} is not YAML: {error}") from error
    return _locate(content, path.parent)


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


def as_component(value: Any) -> Any:
    """Bring the short form of a component (its name) to the long one."""
    return {"class_path": value} if isinstance(value, str) else value


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Keys and values of the options, dashes left out; the value is None where there is none."""
    for argument, after in zip(arguments, [*arguments[1:], "--"], strict=False):
        if argument == "-c":
            argument = "--config"
        if argument.startswith("--"):
            key, equals, value = argument[2:].partition("=")
            yield key, value if equals else None if after.startswith("--") else after


def _read_config(text: str | None) -> dict[str, Any]:
    if not text:
        raise ConfigError("--config needs the path of a YAML file")
    content = read_yaml(Path(text))
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        kind = (
            "is empty"
            if content in (None, "")
            else f"holds {_KINDS.get(type(content).__name__, 'other keys than words')}, not keys and values"
        )
        raise ConfigError(f"the configuration file {text!r} {kind}; it needs keys such as 'model', 'data', 'trainer'")
    return content


def _refuse_repeats(node: yaml.Node | None, path: Path, seen: set[int]) -> None:
    """Refuse a key that is given twice, of which YAML would keep the last."""
    if node is None or id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    lines: dict[str, int] = {}
    for child in node.value:
        key, value = child if isinstance(node, yaml.MappingNode) else (None, child)
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            line = key.start_mark.line + 1
            if key.value in lines:
                raise ConfigError(
                    f"the configuration file {str(path)!r} has {key.value!r} twice, at lines {lines[key.value]} and "
                    f"{line}; keep one"
                )
            lines[key.value] = line
        _refuse_repeats(value, path, seen)


def _locate(node: Any, folder: Path) -> Any:
    """Give names of files that lie in the folder their path."""
    if isinstance(node, dict):
        return {key: _locate(child, folder) for key, child in node.items()}
    if isinstance(node, list):
        return [_locate(child, folder) for child in node]
    if isinstance(node, str) and node.endswith(FILE_SUFFIXES) and (folder / node).is_file():
        return str(folder / node)
    return node


def _parse(text: str) -> Any:
    try:
        value = load_yaml(text)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, bool) and text.casefold() not in ("true", "false") else value


def _merge(tree: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        mine = tree.get(key)
        if isinstance(mine, dict) and isinstance(value, dict) and mine.get("class_path") == value.get("class_path"):
            _merge(mine, value)
        else:
            tree[key] = value


def _assign(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set one value, passing through ``init_args`` where the key leaves it out."""
    key, *rest = keys
    if "class_path" in tree and key not in COMPONENT_KEYS:
        tree = tree.setdefault("init_args", {})
    if key.endswith("+"):
        key, value = key[:-1], [*tree.get(key[:-1], []), value]
    if not rest:
        _merge(tree, {key: value})
        return
    child = as_component(tree.get(key))
    tree[key] = child if isinstance(child, dict) else {}
    _assign(tree[key], rest, value)
