"""Options of the verbs that score masks without a model: what is measured, as in ``model.evaluation`` of a test."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from jsonargparse import Namespace

from medvol.cli.parsing import ComponentParser
from medvol.core.errors import ConfigError
from medvol.core.suggestions import suggest
from medvol.evaluation.settings import MEASURES, EvaluationSettings

_HELP = {
    "surface": "what NSD and HD95 are measured on; null measures neither",
    "tolerance_mm": "tolerance of the NSD, for cases that name none",
    "lesions": "targets scored lesion by lesion: those named after a finding, all, or none",
    "masks_gib": "most GiB of masks that are kept in the run folder; 0 keeps none",
}


def add_measures(parser: ComponentParser, *names: str) -> None:
    """Add options of ``EvaluationSettings`` to a parser, with their types and defaults."""
    hints = get_type_hints(EvaluationSettings)
    for name in names:
        default = getattr(EvaluationSettings(), name)
        parser.add_argument(f"--{name}", type=hints[name], default=default, help=_HELP[name])


def parse_over(parser: ComponentParser, arguments: Sequence[str], known: Mapping[str, Any]) -> Namespace:
    """Parse arguments over settings that are known from elsewhere; of a name that both have the argument counts.

    Raises:
        ConfigError: An argument, or a setting, is at fault, or there is no such setting.
    """
    accepted = {entry.name for entry in fields(EvaluationSettings)}
    if wrong := next((name for name in known if name not in accepted), None):
        raise ConfigError(f"model.evaluation has no setting {wrong!r}{suggest(wrong, accepted)}")
    options: Namespace = parser.parse_args([*_as_arguments(known), *arguments])
    return options


def read_measures(settings: Mapping[str, Any]) -> EvaluationSettings:
    """Settings of what is measured and kept; others, such as how answers were asked for, are passed over.

    Raises:
        ConfigError: One is out of range.
    """
    names = (*MEASURES, "masks_gib")
    return EvaluationSettings(**{name: value for name, value in settings.items() if name in names})


def _as_arguments(known: Mapping[str, Any]) -> Iterator[str]:
    for name, value in known.items():
        if name in _HELP:
            yield f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
