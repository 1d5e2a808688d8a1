"""Limits of settings."""

from __future__ import annotations

from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

from medvol.core.errors import ConfigError

_COORDINATE_STEPS = (1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100)
"""They divide 1000, so the right and the lower edge of a slice can be written."""


def require_coordinate_step(step: int) -> None:
    """Refuse a step of coordinates that does not reach the end of the grammar's 0..1000.

    Raises:
        ConfigError: It does not divide 1000, or is above 100.
    """
    if type(step) is not int or step not in _COORDINATE_STEPS:
        raise ConfigError(f"coordinate_step is {step!r}; it must be one of {', '.join(map(str, _COORDINATE_STEPS))}")


def require_least(least: float, group: str = "", /, **settings: Any) -> None:
    """Refuse settings below a limit; None stands for no setting.

    Args:
        least: The limit.
        group: Key of the group that holds the settings; empty when they stand alone.
        settings: Values by name.

    Raises:
        ConfigError: The first setting that is below it, or no number at all.
    """
    for name, value in settings.items():
        if value is not None and not (_is_number(value, Real) and value >= least):
            raise ConfigError(f"{_key(group, name)} is {value!r}; it must be {least:g} or more")


def require_choice(choices: Any, group: str = "", /, **settings: str) -> None:
    """Refuse settings that are none of some words, which a configuration file cannot hold and a notebook can.

    Args:
        choices: A ``Literal`` of the words.
        group: Key of the group that holds the settings; empty when they stand alone.
        settings: Values by name.

    Raises:
        ConfigError: The first setting that is another one.
    """
    for name, value in settings.items():
        if value not in get_args(choices):
            raise ConfigError(f"{_key(group, name)} is {value!r}; it is one of {', '.join(get_args(choices))}")


def require_finite(group: str = "", /, **settings: Any) -> None:
    """Refuse settings that are infinite, or no number at all.

    Args:
        group: Key of the group that holds the settings; empty when they stand alone.
        settings: Values by name.

    Raises:
        ConfigError: The first setting that is.
    """
    for name, value in settings.items():
        if not (_is_number(value, Real) and isfinite(value)):
            raise ConfigError(f"{_key(group, name)} is {value!r}; it must be a finite number")


def require_whole(least: int, group: str = "", /, **settings: Any) -> None:
    """Refuse settings that are no whole numbers from a limit on; None stands for no setting.

    Args:
        least: The limit.
        group: Key of the group that holds the settings; empty when they stand alone.
        settings: Values by name.

    Raises:
        ConfigError: The first setting that is.
    """
    for name, value in settings.items():
        if value is not None and not (_is_number(value, Integral) and value >= least):
            raise ConfigError(f"{_key(group, name)} is {value!r}; it must be a whole number, {least} or more")


def require_paths(group: str = "", /, **paths: str | Path | None) -> None:
    """Refuse paths that name nothing; None stands for no path.

    An empty one would mean the working folder, and comes from a variable of the shell that is not set.

    Args:
        group: Key of the group that holds the settings; empty when they stand alone.
        paths: By name.

    Raises:
        ConfigError: The first of them that is empty, or holds what no path can hold.
    """
    for name, path in paths.items():
        if path is not None and (not str(path) or "\0" in str(path)):
            raise ConfigError(f"{_key(group, name)} is {str(path)!r}; name a file or a folder")


def require_between(interval: str, group: str = "", /, **settings: Any) -> None:
    """Refuse settings outside an interval.

    Args:
        interval: Such as ``[0, 0.5)``: a round bracket leaves its limit out, and ``inf)`` asks for a finite number.
        group: Key of the group that holds the settings; empty when they stand alone.
        settings: Values by name.

    Raises:
        ConfigError: The first setting that is, or no number at all.
    """
    low, high = map(float, interval[1:-1].split(","))
    limits = [f"above {low:g}" if interval[0] == "(" else f"{low:g} or more"]
    if isfinite(high):
        limits.append(f"{'below' if interval[-1] == ')' else 'at most'} {high:g}")
    elif interval[-1] == ")":
        limits.append("finite")
    for name, value in settings.items():
        fine = (
            _is_number(value, Real)
            and (low < value if interval[0] == "(" else low <= value)
            and (value < high if interval[-1] == ")" else value <= high)
        )
        if not fine:
            raise ConfigError(f"{_key(group, name)} is {value!r}; it must be {' and '.join(limits)}")


def require_share(group: str = "", /, **settings: Any) -> None:
    """Refuse settings outside [0, 1].

    Args:
        group: Key of the group that holds the settings; empty when they stand alone.
        settings: Values by name.

    Raises:
        ConfigError: The first setting that is.
    """
    for name, value in settings.items():
        if not (_is_number(value, Real) and 0 <= value <= 1):
            raise ConfigError(f"{_key(group, name)} is {value!r}; it is a share, from 0 to 1")


def _is_number(value: Any, kind: type) -> bool:
    """A number of a kind; True and False are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _key(group: str, name: str) -> str:
    return f"{group}.{name}" if group else name
