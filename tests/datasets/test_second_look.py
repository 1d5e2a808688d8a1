"""SecondLookDataset: whole scans and views of them."""

from itertools import groupby

import numpy as np
import pytest

from medvol.core.errors import ConfigError
from medvol.core.roles import CaseDataset
from medvol.core.types import Evidence
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.second_look import SecondLookDataset
from medvol.datasets.settings import PhrasingSettings
from medvol.grounding.regions import RegionSettings
from medvol.imaging.slices import shown_slices
from medvol.testing import make_case
from medvol.training.volume_augmentation import VolumeAugmentation

SMALL = {"num_volumes": 2, "shape": (12, 32, 40), "lesion_share": 1.0}


@pytest.fixture(scope="module")
def phantoms():
    return PhantomDataset(**SMALL, questions=PhrasingSettings(absent_share=0.2))


class OneCase(CaseDataset):
    """A single case."""

    def __init__(self, anchor=None, absent=False):
        self.anchor = anchor
        self.absent = absent

    def __len__(self):
        return 1

    def __getitem__(self, index):
        case = make_case(shape=(9, 48, 56), absent=self.absent)
        range(1)[index]
        return type(case)(**{**vars(case), "anchor": self.anchor})

    def volume_key(self, index):
        return self[index].volume.volume_id

    def patient_id(self, index):
        return self[index].patient_id


def test_whole_cases_come_first_and_each_has_its_views(phantoms):
    cases = SecondLookDataset(phantoms, views=2, companions=1)
    for key, group in groupby(range(len(phantoms)), phantoms.volume_key):
        own = len(list(group))
        assert sum(cases.volume_key(i) == key for i in range(len(cases))) == own
        views = {cases.volume_key(i) for i in range(len(cases)) if cases.volume_key(i).startswith(f"{key}@")}
        assert len(views) == 2 * own
    assert len(cases) == len(phantoms) * (1 + 2 * 2)
    assert cases.drawn


def test_views_on_average(phantoms):
    count = len(SecondLookDataset(phantoms, whole=False, views=0.5))
    assert 0.2 * len(phantoms) < count < 0.8 * len(phantoms)


def test_a_view_is_a_part_of_its_scan(phantoms):
    cases = SecondLookDataset(phantoms, whole=False, region=RegionSettings(10.0, 10.0))
    shown = 0
    for index in range(0, len(cases), 3):
        case, whole = cases[index], phantoms[index]
        assert case.query.text == whole.query.text
        depth, height, width = case.volume.shape
        assert depth == whole.volume.shape[0]
        assert height < whole.volume.shape[1] or width < whole.volume.shape[2] or whole.query.target == "liver"
        place = np.linalg.solve(whole.volume.affine, case.volume.affine[:, 3]).round().astype(int)
        rows, columns = slice(place[1], place[1] + height), slice(place[0], place[0] + width)
        assert np.array_equal(case.volume.voxels, whole.volume.voxels[:, rows, columns])
        assert np.array_equal(case.target, whole.target[:, rows, columns])
        assert np.array_equal(case.labels, whole.labels[:, rows, columns])
        assert shown_slices(case.volume, 64) == tuple(range(*case.volume.shown))
        if whole.target.any():
            seen = case.target[list(shown_slices(case.volume, 64))]
            shown += seen.any()
            assert case.query.kind == whole.query.kind
        else:
            assert case.query.kind == "absent"
    assert shown > 5


def test_first_answers_miss_by_no_more_than_they_may(phantoms):
    """Without jitter, shift and margins a view is the target's box on one slice, in the slice's proportions."""
    exact = SecondLookDataset(phantoms, whole=False, region=RegionSettings(0.0, 0.0), jitter=0.0, shift_mm=0.0)
    for index in range(0, len(phantoms), 2):
        whole, case = phantoms[index], exact[index]
        if not whole.target.any():
            continue
        (key,) = shown_slices(case.volume, 64)
        rows, columns = (np.flatnonzero(whole.target[key].any(axis=axis)) for axis in (1, 0))
        assert case.target[key].sum() == whole.target[key].sum()
        share = max(np.ptp(rows) + 1, (np.ptp(columns) + 1) * 32 / 40) / 32
        assert abs(case.volume.shape[1] - share * 32) < 2
        assert abs(case.volume.shape[2] - share * 40) < 2


