"""Constructors stay small: settings that belong together are one object, and nothing is handed on by position."""

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import medvol
from medvol.cli.description import MODULES
from medvol.core.errors import ConfigError
from medvol.core.registry import DATASETS, POLICIES, PROPAGATORS, REGISTRIES, REWARDS
from medvol.policies.centre import CentreBoxPolicy

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


NEEDED = {"model": "model", "root": "scans", "url": "http://127.0.0.1:1/v1", "policy": CentreBoxPolicy()}
"""What a constructor wants before it looks at a choice of words."""

NO_CHOICE = "no such word"


def parts_of(hint: Any) -> list[Any]:
    return [hint, *(part for inner in get_args(hint) for part in parts_of(inner))]


def settings_of(component: type) -> Iterator[type]:
    """A component, and the groups of settings that its constructor takes, and those that these take."""
    yield component
    for hint in get_type_hints(component.__init__).values():
        for part in parts_of(hint):
            if dataclasses.is_dataclass(part) and part.__name__.endswith(("Settings", "Rule", "Template")):
                yield from settings_of(part)


def choices() -> list[tuple[type, str, Any]]:
    """Every parameter that takes one of some words: of components, of modules, and of their settings."""
    components = [registry.get(name) for registry in REGISTRIES for name in registry.names()]
    modules = [getattr(import_module(place), name) for name, place in MODULES.items()]
    public = [value for name in medvol.__all__ if inspect.isclass(value := getattr(medvol, name))]
    settings = [one for one in public if one.__name__.endswith("Settings")]
    found = dict.fromkeys(part for one in [*components, *modules, *settings] for part in settings_of(one))
    return [
        (one, name, hint)
        for one in found
        for name, hint in get_type_hints(one.__init__).items()
        if any(get_origin(part) is Literal for part in parts_of(hint))
    ]


@pytest.mark.parametrize(("component", "name", "hint"), choices(), ids=lambda value: getattr(value, "__name__", None))
def test_a_word_that_is_no_choice_is_refused(component: type, name: str, hint: Any) -> None:
    """From Python too, where nothing reads the types."""
    wanted = inspect.signature(component).parameters.values()
    needed = {one.name: NEEDED[one.name] for one in wanted if one.default is one.empty}
    wrong = [NO_CHOICE] if any(get_origin(part) is list for part in parts_of(hint)) else NO_CHOICE
    with pytest.raises(ConfigError) as refused:
        component(**needed, **{name: wrong})
    assert name in str(refused.value)
    assert repr(NO_CHOICE) in str(refused.value)


def test_the_words_of_all_roles_are_looked_at() -> None:
    looked_at = {(one.__name__, name) for one, name, _ in choices()}
    assert {("MedSAM2Propagator", "precision"), ("VisionLanguagePolicy", "dtype"), ("LossSettings", "kind")} < looked_at
    assert {("AxialReward", "normalise"), ("PhantomDataset", "split"), ("PhrasingSettings", "phrasing")} < looked_at
