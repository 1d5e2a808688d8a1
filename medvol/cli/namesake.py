"""Another distribution, called MedVol, that has the same import name as this one."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

from medvol.core.errors import ConfigError

OTHER = "medvol"
"""Name of the other distribution on PyPI; this one is called ``medvol-r1``."""


def require_alone() -> None:
    """Refuse to run beside the other distribution: each overwrites files of the other's ``medvol`` folder.

    Raises:
        ConfigError: It is installed.
    """
    try:
        other = distribution(OTHER)
    except PackageNotFoundError:
        return
    raise ConfigError(
        f"another package, MedVol {other.version}, is installed here and has the same import name, so that files of "
        "both are mixed; run: pip uninstall medvol, then: pip install --force-reinstall --no-deps medvol-r1"
    )
