"""Which propagator makes the mask of a recorded answer again, where the command names none: the one that made it.

Its name alone is taken. A record may come from somebody else, and settings may name files and downloads; so those that
are not defaults are told.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from medvol.core.defaults import PROPAGATOR
from medvol.core.errors import ConfigError
from medvol.core.registry import PROPAGATORS
from medvol.core.visible_text import show
from medvol.inference.recorded_propagator import propagator_name, propagator_options
from medvol.inference.records import EvidenceRecord
from medvol.terminal.console import Console


def require_recorded(record: EvidenceRecord, console: Console) -> str:
    """Name of the propagator that made the mask of a record; the usual one where the record does not say.

    Raises:
        ConfigError: It is not installed here.
    """
    name = propagator_name(record.propagator) or PROPAGATOR
    if name not in PROPAGATORS.names():
        raise ConfigError(
            f"the mask of the record was made by {name!r}, which is not installed here; install it, or name another, "
            f"such as --propagator {PROPAGATOR}"
        )
    _tell_settings([record], console)
    return name


def find_recorded(records: Sequence[EvidenceRecord], console: Console) -> str:
    """Name of the propagator that made the masks of answers, where one did and is installed; the usual one else."""
    names = {name: None for record in records if (name := propagator_name(record.propagator))} or {PROPAGATOR: None}
    name = next(iter(names))
    if len(names) > 1 or name not in PROPAGATORS.names():
        made = show(", ".join(names))
        console.print(
            f"the masks were made by {made}; {PROPAGATOR} makes new ones, unless --propagator names another",
            soft_wrap=True,
        )
        return PROPAGATOR
    _tell_settings(records, console)
    return name


def _tell_settings(records: Sequence[EvidenceRecord], console: Console) -> None:
    """Say once which settings of the propagator, other than its defaults, a mask was made with."""
    for words in {shlex.join(propagator_options(record.propagator)[2:]): None for record in records}:
        if words:
            console.print(f"a mask was made with {show(words)}, and new ones are made without", soft_wrap=True)
