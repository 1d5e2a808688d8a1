"""What ``medvol describe`` knows of a component: purpose, origin, every setting, and an example in YAML."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from enum import Enum
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from medvol.cli.hints import constructor_hints, describe_hint, group_in
from medvol.core.containment import contained, say
from medvol.core.docstrings import first_sentence, meanings, purpose, unimported_docstring
from medvol.core.errors import ConfigError, UnknownComponentError
from medvol.core.registry import REGISTRIES, Registration
from medvol.core.suggestions import suggest

MODULES = {
    "CaseDataModule": "medvol.training.data",
    "EvaluationModule": "medvol.evaluation.module",
    "GRPOModule": "medvol.training.grpo",
    "RejectionModule": "medvol.training.rejection",
    "SFTModule": "medvol.training.sft",
    "ScratchModule": "medvol.training.scratch.module",
}
"""What YAML can name besides components, and the module of each; importing it imports torch."""

_KEYS = {
    "policies": "policy",
    "propagators": "propagator",
    "rewards": "rewards",
    "datasets": "train",
    "engines": "engine",
}
_SUITABLE = {
    "Policy": "TinyPolicy",
    "TrainablePolicy": "TinyPolicy",
    "Propagator": "RegionPropagator",
    "RewardTerm": "FormatReward",
    "CaseDataset": "PhantomDataset",
}
"""Stands for a component of each role in an example."""
_SHOWN = 3
"""Settings with a default that an example shows."""


@dataclass(frozen=True)
class Setting:
    """One parameter of a constructor.

    Args:
        name: Its key in YAML.
        type: Type in words.
        required: True when it has no default.
        default: As a plain value for JSON; text where it is none.
        meaning: From the docstring; empty when it says nothing.
        settings: Settings of the group that it is, when its type is a dataclass.
    """

    name: str
    type: str
    required: bool
    default: Any
    meaning: str
    settings: Sequence[Setting] = ()


@dataclass(frozen=True)
class Description:
    """One component; its fields are those of ``medvol describe --json``.

    Args:
        name: As YAML names it.
        kind: ``policies``, ``propagators``, ``rewards``, ``datasets``, ``engines`` or ``modules``.
        distribution: Who publishes it.
        version: Version of the distribution.
        target: ``module:Class``.
        description: Its docstring up to the arguments.
        settings: Parameters of its constructor.
        example: YAML that names it.
    """

    name: str
    kind: str
    distribution: str
    version: str
    target: str
    description: str
    settings: Sequence[Setting]
    example: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self, width: int | None) -> Iterator[str]:
        """The page.

        Args:
            width: Fold words to it; None folds nothing.
        """
        yield from (self.name, f"one of {self.kind}, {self.distribution} {self.version}".strip(), self.target, "")
        yield from _fold(self.description, width)
        yield from ("", "settings" if self.settings else "no settings")
        yield from _setting_lines(self.settings, "  ", width)
        yield from ("", "in YAML", *textwrap.indent(self.example, "  ").splitlines())


def describe(name: str) -> list[Description]:
    """Describe everything of one name.

    Raises:
        UnknownComponentError: Nothing of that name is registered.
        ComponentImportError: It cannot be imported.
    """
    if name in MODULES:
        component = getattr(import_module(MODULES[name]), name)
        return [_describe(component, _module_row(name))]
    found = [registry for registry in REGISTRIES if name in registry]
    if not found:
        names = [*MODULES, *(known for registry in REGISTRIES for known in registry)]
        raise UnknownComponentError(
            f"no component is named {name!r}; `medvol list` shows them all{suggest(name, names)}"
        )
    return [
        _describe(registry.get(name), next(row for row in registry.describe() if row.name == name))
        for registry in found
    ]


def module_rows() -> list[Registration]:
    """Rows for ``medvol list`` of what needs no registry; none is imported."""
    return [_module_row(name) for name in MODULES]


def _module_row(name: str) -> Registration:
    summary = first_sentence(unimported_docstring(MODULES[name], name))
    return Registration("modules", name, "medvol-r1", version("medvol-r1"), f"{MODULES[name]}:{name}", summary=summary)


def _describe(component: type, row: Registration) -> Description:
    settings = _settings(component)
    return Description(
        row.name,
        row.kind,
        row.distribution,
        row.version,
        row.target,
        purpose(component),
        settings,
        _example(component, row, settings),
    )


def _settings(component: type, chosen: Any = None) -> list[Setting]:
    """Parameters of a constructor; a group's defaults are those of the object that its owner chose."""
    hints = constructor_hints(component)
    said = meanings(component)
    return [
        _setting(
            name, hints.get(name, parameter.annotation), _default(component, parameter, chosen), said.get(name, "")
        )
        for name, parameter in inspect.signature(component).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _setting(name: str, hint: Any, default: Any, meaning: str) -> Setting:
    required = default is inspect.Parameter.empty
    group = group_in(hint)
    settings = _settings(group, default if isinstance(default, group) else None) if group else ()
    kind = hint if isinstance(hint, str) else describe_hint(hint)
    return Setting(name, kind, required, None if required else _plain(default), meaning, settings)


def _default(component: type, parameter: inspect.Parameter, chosen: Any) -> Any:
    """Default of a parameter; ``Parameter.empty`` where it has none."""
    if chosen is not None:
        return getattr(chosen, parameter.name)
    made = [
        field.default_factory
        for field in (fields(component) if is_dataclass(component) else ())
        if field.name == parameter.name and field.default_factory is not MISSING
    ]
    return made[0]() if made else parameter.default


def _plain(value: Any) -> Any:
    """A default as JSON and YAML can hold it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return repr(value)


def _setting_lines(settings: Sequence[Setting], indent: str, width: int | None) -> Iterator[str]:
    for setting in settings:
        default = " (required)" if setting.required else f" = {_yaml(setting.default)}"
        shown = "" if setting.settings and setting.default is not None else default  # its own settings have them
        yield from _fold(f"{setting.name}: {setting.type}{shown}", width, indent, f"{indent}    ")
        if setting.meaning:
            yield from _fold(setting.meaning, width, f"{indent}    ")
        yield from _setting_lines(setting.settings, f"{indent}    ", width)


def _fold(text: str, width: int | None, first: str = "", later: str | None = None) -> Iterator[str]:
    """Lines of a text, folded between words where there is a width; its own paragraphs stay."""
    later = first if later is None else later
    for number, line in enumerate(text.splitlines()):
        start = first if number == 0 else later
        if width is None:
            yield f"{start}{line}"
        else:
            yield from textwrap.wrap(
                line,
                max(width, 40),
                initial_indent=start,
                subsequent_indent=later,
                break_long_words=False,
                break_on_hyphens=False,
            ) or [""]


def _example(component: type, row: Registration, settings: Sequence[Setting]) -> str:
    """What is required and a few settings more, where the component belongs."""
    hints = constructor_hints(component)
    optional = [setting for setting in settings if not setting.required and not setting.settings]
    shown = [setting for setting in settings if setting.required or setting in optional[:_SHOWN]]
    values = {s.name: _fill(s, hints.get(s.name)) if s.required else s.default for s in shown}
    if row.kind != "modules" and not _builds(component, values):
        missing = next((name for name, value in values.items() if value is None), None)
        values |= {missing: _stand_in(hints[missing])} if missing else {}
    lines = [f"class_path: {row.name}", *(["init_args:"] if shown else [])]
    for setting in shown:
        lines.append(f"  {setting.name}: {_yaml(values[setting.name])}{'  # required' if setting.required else ''}")
    key = _KEYS.get(row.kind) or ("data" if row.name == "CaseDataModule" else "model")
    body = "\n".join(lines)
    if key == "rewards":
        return f"rewards:\n  - {textwrap.indent(body, '    ').strip()}"
    return f"{key}:\n{textwrap.indent(body, '  ')}"


def _builds(component: type, values: Mapping[str, Any]) -> bool:
    """Whether a constructor takes these settings; constructors are cheap."""
    try:
        with contained(lambda error: ConfigError(say(error))):
            component(**values)
    except ConfigError:
        return False
    return True


def _fill(setting: Setting, hint: Any) -> Any:
    """A value for a setting that has no default: the text that its meaning names, or one of its type."""
    named = re.search(r"such as ``([^`]+)``", setting.meaning) if hint is str else None
    return named[1] if named else _stand_in(hint)


def _stand_in(hint: Any) -> Any:
    """A value of a type, for a setting that has no default."""
    members = get_args(hint)
    if get_origin(hint) is Literal:
        return members[0]
    if type(None) in members:
        return _stand_in(members[0])
    if inspect.isclass(hint) and hint.__name__ in _SUITABLE:
        return _SUITABLE[hint.__name__]
    for kind, value in ((bool, False), (int, 1), (float, 1.0), (str, "path/or/text")):
        if hint is kind:
            return value
    return [_stand_in(members[0])] if members and get_origin(hint) is not dict else None


def _yaml(value: Any) -> str:
    """A plain value on one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
