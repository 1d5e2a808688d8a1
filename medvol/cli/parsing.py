"""Parsers that know components by name and refuse with an exception instead of a page of usage.

Components can be written as a bare name, as ``class_path`` with ``init_args``, or by a full dotted path. jsonargparse
finds a class by its bare name once it is imported; the loader below imports what a YAML text names, wherever that text
comes from: a file, a nested file, or the command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, set_loader

from medvol.cli.component_names import clear_arguments, import_named
from medvol.cli.diagnosis import explain
from medvol.cli.folder_policies import from_here, name_policies
from medvol.cli.hints import say_kinds
from medvol.cli.places import find_misplaced
from medvol.cli.settings import load_yaml
from medvol.core.containment import contained, say
from medvol.core.errors import ConfigError, MedvolError
from medvol.core.suggestions import suggest

MODE = "medvol"
"""Parser mode of jsonargparse: YAML whose component names are imported."""


class RefusedSettingsError(ConfigError):
    """jsonargparse does not accept the settings; the message is its own, shortened to a line.

    Args:
        message: The line.
        whole: All that jsonargparse says.
    """

    def __init__(self, message: str, whole: str) -> None:
        super().__init__(message)
        self.whole = whole


class ComponentParsing:
    """Mixed into a parser of jsonargparse: components by name, refusals as exceptions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"parser_mode": MODE, "allow_abbrev": False, **kwargs})

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Parse; of two classes of one name the registered one is meant.

        An inner parser gets a value that jsonargparse has read already and written as Python does: null is ``None``.
        """
        if isinstance(args, list) and not self.exit_on_error:  # type: ignore[attr-defined]
            args = [re.sub("=None$", "=null", word) if isinstance(word, str) else word for word in args]
        flags = {word for word, action in self._option_string_actions.items() if action.nargs == 0}  # type: ignore[attr-defined]
        cleared = clear_arguments(args, flags) if isinstance(args, list) else args
        with from_here():
            return super().parse_args(cleared, *more, **options)  # type: ignore[misc]

    def format_help(self, formatter: Any = None) -> str:
        """The help, without the words of Python's type system and without classes that happen to be imported."""
        text: str = super().format_help(formatter)  # type: ignore[misc]
        text = re.sub(r",?\s+known\s+subclasses:[^)]*", "", text)
        text = re.sub(r"type:\s+Optional\[Literal\[([^\]]*)\]\]", r"one of \1", text)
        return re.sub(r"type:\s+Optional\[(\w+)\]", r"type: \1", text)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage; inner parsers keep their own way."""
        if not self.exit_on_error:  # type: ignore[attr-defined]
            super().error(message, ex)  # type: ignore[misc]
        options = re.findall(r"--[a-z][\w.-]*", self.format_help())
        places = [action.dest.upper() for action in self._get_positional_actions()]  # type: ignore[attr-defined]
        usage = self.usage or " ".join([self.prog, *places])  # type: ignore[attr-defined]
        raise RefusedSettingsError(_shorten(message, options, usage), message) from ex


class ComponentParser(ComponentParsing, ArgumentParser):
    """Parser of the verbs that are no training."""


def explain_refusal(
    refusal: RefusedSettingsError, settings: Mapping[str, Any], accepted: Mapping[str, Any]
) -> ConfigError:
    """Replace jsonargparse's message by a sentence about the setting at fault, when it can be found.

    Args:
        refusal: From ``ComponentParsing.error``.
        settings: What the configuration files hold.
        accepted: Type hint of every top-level key.
    """
    fault = find_misplaced(settings, accepted) or explain(refusal.whole, settings, accepted)
    return ConfigError(fault) if fault else refusal


def explain_failure(error: BaseException, what: str) -> MedvolError:
    """What a constructor had against its settings, without what jsonargparse wraps around it.

    Args:
        error: Raised while components were built.
        what: What was to be built.
    """
    while error.__cause__ is not None and not isinstance(error, MedvolError):
        error = error.__cause__
    if isinstance(error, MedvolError):
        return error
    speaks = isinstance(error, Exception) and not isinstance(error, LookupError)  # of a key its message is the key
    return ConfigError(f"{what} cannot be built: {error if speaks else say(error)}")


@contextmanager
def building(what: str, explain: Callable[[BaseException, str], MedvolError] = explain_failure) -> Iterator[None]:
    """Explain whatever a constructor raises while components are built, ``sys.exit`` included.

    Args:
        what: What is built.
        explain: Makes the error to raise from the one that was raised and ``what``.

    Raises:
        MedvolError: From ``explain``.
    """
    with contained(lambda error: explain(error, what), KeyboardInterrupt):
        yield


def _shorten(message: str, options: Sequence[str], usage: str) -> str:
    unknown = re.match(r"unrecognized arguments: (\S+)", message)
    if unknown:
        word = unknown[1].partition("=")[0]
        if not word.startswith("-"):
            quotes = "put the question in quotes; " if usage.endswith(" QUERY") else ""
            return f"unexpected argument {word!r}; {quotes}the arguments are: {usage}"
        near = suggest(word, [option for option in options if "." in word or "." not in option])
        return f"unknown option {word!r}{near or '; --help lists them'}"
    alone = re.match(r"argument (?:-\w, ?)?(?:-\w/)?(\S+): expected (?:one|at least one) argument", message)
    if alone:
        return f"{alone[1].rpartition('/')[2]} needs a value after it"
    wrong = re.match(r'(?s)Parser key "([\w.]+)":(.*?)(?:Given value|Got value): ([^\n]*)', message)
    choices = wrong and re.search(r"Literal\[([^\]]*)\]", wrong[2])
    kind = wrong and re.search(r"<class .(?!NoneType)(\w+).>", wrong[2])
    if wrong and (choices or kind):
        wanted = f"one of {choices[1]}".replace("'", "") if choices else say_kinds(kind[1]) if kind else ""
        return f"{wrong[1]} must be {wanted}; got {wrong[3].strip()!r}"
    required = re.match(r"the following arguments are required: (.*)", message)
    if required:
        names = re.sub(r"\b(?:fit|validate|test|predict)\.", "", required[1]).split(", ")
        keys = " and ".join(
            f"--{name}" if f"--{name}" in options and "--config" not in options else name for name in names
        )
        if "--config" in options:
            return f"{keys} must be given, in a configuration file (--config) or on the command line"
        return f"{keys} must be given: {usage}"
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    if "Errors:" in lines:  # of a union: what each member had against the value; that it is not null says nothing
        reasons = lines[lines.index("Errors:") + 1 :]
        lines = [lines[0], *(line for line in reasons if "NoneType" not in line)]
    return " ".join(lines[:3])


def _load(text: str) -> Any:
    return import_named(name_policies(load_yaml(text)))


set_loader(MODE, _load, (yaml.YAMLError,))
