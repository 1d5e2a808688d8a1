"""The trainer's precision, as far as scans are concerned."""

from __future__ import annotations

from medvol.core.errors import ConfigError

_CONVERTS = ("16-true", "bf16-true", "64-true")
"""Precisions in which the trainer turns all of a batch into one type, and not the weights alone."""


def require_scans_as_they_are(precision: str) -> None:
    """Refuse a precision that would change the voxels of the scans.

    Args:
        precision: Of the trainer.

    Raises:
        ConfigError: It is such a one.
    """
    if precision in _CONVERTS:
        raise ConfigError(
            f"trainer.precision is {precision}, which would turn the voxels of the scans into that type too; choose "
            "32-true or bf16-mixed"
        )
