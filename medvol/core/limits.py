"""Limits of settings."""

from __future__ import annotations

from medvol.core.errors import ConfigError


def require_least(least: float, **settings: float | None) -> None:
    """Refuse settings below a limit; None stands for no setting.

    Raises:
        ConfigError: The first setting that is below it, or no number at all.
    """
    for name, value in settings.items():
        if value is not None and not value >= least:
            raise ConfigError(f"{name} is {value}; it must be {least:g} or more")


def require_share(**settings: float) -> None:
    """Refuse settings outside [0, 1].

    Raises:
        ConfigError: The first setting that is.
    """
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value}; it is a share, from 0 to 1")
