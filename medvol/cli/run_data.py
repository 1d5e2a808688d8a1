"""The data of a run: the cases that it scored, from a file that is given, or that the run names or keeps."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from medvol.core.errors import ConfigError

if TYPE_CHECKING:
    from medvol.core.roles import CaseDataset
    from medvol.evaluation.archive import Evaluation

TEST_SETTINGS = "test.yaml"
"""Configuration that a test keeps in the run folder."""


def find_run_data(evaluation: Evaluation, given: str | None = None) -> CaseDataset:
    """The cases that a run scored.

    Args:
        evaluation: The run.
        given: YAML file with its data; looked for when None.

    Raises:
        ConfigError: The file is not there, or has no such cases.
    """
    from medvol.cli.experiment_data import build_data

    named = evaluation.summary.get("data", {})
    config = _find_config(evaluation) if given is None else given
    if not os.path.isfile(config):  # unlike Path.is_file it takes names that no file can have
        raise ConfigError(f"{str(config)!r}, with the data of the run, is not there; name another (--data)")
    split = str(named.get("split", "test"))
    dataset = build_data(config).splits.get(split)
    if dataset is None:
        raise ConfigError(f"{str(config)!r} has no {split} cases; name the file with the data of the run (--data)")
    return dataset


def _find_config(evaluation: Evaluation) -> str:
    """The file that a run names, or the first that it keeps; where it keeps none, the one that it should."""
    from medvol.evaluation.report_page.run_facts import CONFIGURATIONS

    named = evaluation.summary.get("data", {}).get("config")
    kept = (evaluation.folder / name for name in CONFIGURATIONS)
    return str(named or next((path for path in kept if path.is_file()), evaluation.folder / TEST_SETTINGS))
