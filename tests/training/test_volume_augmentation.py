"""Augmented volumes: masks in step, draws repeated by their key, and never a left that is right."""

import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from medvol.core.errors import ConfigError, MissingExtraError
from medvol.core.roles import CaseDataset
from medvol.core.types import Case, Query
from medvol.datasets.labelled_case import LabelledCase
from medvol.imaging.geometry import make_volume
from medvol.queries.directions import find_direction
from medvol.queries.query_bank import RELEASE_BANK, QueryBank
from medvol.training.data import CaseDataModule
from medvol.training.volume_augmentation import INTENSITY, SPATIAL, VolumeAugmentation

pytest.importorskip("torchio")

AFFINE = {"name": "RandomAffine", "degrees": 10, "scales": 0.1, "translation": 3, "image_interpolation": "nearest"}
NOISE = {"name": "RandomNoise", "std": [10, 10]}


def make_case(query: str = "the organ", number: int = 0) -> Case:
    """A box off the centre, bright in the volume, with labels of two values."""
    target = np.zeros((12, 20, 24), bool)
    target[3:8, 4:12, 6 + number : 15] = True
    volume = make_volume(np.where(target, 1000, 0).astype(np.float32), (3.0, 2.0, 1.5), volume_id=f"v{number}")
    labels = target.astype(np.uint8) * 2
    labels[0, 0, 0] = 7
    return LabelledCase(f"c{number}", volume, Query(query), target, f"p{number}", labels=labels)


@pytest.mark.parametrize("name", [*INTENSITY, *SPATIAL])
def test_every_transform_that_may_be_used(name):
    settings = {"axes": [1]} if name == "RandomFlip" else {}
    augmentation = VolumeAugmentation([{"name": name, **settings}])
    augmentation.load()
    case = make_case()
    [drawn] = augmentation.apply([case], (0, 0, 0))
    assert drawn.volume.shape == case.volume.shape
    assert np.array_equal(drawn.volume.affine, case.volume.affine)
    assert np.isfinite(drawn.volume.voxels).all()
    assert (drawn.volume.voxels.dtype, drawn.target.dtype, drawn.labels.dtype) == (np.float32, np.bool_, np.uint8)
    if name in INTENSITY:
        assert np.array_equal(drawn.target, case.target)


def test_noise_is_as_strong_as_said():
    case = make_case()
    [drawn] = VolumeAugmentation([NOISE]).apply([case], (3, 1, 4))
    noise = drawn.volume.voxels - case.volume.voxels
    assert noise.std() == pytest.approx(10, rel=0.05)
    assert abs(noise.mean()) < 1


@pytest.mark.parametrize("turn", range(5))
def test_masks_move_with_the_volume(turn):
    case = make_case()
    [drawn] = VolumeAugmentation([AFFINE]).apply([case], (0, turn, 0))
    assert not np.array_equal(drawn.target, case.target)
    assert np.array_equal(drawn.target, drawn.volume.voxels > 500)
    assert np.array_equal(drawn.labels == 2, drawn.target)
    assert set(np.unique(drawn.labels)) <= {0, 2, 7}


def test_a_translation_in_millimetres():
    """Six mm along the front-to-back axis are three rows, for the volume and for the masks."""
    shift = {"name": "RandomAffine", "degrees": 0, "scales": [1, 1], "translation": [0, 0, 6, 6, 0, 0]}
    case = make_case()
    [drawn] = VolumeAugmentation([shift]).apply([case], (0, 0, 0))
    rolled = [np.roll(case.target, step, axis=1) for step in (3, -3)]
    assert sum(np.array_equal(drawn.target, expected) for expected in rolled) == 1
    assert np.array_equal(drawn.target, drawn.volume.voxels > 500)


def test_a_flip_where_no_query_names_a_side():
    flip = {"name": "RandomFlip", "axes": [0], "flip_probability": 1}
    case = make_case()
    augmentation = VolumeAugmentation([flip], sides_may_swap=True)
    [drawn] = augmentation.apply([case], (0, 0, 0))
    assert np.array_equal(drawn.volume.voxels, case.volume.voxels[:, :, ::-1])
    assert np.array_equal(drawn.target, case.target[:, :, ::-1])
    for query in (Query("the LEFT kidney"), Query("what filters blood", "kidney_right"), Query("it", meaning="R lung")):
        with pytest.raises(ConfigError, match="may turn the axis LR over, and the query"):
            augmentation.apply([case, replace(case, query=query)], (0, 0, 0))


