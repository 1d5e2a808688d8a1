"""The data of an experiment, built without its model and trainer, whatever machine those are for."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import yaml
from lightning.pytorch import LightningDataModule

from medvol.cli.folder_policies import from_here
from medvol.cli.parsing import ComponentParser, RefusedSettingsError, building, explain_refusal
from medvol.cli.settings import read_yaml
from medvol.core.errors import ConfigError
from medvol.training.data import CaseDataModule


def build_data(config: str | Path) -> CaseDataModule:
    """Build the data of an experiment; nothing else in its file counts, be it written or saved by a run.

    Raises:
        ConfigError: The file names no data, a setting of them is at fault, or they are no CaseDataModule.
    """
    settings = read_yaml(Path(config))
    if not isinstance(settings, dict) or not settings.get("data"):
        raise ConfigError(f"{str(config)!r} names no data; give an experiment whose key 'data' holds its data sets")
    chosen = {"data": settings["data"]}
    parser = ComponentParser(exit_on_error=True)
    parser.add_subclass_arguments(CaseDataModule, "data", required=True)
    try:
        with from_here(), chdir(Path(config).parent):  # where names of further files in it count from
            parsed = parser.parse_string(yaml.safe_dump(chosen, sort_keys=False))
    except RefusedSettingsError as refusal:
        raise explain_refusal(refusal, chosen, {"data": LightningDataModule}) from refusal
    with building("the data"):
        built = parser.instantiate(parsed)
    data: CaseDataModule = built.data
    return data
