"""ReXGroundingCTDataset: findings of chest CT in the words of the report, each with a mask.

Source of the layout: the data set's card at huggingface.co/datasets/rajpurkarlab/ReXGroundingCT (names, fields, axes of
the masks), the challenge's page at rexrank.ai/ReXGroundingCT/challenge.html (parts, categories, measures) and CT-RATE
(folders of the scans). No original file was at hand.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from medvol.core.atomic_files import write_whole
from medvol.core.errors import ConfigError, DatasetError
from medvol.core.types import Volume
from medvol.datasets.layout import LabelledScan, existing
from medvol.datasets.nifti_table import TargetRow
from medvol.datasets.rexgroundingct_list import CATEGORIES, ListedScan, read_list
from medvol.datasets.rexgroundingct_masks import ReXGroundingCTScan
from medvol.datasets.rexgroundingct_measures import ReXGroundingCTScores, pool_scores, score_finding
from medvol.datasets.scans import ScanDataset, check_known
from medvol.datasets.settings import CacheSettings, PatientSettings, QuestionSettings
from medvol.datasets.splits import Split
from medvol.imaging.case_masks import find_case_masks

_log = logging.getLogger(__name__)


class ReXGroundingCTDataset(ScanDataset):
    """ReXGroundingCT: one question a finding, asked in the report's own words; the target is called by its category.

    The release holds masks and words; the scans are those of CT-RATE (``train_fixed``, ``valid_fixed``). Its own parts
    are used scan by scan. Training scans of a patient who is also in ``val`` or ``test`` are left out, which is said.
    Training masks show at most three entities of a finding, those of ``val`` all of them. ``test`` has no masks, so it
    can be predicted and not scored. A mask is named by its case, ``train_1741_b_2_0000`` for the first finding of that
    scan; ``measure`` and ``write_submission`` find it by that name, and by that of ``medvol predict``.

    Args:
        root: Folder of the release, with its lists and ``segmentations``.
        ct_rate: Folder of CT-RATE, or one that holds its files side by side; ``root`` when None.
        findings: List in ``root``: ``dataset.json`` has 50 scans in ``val`` and 100 in ``test``,
            ``MICCAI_challenge_dataset.json`` 200 and 300.
    """

    licence = "CC BY-NC-SA 4.0"

    def __init__(
        self,
        root: str,
        ct_rate: str | None = None,
        findings: str = "dataset.json",
        split: Split = "all",
        seed: int = 0,
        patients: PatientSettings = PatientSettings(),
        questions: QuestionSettings = QuestionSettings(),
        cache: CacheSettings = CacheSettings(),
    ) -> None:
        super().__init__(root=root, split=split, seed=seed, patients=patients, questions=questions, cache=cache)
        if patients.split_file is not None:
            raise ConfigError("ReXGroundingCT has parts of its own; leave patients.split_file out")
        if questions.relations or questions.absent_share:
            raise ConfigError("findings are asked for in their own words; leave relations and absent_share out")
        self.ct_rate = ct_rate
        self.findings = findings

    @cached_property
    def listed(self) -> list[ListedScan]:
        """Scans of the split and the chosen patients that are on the disk, in the order of the list."""
        everything = read_list(Path(self.root) / self.findings)
        everyone = {_patient(scan) for scan in everything}
        check_known("patients", [*(self.patients.only or []), *(self.patients.exclude or [])], everyone)
        taken = self.patients.take(everyone)
        chosen = [scan for scan in _keep_apart(everything, self.root) if self.split in ("all", scan.part)]
        chosen = [scan for scan in chosen if _patient(scan) in taken]
        there = [scan for scan in chosen if self._image(scan) is not None]
        if chosen and not there:
            raise DatasetError(
                f"{self._place}: there is no {chosen[0].file}, nor any other of the {len(chosen)} scans; set ct_rate "
                "to the folder of CT-RATE"
            )
        if len(there) < len(chosen):
            lost = next(scan for scan in chosen if self._image(scan) is None)
            _log.warning(
                "%s: %d of %d scans are not there and are left out, such as %s",
                *(self._place, len(chosen) - len(there), len(chosen), lost.file),
            )
        return there

    def rows_of(self, scan: ListedScan) -> list[TargetRow]:
        """A row for each finding of a scan, in order; a mask is None where the release withholds it.

        Raises:
            DatasetError: The masks of a training or validation scan are missing.
        """
        image, masks = self._image(scan), Path(self.root) / "segmentations" / scan.file
        assert image is not None, "only scans that are there are asked about"
        if not masks.is_file() and scan.part != "test":
            raise DatasetError(f"{masks} is not there; unpack the segmentations of the release into {masks.parent}")
        return [
            TargetRow(
                image=image,
                mask=masks if masks.is_file() else None,
                labels=(number + 1,),
                target=CATEGORIES.get(finding.category, ""),
                query=finding.text,
                patient=_patient(scan),
                modality="CT",
                case=scan.case,
                number=number,
                where=f"{self.findings}: {scan.file}, finding {number}",
            )
            for number, finding in enumerate(scan.findings)
        ]

    def open_scan(self, row: TargetRow) -> ReXGroundingCTScan:
        """Read the scan of a finding."""
        return ReXGroundingCTScan(row, self._sizes[row.case], self._disk)

    def measure(self, predictions: str | Path) -> ReXGroundingCTScores:
        """Measure masks as the leaderboard does, over all findings of the split that have masks.

        Args:
            predictions: Folder of masks on the grids of their scans, ``train_1741_b_2_0000.nii.gz`` for a case, as in
                ``masks`` of a test run; or what ``medvol predict`` writes, records included. A case without a file
                counts as empty, and is named.

        Raises:
            DatasetError: There is no finding with a mask, no file for any of them, or several for one.
            ScanError: A file is damaged.
            GeometryError: A mask lies on another grid than its scan.
        """
        scores, missing, masks = [], [], find_case_masks(predictions)
        for scan in self.listed:
            rows = [row for row in self.rows_of(scan) if row.mask is not None and not self._is_empty(scan, row)]
            opened = self.open_scan(rows[0]) if rows else None
            for row in rows:
                assert opened is not None, "there is a row to open it by"
                assert row.mask is not None, "rows without masks are passed over"
                mask = _read_prediction(masks, row, opened.volume)
                missing += [_case_id(row)] if mask is None else []
                predicted = np.zeros(opened.volume.shape, bool) if mask is None else mask
                scores.append(score_finding(predicted, opened.entities(row.mask, row.labels[0] - 1), row.target))
        _require_some(predictions, len(scores), missing)
        return pool_scores(scores, missing)

    def write_submission(self, predictions: str | Path, path: str | Path) -> list[str]:
        """Write the file that the leaderboard takes: a zip of a file a scan, ``(F, H, W, D)``, on the scan's own grid.

        Args:
            predictions: As for ``measure``.
            path: The zip file; one that is there is replaced when the new one is whole.

        Returns:
            Cases without a predicted mask, whose place in the file is empty.

        Raises:
            DatasetError: There is no file for any case, several for one, or the path does not end in ``.zip``.
            ScanError: A file is damaged.
            GeometryError: A mask lies on another grid than its scan.
        """
        from medvol.imaging.writing import write_stack

        path, missing, count = Path(path), [], 0
        if path.suffix != ".zip":
            raise DatasetError(f"{path}: the leaderboard takes one zip file; let the name end in .zip")
        found = find_case_masks(predictions)
        with write_whole(path) as partial, TemporaryDirectory() as place, ZipFile(partial, "w") as archive:
            for scan in self.listed:
                rows = self.rows_of(scan)
                volume = self.open_scan(rows[0]).volume
                masks = [_read_prediction(found, row, volume) for row in rows]
                missing += [_case_id(row) for row, mask in zip(rows, masks, strict=True) if mask is None]
                count += len(rows)
                stack = [np.zeros(volume.shape, bool) if mask is None else mask for mask in masks]
                archive.write(write_stack(Path(place) / scan.file, stack, volume), scan.file)
                (Path(place) / scan.file).unlink()
            _require_some(predictions, count, missing)
        return missing

    def _rows(self) -> list[tuple[int, TargetRow]]:
        rows = [row for scan in self.listed for row in self.rows_of(scan) if not self._is_empty(scan, row)]
        names = self._choose_targets(rows)
        return [(n, row) for n, row in enumerate(rows, start=1) if names is None or row.target in names]

    def _is_empty(self, scan: ListedScan, row: TargetRow) -> bool:
        """True for a finding whose mask is said to be empty: it has no answer to train on or to compare with."""
        number = row.labels[0] - 1
        if row.mask is None or scan.findings[number].voxels != 0:
            return False
        _log.warning("%s: finding %d of %s has an empty mask and is not asked for", self.root, number, scan.file)
        return True

    def _open(self, row: TargetRow) -> LabelledScan:
        return self.open_scan(row)

    @cached_property
    def _sizes(self) -> dict[str, list[int | None]]:
        return {scan.case: [finding.voxels for finding in scan.findings] for scan in self.listed}

    @property
    def _place(self) -> Path:
        return Path(self.root if self.ct_rate is None else self.ct_rate)

    def _image(self, scan: ListedScan) -> Path | None:
        """The scan among those of CT-RATE; None where it is not there."""
        part, study = scan.file.split("_")[0], scan.case.rpartition("_")[0]
        nested = Path(f"{part}_fixed") / scan.patient / study / scan.file
        return existing(*(self._place / path for path in (scan.file, nested, Path("dataset") / nested)))


def _case_id(row: TargetRow) -> str:
    """Id of the case that asks for a finding, as ``ScanDataset`` gives it."""
    return f"{row.case}_{row.number:04d}"


def _read_prediction(masks: Mapping[str, Path], row: TargetRow, volume: Volume) -> NDArray[np.bool_] | None:
    """The predicted mask of a case; None where there is no file."""
    from medvol.imaging.reading import read_mask

    path = masks.get(_case_id(row))
    return None if path is None else read_mask(path, volume)


def _require_some(predictions: str | Path, cases: int, missing: list[str]) -> None:
    if cases and len(missing) == cases:
        raise DatasetError(
            f"{predictions} has a mask for none of {cases} findings; the first would be {missing[0]}.nii.gz, or what "
            "`medvol predict` writes, with its record beside it"
        )


def _patient(scan: ListedScan) -> str:
    return f"ct-rate-{scan.patient}"


def _keep_apart(scans: list[ListedScan], root: str) -> list[ListedScan]:
    """Scans without those for training whose patient is validated or tested on."""
    held = {scan.patient for scan in scans if scan.part != "train"}
    kept = [scan for scan in scans if scan.part != "train" or scan.patient not in held]
    if len(kept) < len(scans):
        lost = next(scan for scan in scans if scan.part == "train" and scan.patient in held)
        _log.warning(
            "%s: %d training scans are of patients in val or test and are left out, such as %s",
            *(root, len(scans) - len(kept), lost.file),
        )
    return kept