@pytest.mark.parametrize(
    ("axis", "query"), [(1, "the anterior wall"), (2, "the upper pole"), (2, "the highest lymph node")]
)
def test_flips_and_words_of_other_directions(axis, query):
    augmentation = VolumeAugmentation([{"name": "RandomFlip", "axes": [axis]}])
    augmentation.apply([make_case("the left kidney")], (0, 0, 0))
    with pytest.raises(ConfigError, match="names"):
        augmentation.apply([make_case(query)], (0, 0, 0))


REFUSED = {
    "could exchange left and right, and a query such as": [
        {"name": "RandomFlip"},
        {"name": "RandomFlip", "axes": 0},
        {"name": "RandomFlip", "axes": [1, 0]},
        {"name": "RandomFlip", "axes": ["Left"]},
        {"name": "RandomFlip", "axes": "right"},
        {"name": "RandomAffine", "degrees": 45},
        {"name": "RandomAffine", "degrees": [-10, 180]},
        {"name": "RandomAffine", "degrees": [0, 0, 0, 0, 0, 90]},
    ],
    "is not a transform that may be used": [
        {"name": "RandomSwap"},
        {"name": "ToCanonical"},
        {"name": "Resample", "target": 2},
        {"name": None},
        {},
    ],
    "did you mean": [{"name": "RandomNois"}],
    "is set by medvol": [{**AFFINE, "label_interpolation": "linear"}, {**NOISE, "include": ["map"]}],
    "is at most 15.0 mm": [{"name": "RandomElasticDeformation", "max_displacement": 30}],
    "axes of RandomFlip are": [{"name": "RandomFlip", "axes": [3]}],
    "is not a number": [{"name": "RandomAffine", "degrees": "ten"}],
}


@pytest.mark.parametrize(
    ("words", "transform"), [(words, t) for words, transforms in REFUSED.items() for t in transforms], ids=str
)
def test_refused_at_once(words, transform):
    with pytest.raises(ConfigError, match=words):
        VolumeAugmentation([NOISE, transform])
    with pytest.raises(ConfigError, match=words):
        CaseDataModule(train=Cases(), augment=[transform])


def test_a_draw_that_loses_a_target_is_not_used():
    target = np.zeros((12, 20, 24), bool)
    target[5, 0, 5] = True
    case = replace(make_case(), target=target)
    shift = {"name": "RandomAffine", "degrees": 0, "scales": [1, 1], "translation": [0, 0, -4, -4, 0, 0]}
    back = {**shift, "translation": [0, 0, 4, 4, 0, 0]}
    results = [VolumeAugmentation([transform]).apply([case], (0, 0, 0))[0] for transform in (shift, back)]
    assert sorted(result is case for result in results) == [False, True]


