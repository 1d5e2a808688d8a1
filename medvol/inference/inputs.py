"""What a Segmenter is given: components and scans, by themselves, by name, or by path."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medvol.core.bundled import BEST, is_model
from medvol.core.defaults import PROPAGATOR
from medvol.core.errors import CheckpointError, ConfigError, QueryError
from medvol.core.registry import POLICIES, PROPAGATORS
from medvol.core.roles import Policy, Propagator
from medvol.core.specs import rebuild
from medvol.core.types import Case, Sampling, Volume
from medvol.imaging.reading import read_volume
from medvol.imaging.sound_volume import require_sound_volume
from medvol.weights.folder_policy import find_policy

log = logging.getLogger(__name__)


def take_policy(given: Any) -> Policy:
    """A policy as it is, from its model folder, or by its registered name with its default settings.

    None takes the one that comes with medvol, and says so.

    Raises:
        CheckpointError: There is no such folder, nor a policy of that name.
        ConfigError: It is something else.
    """
    if isinstance(given, Policy):
        return given
    if given is None:
        log.warning(
            "no policy was chosen, so the one that comes with medvol answers: %s, which knows synthetic scans only",
            BEST,
        )
        given = BEST
    if not isinstance(given, str | Path):
        raise ConfigError(f"policy is {_describe(given)}; give a Policy, or the path of a model folder")
    if is_model(given):
        return rebuild(find_policy(given))  # type: ignore[no-any-return]
    if str(given) in POLICIES.names():
        return _build(POLICIES.get(str(given)), str(given))  # type: ignore[no-any-return]
    hint = "; `medvol convert` makes one of a checkpoint" if Path(given).suffix == ".ckpt" else ""
    raise CheckpointError(f"there is no model folder {str(given)!r}, nor a policy of that name{hint}")


def take_propagator(given: Any) -> Propagator:
    """A propagator as it is, or by its registered name with its default settings; ``RegionPropagator`` for None.

    Raises:
        UnknownComponentError: There is none of that name.
        ConfigError: It is something else.
    """
    if isinstance(given, Propagator):
        return given
    if given is not None and not isinstance(given, str):
        raise ConfigError(f"propagator is {_describe(given)}; give a Propagator, or the name of one")
    name = given or PROPAGATOR
    return _build(PROPAGATORS.get(name), name)  # type: ignore[no-any-return]


def take_volume(given: Any) -> Volume:
    """A volume, its voxels in float32 as all components are promised, or read from the path of a scan.

    Raises:
        ScanError: The scan is refused.
        GeometryError: The volume is no scan in LPS orientation, see ``require_sound_volume``.
        ConfigError: It is something else.
    """
    if isinstance(given, Volume):
        require_sound_volume(given)
        if given.source is not None or type(given) is not Volume or given.voxels.dtype == np.float32:
            return given
        return replace(given, voxels=given.voxels.astype(np.float32))
    if isinstance(given, str | Path):
        return read_volume(given)
    hints = {
        Case: "give the case's volume and query.text",
        np.ndarray: "make a volume of it, medvol.Volume(voxels, affine, modality)",
    }
    hint = next((hint for kind, hint in hints.items() if isinstance(given, kind)), "give a Volume, or a scan's path")
    raise ConfigError(f"the scan is {_describe(given)}; {hint}")


def take_queries(given: Any) -> list[str]:
    """Queries as a list of texts.

    Raises:
        QueryError: It is one text, or holds something that is no text.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise QueryError(f"queries is {_describe(given)}; give a list of texts")
    for query in given:
        if not isinstance(query, str):
            raise QueryError(f"a query is {_describe(query)}; ask in words, such as 'the spleen'")
    return list(given)


def take_sampling(given: Any) -> Sampling | None:
    """How answers are drawn; None, which is greedy, as it is.

    Raises:
        ConfigError: It is something else.
    """
    if given is None or isinstance(given, Sampling):
        return given
    raise ConfigError(f"sampling is {_describe(given)}; give a medvol.Sampling, or None for greedy answers")


def _build(component: Any, name: str) -> Any:
    try:
        return component()
    except TypeError as error:
        raise ConfigError(f"{name} needs settings ({error}); build it yourself and give it") from error


def _describe(given: Any) -> str:
    """A value in a few words: a class as itself, numbers and texts as they are, others by their type."""
    if isinstance(given, type):
        return f"the class {given.__name__} and not one of its objects"
    kind = f"{type(given).__module__.split('.')[0]}.{type(given).__name__}".removeprefix("builtins.")
    return f"{given!r}"[:80] if isinstance(given, int | float | str | None) else f"a {kind}"