def test_companions_ask_about_the_same_view(phantoms):
    cases = SecondLookDataset(phantoms, whole=False, companions=3)
    first, *others = [cases[i] for i in range(4)]
    assert len({case.volume.volume_id for case in (first, *others)}) == 1
    assert all(case.volume is first.volume for case in others)
    assert len({case.query.text for case in (first, *others)}) == 4
    assert first.query.text == phantoms[0].query.text
    for case in others:
        assert (case.query.kind == "absent") == (not case.target.any())


def test_what_lies_at_another_height_is_absent(phantoms):
    cases = SecondLookDataset(phantoms, whole=False, companions=20, region=RegionSettings(200.0, 0.0))
    elsewhere = 0
    for index in range(40):
        case = cases[index]
        first, stop = case.volume.shown
        assert case.target.any() == case.target[first:stop].any()
        elsewhere += case.query.kind == "absent"
    assert elsewhere


def test_absent_targets_are_looked_for_somewhere():
    case = SecondLookDataset(OneCase(absent=True), whole=False, region=RegionSettings(4.0, 4.0))[0]
    assert case.query.kind == "absent"
    assert not case.target.any()
    assert case.volume.shape[1] < 48


def test_a_readers_anchor_moves_with_the_view():
    anchor = Evidence(4, np.array([[28, 14, 40, 26]], np.float64))
    settings = RegionSettings(4.0, 4.0)
    case = SecondLookDataset(OneCase(anchor), whole=False, region=settings, jitter=0.0, shift_mm=0.0)[0]
    place = np.linalg.solve(make_case().volume.affine, case.volume.affine[:, 3])
    assert case.anchor.key_slice == 4
    assert np.allclose(case.anchor.boxes + np.tile(place[:2], 2), anchor.boxes)


def test_augmentation_shows_the_same_slices(phantoms):
    pytest.importorskip("torchio")
    cases = SecondLookDataset(phantoms, whole=False, region=RegionSettings(10.0, 10.0))
    case = cases[0]
    (changed,) = VolumeAugmentation([{"name": "RandomNoise", "std": 1.0}]).apply([case], (0, 0, 0))
    assert changed.volume.shown == case.volume.shown
    assert not np.array_equal(changed.volume.voxels, case.volume.voxels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jitter": 0.5}, "jitter is 0.5; it must be 0 or more and below 0.5"),
        ({"views": -1}, "views is -1; it must be 0 or more"),
        ({"views": float("inf")}, "views is inf; it must be 0 or more and finite"),
        ({"shift_mm": float("inf")}, "shift_mm is inf; it must be 0 or more and finite"),
        ({"seed": -1}, "seed is -1; it must be a whole number, 0 or more"),
        ({"whole": False, "views": 0}, "would hold no case; set whole to true, or views above 0"),
    ],
)
def test_settings_out_of_range_are_refused(phantoms, settings, message):
    with pytest.raises(ConfigError, match=message):
        SecondLookDataset(phantoms, **settings)


def test_other_regions_of_one_scan_are_other_volumes() -> None:
    """Two parts gave one key to two crops, and the answer about one was taught on the slices of the other."""
    source = PhantomDataset(split="train", num_volumes=1, shape=(12, 48, 48))
    parts = [
        SecondLookDataset(source, whole=False, region=RegionSettings(margin_mm=margin)) for margin in (10.0, 25.0, 10.0)
    ]
    one, other, same = (part.volume_key(0) for part in parts)
    assert one == same != other
    assert parts[0][0].volume.volume_id != parts[1][0].volume.volume_id
    assert parts[0].case_id(0) == parts[1].case_id(0)


def test_views_of_one_scan_around_other_targets_are_other_volumes() -> None:
    """The same place in another list of questions: the scan, the settings and the number of the view are the same."""

    class Moved(OneCase):
        def __getitem__(self, index):
            case = super().__getitem__(index)
            return type(case)(**{**vars(case), "target": np.roll(case.target, 14, axis=2)})

    views = [
        SecondLookDataset(dataset, whole=False, region=RegionSettings(margin_mm=2.0))[0].volume
        for dataset in (OneCase(), Moved())
    ]
    assert not np.array_equal(views[0].voxels, views[1].voxels)
    assert views[0].volume_id != views[1].volume_id