def test_equal_keys_give_equal_draws_and_leave_the_generator_alone():
    augmentation = VolumeAugmentation([AFFINE, NOISE])
    cases = [make_case(), Case("second", make_case().volume, Query("the block"))]
    before = torch.random.get_rng_state()
    first, second = augmentation.apply(cases, (0, 1, 2)), augmentation.apply(cases, (0, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first[0].volume is first[1].volume
    assert type(first[1]) is Case
    assert np.array_equal(first[0].volume.voxels, second[0].volume.voxels)
    assert first[0].volume.volume_id == second[0].volume.volume_id
    seen = {first[0].volume.volume_id}
    for key in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        [other, _] = augmentation.apply(cases, key)
        assert not np.array_equal(other.volume.voxels, first[0].volume.voxels)
        seen.add(other.volume.volume_id)
    assert len(seen) == 4


class Cases(CaseDataset):
    """Three volumes with two queries each."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Case:
        return replace(make_case(number=index // 2), case_id=f"c{index}")

    def volume_key(self, index: int) -> str:
        return f"v{index // 2}"

    def patient_id(self, index: int) -> str:
        return f"p{index // 2}"


def epoch_of(module: CaseDataModule, epoch: int, state: dict | None = None) -> list[tuple[str, float]]:
    """What an epoch hands out."""
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    if state is not None:
        loader.load_state_dict(state)
    return [(case.case_id, float(case.volume.voxels.sum())) for batch in loader for cases in batch for case in cases]


def test_epochs_workers_and_resuming():
    module = CaseDataModule(train=Cases(), augment=[NOISE, AFFINE], seed=5)
    module.setup("fit")
    first, second = epoch_of(module, 0), epoch_of(module, 1)
    assert len(first) == 6
    assert dict(first) != dict(second)
    assert epoch_of(module, 0) == first
    assert epoch_of(module, 1, {"yielded": 2}) == second[4:]
    parallel = CaseDataModule(train=Cases(), augment=[NOISE, AFFINE], seed=5, num_workers=2)
    assert epoch_of(parallel, 1) == second


def test_only_training_volumes_are_augmented():
    module = CaseDataModule(train=Cases(), val=Cases(), augment=[NOISE], allow_shared_patients=True)
    [[case, _]] = next(iter(module.val_dataloader()))
    assert np.array_equal(case.volume.voxels, make_case().volume.voxels)


def test_a_wrong_argument_is_told_before_a_run():
    module = CaseDataModule(train=Cases(), augment=[{"name": "RandomNoise", "sdt": 3}])
    with pytest.raises(ConfigError, match=r"torchio.RandomNoise does not take .*sdt"):
        module.setup("fit")


def test_without_torchio(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchio", None)
    with pytest.raises(MissingExtraError, match=r"medvol-r1\[torchio\]"):
        CaseDataModule(train=Cases(), augment=[NOISE]).setup("fit")


@dataclass(frozen=True, eq=False, repr=False)
class DoseCase(Case):
    """A case as a plug-in may have it: with maps of other kinds, and arrays that are no map."""

    lesions: np.ndarray | None = None
    dose: np.ndarray | None = None
    organs: np.ndarray | None = None
    points: np.ndarray | None = None


def test_what_a_strangers_case_adds_moves_with_its_volume():
    case = make_case()
    added = {
        "lesions": case.target.astype(np.uint16) * 700,
        "dose": np.where(case.target, 2.5, 0).astype(np.float32),
        "points": np.arange(6.0).reshape(2, 3),
    }
    own = DoseCase(case.case_id, case.volume, case.query, case.target, case.patient_id, **added)
    [drawn] = VolumeAugmentation([AFFINE]).apply([own], (0, 1, 0))
    assert type(drawn) is DoseCase
    assert not np.array_equal(drawn.target, case.target)
    assert (drawn.lesions.dtype, drawn.dose.dtype) == (np.uint16, np.float32)
    assert np.array_equal(drawn.lesions == 700, drawn.target)
    assert np.array_equal(drawn.dose > 1, drawn.target)
    assert drawn.organs is None
    assert drawn.points is added["points"]


@pytest.mark.parametrize(
    ("axis", "query"),
    [
        (2, "the uppermost nodule"),
        (2, "the most cranial nodule"),
        (2, "the nodule closest to the head"),
        (2, "the lowermost nodule"),
        (2, "the caudal nodule"),
        (2, "the apical nodule"),
        (0, "the leftmost nodule"),
        (0, "the nodule in the LLL"),
        (1, "the nodule in the foremost part"),
        (1, "the rear nodule"),
    ],
)
def test_a_flip_is_refused_for_a_direction_in_any_words(axis, query):
    augmentation = VolumeAugmentation([{"name": "RandomFlip", "axes": [axis]}], sides_may_swap=True)
    with pytest.raises(ConfigError, match="may turn the axis"):
        augmentation.apply([make_case(query)], (0, 0, 0))


def test_a_flip_is_refused_for_every_relation_of_height_and_side_that_the_banks_have():
    bank = QueryBank.load(RELEASE_BANK)
    directions = {"highest nodule": "SI", "lowest nodule": "SI", "left kidney": "LR", "right kidney": "LR"}
    for name, axis in directions.items():
        texts = [query.text for query in bank.phrasings(name) if query.kind in ("relational", "side")]
        assert texts
        missed = [text for text in texts if find_direction(text, axis) is None]
        assert not missed, (name, missed)
