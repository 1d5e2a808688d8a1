"""Curves and tables of a run."""

from __future__ import annotations

from pathlib import Path

from lightning.fabric.loggers.tensorboard import TensorBoardLogger as Writer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger


class TensorBoardCurves(TensorBoardLogger):
    """TensorBoard curves without a file of hyperparameters: the settings of a run are in its ``fit.yaml``."""

    def save(self) -> None:
        """Write the curves."""
        Writer.save(self)


def default_loggers(folder: Path) -> list[Logger]:
    """TensorBoard curves in the run folder, and a CSV table for each start in ``metrics/``."""
    return [TensorBoardCurves(folder, name="", version=""), CSVLogger(folder, name="metrics")]
