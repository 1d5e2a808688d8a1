"""Masks that a run keeps beside its scores, so that it can be scored again and looked at without its model."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medvol.core.errors import RecordError
from medvol.core.metrics import Mask
from medvol.core.types import Case
from medvol.core.visible_text import show
from medvol.evaluation.case_score import CaseScore
from medvol.imaging.reading import read_mask
from medvol.imaging.writing import write_mask
from medvol.inference.predictions import as_job

MASKS = "masks"
"""Folder of the masks in a run folder."""

_STAGED = f"{MASKS}.partial"

log = logging.getLogger(__name__)


class KeptMasks:
    """Collects masks beside the former ones of a run, and puts them in their place at the end.

    Args:
        run: Run folder.
        gib: Most GiB of compressed masks; masks beyond it are counted in ``left_out``.
    """

    def __init__(self, run: Path, gib: float) -> None:
        self.run = run
        self.free_bytes = gib * 2**30
        self.left_out = 0

    def start(self) -> None:
        """Delete what an earlier run that was interrupted has collected."""
        shutil.rmtree(self.run / _STAGED, ignore_errors=True)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Start, and leave nothing behind when the block fails before ``finish``."""
        new = not self.run.exists()
        self.start()
        try:
            yield
        finally:
            self.start()
            if new and self.run.is_dir() and not any(self.run.iterdir()):
                self.run.rmdir()

    def keep(self, case: Case, mask: Mask) -> str:
        """Write a mask in the scan's own grid.

        Returns:
            Its file, below the run folder once ``finish`` was called; empty for an empty mask, and where there is no
            room left.
        """
        if not mask.any():
            return ""
        name = f"{as_job(case, self.run).name}.nii.gz"
        path = self.run / _STAGED / name
        if self.free_bytes > 0:
            write_mask(path, mask, case.volume)
            self.free_bytes -= path.stat().st_size
            if self.free_bytes >= 0:
                return f"{MASKS}/{name}"
            path.unlink()
        self.left_out += 1
        return ""

    def finish(self) -> None:
        """Replace the masks that were there before."""
        if self.left_out:
            log.warning("%s: %d masks are not kept, as masks_gib allows no more", self.run, self.left_out)
        shutil.rmtree(self.run / MASKS, ignore_errors=True)
        if (self.run / _STAGED).is_dir():
            (self.run / _STAGED).rename(self.run / MASKS)


def read_kept_mask(run: Path, score: CaseScore, case: Case) -> Mask:
    """The mask of a case as the run scored it.

    Raises:
        RecordError: The run did not keep it, or its file does not lie in the run folder.
        ScanError: The file cannot be read.
        GeometryError: It lies on another grid than the scan.
    """
    if not score.mask_file:
        if score.mask_ml > 0:
            raise RecordError(
                f"{run} has not kept the mask of case {score.case_id!r}; test again with more room for masks "
                "(model.evaluation.masks_gib)"
            )
        return np.zeros(case.volume.shape, bool)
    path = run / score.mask_file
    if show(score.mask_file) != score.mask_file or not path.resolve().is_relative_to(run.resolve()):
        raise RecordError(f"{run} names the mask {score.mask_file!r}, which does not lie in it; test again")
    return read_mask(path, case.volume)
