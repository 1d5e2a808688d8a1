"""Masks that a run keeps beside its scores, so that it can be scored again and looked at without its model."""

from __future__ import annotations

import logging
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from medvol.core.atomic_files import file_sha256, hold_made
from medvol.core.empty_folders import forget_empty
from medvol.core.errors import ConfigError, RecordError
from medvol.core.metrics import Mask
from medvol.core.types import Case
from medvol.core.visible_text import show
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.run_files import MASKS_FOLDER, require_replaceable
from medvol.imaging.reading import read_mask
from medvol.imaging.writing import write_mask
from medvol.inference.predictions import as_job

STAGED = "masks.partial"
"""Folder in a run folder where they are collected."""

log = logging.getLogger(__name__)


class KeptMasks:
    """Collects masks beside the former ones of a run, which ``write_evaluation`` replaces together with the scores.

    Used with ``with``, it has the run folder for itself meanwhile.

    Args:
        run: Run folder.
        gib: Most GiB of compressed masks; masks beyond it are counted in ``left_out``.
    """

    def __init__(self, run: Path, gib: float) -> None:
        self.run = run
        self.free_bytes = gib * 2**30
        self.left_out = 0
        self._claim = ExitStack()

    def __enter__(self) -> KeptMasks:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Keep other tests out of the run folder until ``close``, or until the process ends, however it ends.

        Raises:
            ConfigError: Another test writes in it.
            RecordError: It holds scores or masks that medvol did not write.
        """
        staged = self.run / STAGED
        with ExitStack() as claim:
            claim.enter_context(forget_empty(self.run))
            try:
                claim.enter_context(hold_made(staged))
            except BlockingIOError as error:
                raise ConfigError(
                    f"another test or evaluation writes in {str(self.run)!r}; wait for it, or choose another folder"
                ) from error
            claim.callback(shutil.rmtree, staged, ignore_errors=True)
            require_replaceable(self.run)
            shutil.rmtree(self._staged, ignore_errors=True)  # of one that was killed
            self._claim = claim.pop_all()

    def close(self) -> None:
        """Let others into the run folder again, and delete what was collected and belongs to no scores."""
        self._claim.close()

    def keep(self, score: CaseScore, case: Case, mask: Mask) -> CaseScore:
        """Write the mask of a case in the scan's own grid.

        Returns:
            The score, which names the file as it will lie below the run folder, and its checksum; the score as it is
            for an empty mask, and where there is no room left.
        """
        if not mask.any():
            return score
        name = f"{as_job(case, self.run).name}.nii.gz"
        path = self._staged / name
        if self.free_bytes > 0:
            write_mask(path, mask, case.volume)
            self.free_bytes -= path.stat().st_size
            if self.free_bytes >= 0:
                return replace(score, mask_file=f"{MASKS_FOLDER}/{name}", mask_sha256=file_sha256(path))
            path.unlink()
        self.left_out += 1
        return score

    def hand_over(self, place: Path) -> None:
        """Move what was collected into a folder, from which it is moved to the run folder together with the scores."""
        if self.left_out:
            log.warning("%s: %d masks are not kept, as masks_gib allows no more", self.run, self.left_out)
        if self._staged.is_dir():
            self._staged.rename(place / MASKS_FOLDER)

    @property
    def _staged(self) -> Path:
        """Below the folder that is locked, which is not moved itself."""
        return self.run / STAGED / MASKS_FOLDER


def read_kept_mask(run: Path, score: CaseScore, case: Case) -> Mask:
    """The mask of a case as the run scored it.

    Raises:
        RecordError: The run did not keep it, its file does not lie in the run folder, or is not the one that was
            scored.
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
    if score.mask_sha256 and path.is_file() and file_sha256(path) != score.mask_sha256:
        raise RecordError(f"{path} is not the mask that was scored: its SHA-256 is not that in cases.json; test again")
    return read_mask(path, case.volume)
