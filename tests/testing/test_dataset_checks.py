"""Data sets that break their contract are caught, each by the check that is about it."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvol.core.roles import CaseDataset
from medvol.core.types import Query, Volume
from medvol.testing import dataset_checks as checks
from medvol.testing import make_case


class Sound(CaseDataset):
    """Two volumes, two questions about each."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if not -4 <= index < 4:
            raise IndexError(index)
        number = index % 4
        case = make_case(absent=number % 2 == 1, seed=number // 2)
        return replace(case, case_id=f"case-{number}", patient_id=self.patient_id(index))

    def volume_key(self, index):
        return f"volume-{range(4)[index] // 2}"

    def patient_id(self, index):
        return f"patient-{range(4)[index] // 2}"


class Empty(Sound):
    """Holds nothing."""

    def __len__(self):
        return 0


class Endless(Sound):
    """Starts over at its end."""

    def __getitem__(self, index):
        return super().__getitem__(index % 4)


class EndlessKeys(Sound):
    """Its keys start over at the end."""

    def volume_key(self, index):
        return super().volume_key(index % 4)


class FromTheFront(Sound):
    """Takes -1 for 1."""

    def __getitem__(self, index):
        return super().__getitem__(-index if -4 <= index < 0 else index)

    def patient_id(self, index):
        return super().patient_id(-index if -4 <= index < 0 else index)


class OneVolume(Sound):
    """Gives every case a key of its own."""

    def volume_key(self, index):
        return f"volume-{range(4)[index]}"


class Altered(Sound):
    """Changes every case."""

    def __getitem__(self, index):
        return self.alter(super().__getitem__(index), index)


class NumericTarget(Altered):
    """Targets are numbers."""

    def alter(self, case, index):
        return replace(case, target=case.target.astype(np.uint8))


class OtherGrid(Altered):
    """Targets lie on another grid."""

    def alter(self, case, index):
        return replace(case, target=case.target[:, ::2])


class Unmarked(Altered):
    """Does not say what is absent."""

    def alter(self, case, index):
        return replace(case, query=Query(case.query.text))


class DoubleVoxels(Altered):
    """Voxels are float64."""

    def alter(self, case, index):
        return replace(case, volume=replace(case.volume, voxels=case.volume.voxels.astype(np.float64)))


class Holes(Altered):
    """Voxels hold NaN."""

    def alter(self, case, index):
        return replace(case, volume=replace(case.volume, voxels=case.volume.voxels * np.float32("nan")))


class Flat(Altered):
    """The affine cannot be inverted."""

    def alter(self, case, index):
        return replace(case, volume=replace(case.volume, affine=np.diag([1.0, 1.0, 0.0, 1.0])))


class Turned(Altered):
    """Volumes are RAS."""

    def alter(self, case, index):
        return replace(case, volume=Volume(case.volume.voxels, np.eye(4), volume_id=case.volume.volume_id))


class Silent(Altered):
    """Asks nothing."""

    def alter(self, case, index):
        return replace(case, query=replace(case.query, text=" "))


class OtherName(Sound):
    """Names its cases otherwise before they are read."""

    def case_id(self, index):
        return f"number-{range(4)[index]}"


class SameName(Altered):
    """Every case has one name."""

    def alter(self, case, index):
        return replace(case, case_id="case")


class Conflated(Sound):
    """One key for two volumes."""

    def volume_key(self, index):
        return "volume"


class Nameless(Altered):
    """Volumes have no identity."""

    def alter(self, case, index):
        return replace(case, volume=replace(case.volume, volume_id=""))


class OtherPatient(Altered):
    """Cases name another patient."""

    def alter(self, case, index):
        return replace(case, patient_id="somebody else")


class GoneFile(Sound):
    """Names a file that is not there."""

    def scan_file(self, index):
        return Path("gone.nii.gz")


class OwnWords(Sound):
    """Names a problem as it likes."""

    def find_problems(self):
        return [("strange", "row 3", "it looks odd")]


class BadRow(Sound):
    """Has a bad row."""

    def find_problems(self):
        return [("bad_row", "row 3", "label is 0")]


class Scattered(Sound):
    """Volumes take turns."""

    def volume_key(self, index):
        return f"volume-{index % 2}"


class Fresh(Altered):
    """Draws new noise each time."""

    rng = np.random.default_rng(0)

    def alter(self, case, index):
        noise = self.rng.normal(0, 1, case.volume.shape).astype(np.float32)
        return replace(case, volume=replace(case.volume, voxels=case.volume.voxels + noise))


class Locked(Sound):
    """Holds a lock, which no other process can have."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Absent(Altered):
    """A copy forgets what was set after it was made."""

    shift = 0.0

    def alter(self, case, index):
        return replace(case, volume=replace(case.volume, voxels=case.volume.voxels + np.float32(self.shift)))

    def __getstate__(self):
        return {}


def forgetful() -> Absent:
    dataset = Absent()
    dataset.shift = 1.0
    return dataset


class Bare(Sound):
    """Gives a mapping in place of a case."""

    def __getitem__(self, index):
        return {"image": super().__getitem__(index).volume}


class ListedTarget(Altered):
    """Targets are lists."""

    def alter(self, case, index):
        return replace(case, target=case.target.tolist())


BROKEN = [
    (checks.check_cases, Bare()),
    (checks.check_cases, ListedTarget()),
    (checks.check_length, Empty()),
    (checks.check_length, Endless()),
    (checks.check_length, EndlessKeys()),
    (checks.check_negative_index, FromTheFront()),
    (checks.check_target_form, NumericTarget()),
    (checks.check_target_form, OtherGrid()),
    (checks.check_absent_is_empty, Unmarked()),
    (checks.check_volume_form, DoubleVoxels()),
    (checks.check_volume_form, Holes()),
    (checks.check_affine, Flat()),
    (checks.check_affine, Turned()),
    (checks.check_query, Silent()),
    (checks.check_case_ids, SameName()),
    (checks.check_case_ids, OtherName()),
    (checks.check_volume_key, Conflated()),
    (checks.check_volume_key, Nameless()),
    (checks.check_volume_key, OneVolume()),
    (checks.check_patient_id, OtherPatient()),
    (checks.check_scan_file, GoneFile()),
    (checks.check_find_problems, OwnWords()),
    (checks.check_find_problems, BadRow()),
    (checks.check_volumes_are_adjacent, Scattered()),
    (checks.check_repeatable, Fresh()),
    (checks.check_picklable, Locked()),
    (checks.check_picklable, forgetful()),
]


@pytest.mark.parametrize(("check", "dataset"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_caught(assert_caught, check, dataset):
    assert_caught(check, dataset)


def test_every_check_catches_something():
    assert {check for check, _ in BROKEN} == set(checks.DATASET_CHECKS)


def test_a_folder_of_dicom_is_a_scan_file(tmp_path):
    class OfFolders(Sound):
        def scan_file(self, index):
            return tmp_path

    checks.check_scan_file(OfFolders())


@pytest.mark.parametrize("check", checks.DATASET_CHECKS, ids=lambda check: check.__name__)
def test_a_sound_data_set_passes(check):
    check(Sound())
