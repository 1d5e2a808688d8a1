"""Phantoms: the same seed draws the same scan, anatomy is plausible, splits and phrasings stay apart."""

import hashlib
import os
import pickle
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from medvol.core.errors import ConfigError, QueryError
from medvol.datasets.phantom import LESION_TARGETS, ORGANS, TARGETS, PhantomDataset
from medvol.datasets.phantom_anatomy import LABEL_NAMES, LABELS
from medvol.datasets.settings import CacheSettings, PhrasingSettings
from medvol.grounding.anchors import label_anchor
from medvol.queries.query_bank import QueryBank
from medvol.queries.sides import check_sides


def cases(**settings):
    dataset = PhantomDataset(**settings)
    return [dataset[i] for i in range(len(dataset))]


@pytest.fixture(scope="module")
def forty():
    return cases(num_volumes=40, seed=3, cache=CacheSettings(scans=64))


def test_questions_are_known_before_a_volume_is():
    dataset = PhantomDataset(num_volumes=1, questions=PhrasingSettings(phrasing="both"))
    questions = [(dataset.query(i), dataset.target(i)) for i in range(len(dataset))]
    assert questions == [(case.query, case.query.target) for case in (dataset[i] for i in range(len(dataset)))]


def test_the_same_settings_give_the_same_cases():
    first, second = cases(num_volumes=2, seed=5), cases(num_volumes=2, seed=5, cache=CacheSettings(scans=1))
    assert [c.case_id for c in first] == [c.case_id for c in second]
    assert [c.query for c in first] == [c.query for c in second]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.volume.voxels, b.volume.voxels)
        np.testing.assert_array_equal(a.target, b.target)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.volume.affine, b.volume.affine)


def test_the_order_of_reading_does_not_matter():
    dataset, again = PhantomDataset(num_volumes=3, cache=CacheSettings(scans=1)), PhantomDataset(num_volumes=3)
    last = dataset[len(dataset) - 1]
    np.testing.assert_array_equal(again[0].volume.voxels, dataset[0].volume.voxels)
    np.testing.assert_array_equal(again[-1].volume.voxels, last.volume.voxels)
    assert again[-1].case_id == last.case_id


def digest():
    """Everything about three cases, as one number."""
    dataset, total = (
        PhantomDataset("val", 2, seed=9, questions=PhrasingSettings(phrasing="both", absent_share=0.2)),
        hashlib.sha256(),
    )
    for i in (len(dataset) - 1, 0, 5):
        case = dataset[i]
        for array in (case.volume.voxels, case.volume.affine, case.target, case.labels):
            total.update(array.tobytes())
        total.update(f"{case.case_id} {case.query}".encode())
    return total.hexdigest()


