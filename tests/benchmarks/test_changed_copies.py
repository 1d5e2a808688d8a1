"""Changed copies for validation: a flip is a flip, copies are told apart, and draws repeat."""

import sys
from pathlib import Path

import numpy as np
import pytest

from medvol.core.roles import CaseDataset
from medvol.datasets.phantom import PhantomDataset

pytest.importorskip("torchio")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FLIP = [{"name": "RandomFlip", "axes": ["LR"], "flip_probability": 1.0}]
MOVE = [{"name": "RandomAffine", "scales": 0.2, "degrees": 12, "translation": 15}]


@pytest.fixture
def changed_copies(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "changed_copies", raising=False)
    import changed_copies

    return changed_copies.ChangedCopies


class Livers(CaseDataset):
    """One question about each volume."""

    drawn = True

    def __init__(self):
        self.cases = PhantomDataset("val", 2)
        first = {}
        for place in range(len(self.cases)):
            if self.cases.target(place) == "liver":
                first.setdefault(self.cases.volume_key(place), place)
        self.places = list(first.values())

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        return self.cases[self.places[index]]

    def volume_key(self, index):
        return self.cases.volume_key(self.places[index])

    def patient_id(self, index):
        return self.cases.patient_id(self.places[index])


@pytest.fixture(scope="module")
def livers():
    data = Livers()
    assert len(data) == 2
    return data


def test_scan_and_mask_change_together(changed_copies, livers):
    data = changed_copies(livers, FLIP, copies=1)
    count = len(livers)
    assert len(data) == 2 * count
    for place in range(count):
        assert np.array_equal(data[place].volume.voxels, livers[place].volume.voxels)
        changed = data[count + place]
        assert np.array_equal(changed.volume.voxels, livers[place].volume.voxels[:, :, ::-1])
        assert np.array_equal(changed.target, livers[place].target[:, :, ::-1])
        assert changed.query == livers[place].query


def test_copies_are_told_apart_and_stay_with_their_patient(changed_copies, livers):
    data = changed_copies(livers, MOVE, copies=2)
    indices = range(len(data))
    assert len({data.volume_key(i) for i in indices}) == 3 * len({livers.volume_key(i) for i in range(len(livers))})
    assert len({data[i].case_id for i in indices}) == len(data)
    assert {data.patient_id(i) for i in indices} == {livers.patient_id(i) for i in range(len(livers))}
    assert all(data[i].patient_id == data.patient_id(i) for i in indices)
    first, second = data[len(livers)], data[2 * len(livers)]
    assert not np.array_equal(first.volume.voxels, second.volume.voxels)


def test_the_seed_decides_the_draw(changed_copies, livers):
    place = len(livers)
    first, again, other = (changed_copies(livers, MOVE, 1, seed)[place].volume.voxels for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
