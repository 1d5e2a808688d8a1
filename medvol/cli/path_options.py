"""Options and arguments that name files and folders."""

from __future__ import annotations

from jsonargparse import Namespace

from medvol.core.ranges import require_paths


def require_path_options(options: Namespace, *names: str) -> None:
    """Refuse paths that name nothing.

    Args:
        options: As parsed.
        names: As the usage has them: ``--out`` for an option, ``FOLDER`` for an argument that stands at its place.

    Raises:
        ConfigError: The first of them that does.
    """
    for name in names:
        given = options[name.lstrip("-").lower()]
        for path in given if isinstance(given, list) else [given]:
            require_paths(**{name: path})