def test_another_process_draws_the_same(tmp_path):
    script = tmp_path / "draw.py"
    script.write_text(f"import runpy\nprint(runpy.run_path({str(__file__)!r})['digest']())\n")
    environment = {**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.strip() == digest()


def test_a_volume_does_not_depend_on_phrasings_or_their_number():
    plain = PhantomDataset(num_volumes=2)
    for other in (
        PhantomDataset(num_volumes=9, questions=PhrasingSettings(phrasing="both")),
        PhantomDataset(num_volumes=2, questions=PhrasingSettings(absent_share=0.3)),
    ):
        np.testing.assert_array_equal(plain[0].volume.voxels, other[0].volume.voxels)


@pytest.mark.parametrize("change", [{"seed": 1}, {"split": "val"}, {"split": "test"}])
def test_seeds_and_splits_draw_other_volumes(change):
    plain, other = PhantomDataset(num_volumes=1), PhantomDataset(num_volumes=1, **change)
    assert plain.volume_key(0) != other.volume_key(0)
    assert np.abs(plain[0].volume.voxels - other[0].volume.voxels).max() > 100


def test_splits_share_no_volume_and_no_patient():
    keys = [{d.volume_key(i) for i in range(len(d))} for d in map(split_of_ten, ("train", "val", "test"))]
    assert [len(k) for k in keys] == [10, 10, 10]
    assert len(set().union(*keys)) == 30


def split_of_ten(split):
    return PhantomDataset(split=split, num_volumes=10)


def test_cases_of_one_volume_are_neighbours_and_share_it():
    dataset = PhantomDataset(num_volumes=3, cache=CacheSettings(scans=1))
    keys = [dataset.volume_key(i) for i in range(len(dataset))]
    assert sum(a != b for a, b in pairwise(keys)) == 2
    assert dataset[0].volume is dataset[1].volume
    assert dataset[0].volume.volume_id == dataset.volume_key(0) == dataset[0].patient_id == dataset.patient_id(0)


def test_every_planned_target_is_there(forty):
    for case in forty:
        assert case.query.kind != "absent"
        assert case.target.dtype == bool
        assert case.target.shape == case.volume.shape == case.labels.shape
        assert case.target.sum() >= 40, case.case_id


def test_intensities_are_those_of_a_contrast_ct(forty):
    voxels = forty[0].volume.voxels
    assert voxels.dtype == np.float32
    assert voxels.min() >= -1100
    assert voxels.max() <= 600
    np.testing.assert_array_equal(voxels, np.rint(voxels))
    assert abs(float(np.median(voxels[:, :4, :4])) + 1000) < 20
    expected = {"liver": (85, 123), "spleen": (107, 147), "left kidney": (150, 220), "urinary bladder": (-15, 25)}
    for case in forty:
        if case.query.target in expected:
            low, high = expected[case.query.target]
            inside = case.volume.voxels[case.target]
            assert low <= np.median(inside) <= high
        if case.query.target == "liver":
            inside = case.volume.voxels[case.target]
            assert 6 < 1.4826 * np.median(np.abs(inside - np.median(inside))) < 20


def test_organs_have_human_volumes(forty):
    human_ml = {
        "liver": (800, 3300),
        "spleen": (80, 650),
        "left kidney": (50, 350),
        "right kidney": (50, 350),
        "pancreas": (50, 350),
        "aorta": (60, 300),
        "urinary bladder": (40, 600),
        "gallbladder": (5, 80),
    }
    for case in forty:
        low, high = human_ml.get(case.query.target, (0, np.inf))
        assert low < case.target.sum() * np.prod(case.volume.spacing) / 1000 < high, case.case_id


def test_organs_lie_where_they_belong(forty):
    by_volume = {}
    for case in forty:
        by_volume.setdefault(case.volume.volume_id, {})[case.query.target] = case
    for organs in by_volume.values():
        affine = organs["liver"].volume.affine
        check_sides(organs["left kidney"].target, organs["right kidney"].target, affine)
        check_sides(organs["spleen"].target, organs["liver"].target, affine)
        z, y, x = ({n: np.argwhere(c.target).mean(axis=0)[axis] for n, c in organs.items()} for axis in range(3))
        assert z["urinary bladder"] < z["left kidney"] < z["spleen"]
        assert z["right kidney"] < z["liver"]
        assert y["gallbladder"] < y["right kidney"]
        assert x["liver"] < x["aorta"] < x["spleen"]


def test_spacing_is_anisotropic_and_the_volume_is_lps(forty):
    for case in forty[::10]:
        z, y, x = case.volume.spacing
        assert 12 <= z <= 16
        assert 350 / 96 <= y == x <= 400 / 96
        np.testing.assert_array_equal(np.sign(np.diag(case.volume.affine)), [-1, -1, 1, 1])
        assert np.count_nonzero(case.volume.affine[:3, :3]) == 3


def test_label_map_and_targets_agree(forty):
    assert len(LABEL_NAMES) == len(LABELS) == 14
    assert PhantomDataset.label_names == LABEL_NAMES
    for case in forty:
        if case.query.target in LABELS:
            np.testing.assert_array_equal(case.target, case.labels == LABELS[case.query.target])
        if case.query.target == "kidneys":
            np.testing.assert_array_equal(
                case.target, np.isin(case.labels, [LABELS["left kidney"], LABELS["right kidney"]])
            )
    assert max(case.labels.max() for case in forty) == 12


def test_lesions_and_relations(forty):
    with_lesion = {c.volume.volume_id: c for c in forty if c.query.target == "kidney lesion"}
    assert 0.4 < len(with_lesion) / 40 < 0.8
    for case in forty:
        if case.query.target in LESION_TARGETS:
            assert case.volume.volume_id in with_lesion
    sides = Counter()
    for case in (c for c in forty if c.query.target == "kidney with lesion"):
        lesion = with_lesion[case.volume.volume_id].target
        assert not (case.target & lesion).any()
        sides[int(case.labels[case.target][0])] += 1
        apart = np.abs(np.argwhere(case.target)[:, None] - np.argwhere(lesion)[None]).max(axis=-1).min()
        assert apart == 1
    assert min(sides[LABELS["left kidney"]], sides[LABELS["right kidney"]]) >= 5


def test_lesion_share_is_kept():
    assert not {c.query.target for c in cases(num_volumes=4, lesion_share=0.0)} & set(LESION_TARGETS)
    asked = Counter(c.query.target for c in cases(num_volumes=4, lesion_share=1.0))
    assert asked == dict.fromkeys(TARGETS, 4)


@pytest.mark.parametrize(("phrasing", "uses"), [("train", [False]), ("held_out", [True]), ("both", [False, True])])
def test_phrasings_are_those_asked_for(phrasing, uses):
    dataset = PhantomDataset(num_volumes=5, questions=PhrasingSettings(phrasing=phrasing))
    bank = QueryBank.load()
    held_out = Counter()
    for i in range(len(dataset)):
        query = dataset[i].query
        assert query.text in [asked.text for asked in bank.phrasings(query.target, query.held_out)]
        held_out[query.held_out] += 1
    assert sorted(held_out) == uses
    assert len(set(held_out.values())) == 1


def test_every_training_phrasing_occurs():
    dataset = PhantomDataset(num_volumes=60, questions=PhrasingSettings(phrasings_per_target=2))
    asked = {q.query.text for q in dataset._cases}
    bank = QueryBank.load()
    assert asked == {q.text for target in TARGETS for q in bank.phrasings(target, False)}


def test_more_phrasings_of_a_target_differ():
    dataset = PhantomDataset(num_volumes=1, lesion_share=0.0, questions=PhrasingSettings(phrasings_per_target=3))
    texts = [dataset[i].query.text for i in range(len(dataset))]
    assert len(texts) == len(set(texts)) == 3 * (len(ORGANS) + 1)


def test_absent_queries_have_empty_masks():
    everything = cases(num_volumes=40, questions=PhrasingSettings(absent_share=0.25))
    absent = [c for c in everything if c.query.kind == "absent"]
    assert len(absent) / len(everything) == pytest.approx(0.25, abs=0.03)
    assert not any(c.target.any() for c in absent)
    assert all(c.target.any() for c in everything if c.query.kind != "absent")
    assert {c.query.target for c in absent} & set(LESION_TARGETS)


@pytest.mark.parametrize("shape", [(12, 48, 48), (40, 128, 96), (9, 64, 80)])
def test_other_shapes(shape):
    case = PhantomDataset(num_volumes=1, shape=shape)[0]
    assert case.volume.shape == shape
    assert case.volume.spacing[1] == case.volume.spacing[2]
    assert case.target.any()


def test_a_bank_file_adds_phrasings(tmp_path):
    (tmp_path / "mine.yaml").write_text("liver: {held_out: {implicit: [where bile is born]}}")
    dataset = PhantomDataset(
        num_volumes=1,
        questions=PhrasingSettings(
            phrasing="held_out", phrasings_per_target=99, query_bank=str(tmp_path / "mine.yaml")
        ),
    )
    assert "where bile is born" in {dataset[i].query.text for i in range(len(dataset))}
    with pytest.raises(QueryError, match="cannot be read"):
        len(PhantomDataset(questions=PhrasingSettings(query_bank=str(tmp_path / "absent.yaml"))))


def test_travels_to_workers_without_its_scans():
    dataset = PhantomDataset(num_volumes=2)
    case = dataset[1]
    sent = pickle.dumps(dataset)
    assert len(sent) < 100_000
    copy = pickle.loads(sent)
    np.testing.assert_array_equal(copy[1].volume.voxels, case.volume.voxels)
    assert copy[1].query == case.query


def test_index_out_of_range_ends_iteration():
    dataset = PhantomDataset(num_volumes=1)
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "dev"}, "split is one of train, val, test; got 'dev'"),
        ({"shape": (24, 96)}, r"shape is \(Z, Y, X\)"),
        ({"shape": (4, 96, 96)}, "at least 8"),
        ({"num_volumes": 0}, "num_volumes"),
        ({"lesion_share": 1.5}, "lesion_share"),
        ({"cache": CacheSettings(folder="cache")}, "cache.folder does not work with phantoms"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        PhantomDataset(**settings)


def test_a_relation_means_the_kidney_whose_mask_it_has():
    data = PhantomDataset("val", 6, shape=(16, 64, 64), lesion_share=1.0)
    cases = {(data.volume_key(i), data[i].query.target): data[i] for i in range(len(data))}
    relations = [c for (_, target), c in cases.items() if target in ("kidney with lesion", "kidney without lesion")]
    assert len(relations) == 12
    for case in relations:
        meant = cases[(case.patient_id, case.query.meaning)].target
        assert (meant & case.target).sum() == case.target.sum() > 0
    assert {case.query.meaning for case in relations} == {"left kidney", "right kidney"}
    assert all(not c.query.meaning for c in cases.values() if not c.query.target.startswith("kidney with"))


def test_nodules_lie_at_different_heights_and_change_nothing_else():
    plain = PhantomDataset("val", 8, seed=4, lesion_share=0.0)
    dataset = PhantomDataset("val", 8, seed=4, nodule_share=0.75, lesion_share=0.0)
    asked = [dataset[i] for i in range(len(dataset)) if dataset[i].query.target == "lesion"]
    assert 3 <= len(asked) <= 8
    for case in asked:
        labels, count = ndimage.label(case.target, np.ones((3, 3, 3)))
        assert 2 <= count <= 4
        areas = np.array([(labels == part).sum(axis=(1, 2)) for part in range(1, count + 1)])
        clear = 2 * areas >= areas.max(axis=1, keepdims=True)
        assert (clear.sum(axis=0) <= 1).all()
        assert label_anchor(case.target, max_anchors=4).key_slice is not None
        assert len(label_anchor(case.target, max_anchors=4).anchors) == count
        assert 225 < np.median(case.volume.voxels[case.target]) < 345
        np.testing.assert_array_equal(case.labels == LABELS["nodule"], case.target)
        assert case.volume.volume_id.endswith("-nodules")
    assert {d.volume_key(0).removesuffix("-nodules") for d in (plain, dataset)} == {plain.volume_key(0)}
    assert all(case.query.target != "lesion" for case in (plain[i] for i in range(len(plain))))


def test_equal_names_mean_equal_voxels_whatever_the_shares():
    """Names of the default shares are those of the same volumes as ever."""
    held = {}
    for lesions in (0.0, 0.6, 1.0):
        for nodules in (0.0, 1.0):
            dataset = PhantomDataset("val", 8, shape=(8, 32, 32), lesion_share=lesions, nodule_share=nodules)
            for case in map(dataset.__getitem__, range(len(dataset))):
                known = held.setdefault(case.volume.volume_id, case.volume.voxels)
                np.testing.assert_array_equal(known, case.volume.voxels)
    assert len(held) == 8 * 2 * 2  # with and without a lesion, with and without nodules
    usual = PhantomDataset("val", 8, shape=(8, 32, 32))
    names = [f"phantom-8x32x32-0-val-{number:04d}" for number in range(8)]
    assert list(dict.fromkeys(map(usual.volume_key, range(len(usual))))) == names


def test_a_share_of_nodules_is_a_share():
    with pytest.raises(ConfigError, match="nodule_share is 2; it is a share"):
        PhantomDataset(nodule_share=2)
