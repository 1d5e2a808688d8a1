"""Constructors stay small: settings that belong together are one object, and nothing is handed on by position."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import medvol
from medvol.cli.description import MODULES
from medvol.core.registry import DATASETS, POLICIES, PROPAGATORS, REWARDS

MOST = 14
"""Parameters of a constructor."""


def parameters_of(component: type) -> int:
    return len(inspect.signature(component).parameters)


def too_large(components: list[type]) -> list[str]:
    return [f"{one.__name__} takes {parameters_of(one)} parameters" for one in components if parameters_of(one) > MOST]


def test_no_constructor_takes_more_than_it_can_show() -> None:
    registered = [registry.get(name) for registry in (POLICIES, PROPAGATORS, REWARDS) for name in registry.names()]
    modules = [getattr(import_module(place), name) for name, place in MODULES.items()]
    public = [value for name in medvol.__all__ if inspect.isclass(value := getattr(medvol, name))]
    settings = [one for one in public if one.__name__.endswith("Settings")]
    assert len(registered) > 10
    assert len(settings) > 8
    assert not too_large([*registered, *modules, *settings])


def test_no_data_set_takes_more_than_it_can_show() -> None:
    assert not too_large([DATASETS.get(name) for name in DATASETS.names()])


def test_no_constructor_hands_settings_on_by_position() -> None:
    """A parent's constructor gets keywords; the message of an exception alone is given as it is."""
    wrong = []
    for path in sorted(Path(medvol.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__" and len(node.args) > 1:
                wrong.append(f"{path.name}, line {node.lineno}")
    assert not wrong, wrong
