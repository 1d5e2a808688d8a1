"""ReXGroundingCT on a small copy of its layout: cases, measures by hand, the submission file, and what is refused."""

import gzip
import json
import re
import shutil
import zipfile
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
import releases
from scipy import ndimage

from medvol.core.errors import ConfigError, DatasetError, MedvolError
from medvol.core.metrics import dice
from medvol.datasets.rexgroundingct import ReXGroundingCTDataset
from medvol.datasets.rexgroundingct_list import CATEGORIES
from medvol.datasets.rexgroundingct_measures import pool_scores, score_finding
from medvol.datasets.settings import CacheSettings, PatientSettings, QuestionSettings
from medvol.imaging.writing import write_mask


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(releases.write_rexgroundingct(tmp_path_factory.mktemp("rex")))


@pytest.fixture
def own_root(root, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(root, tmp_path / "rex")


def drawn(name):
    names = [one for part in releases.REX_SCANS.values() for one in part]
    return dict(zip(names, releases.phantoms(len(names), 0.0, seed=8), strict=True))[name]


def cases(dataset):
    return {case.case_id: case for case in map(dataset.__getitem__, range(len(dataset)))}


def test_findings_are_asked_in_their_own_words_and_lie_where_they_were_drawn(root):
    found = cases(ReXGroundingCTDataset(root, split="val"))
    names = releases.REX_SCANS["val"]
    assert list(found) == [f"{name}_{i:04d}" for name in names for i in (0, 1)]
    for name in names:
        voxels, labels, spacing = drawn(name)
        kidneys, liver = releases.rex_findings(labels)
        first, second = found[f"{name}_0000"], found[f"{name}_0001"]
        np.testing.assert_array_equal(first.target, kidneys > 0)
        np.testing.assert_array_equal(second.target, liver > 0)
        np.testing.assert_array_equal(first.volume.voxels, voxels)
        assert first.volume.spacing == pytest.approx(spacing, rel=1e-6)
        assert first.volume.modality == "CT"
        assert first.query.text == "Two masses beside the spine"
        assert second.query.text == "Consolidation below the right lung"
        assert (first.query.target, second.query.target) == ("pulmonary nodule or mass", "atelectasis or consolidation")
        assert first.query.kind == "free"
    assert found["valid_3_a_1_0000"].patient_id == "ct-rate-valid_3"


def test_parts_are_those_of_the_release_and_no_patient_is_trained_and_validated_on(root, caplog):
    parts = {
        part: {scan.case for scan in ReXGroundingCTDataset(root, split=part).listed}
        for part in ("train", "val", "test", "all")
    }
    assert parts["val"] == set(releases.REX_SCANS["val"])
    assert parts["test"] == set(releases.REX_SCANS["test"])
    assert parts["train"] == set(releases.REX_SCANS["train"]) - {"train_7_a_1"}
    assert parts["all"] == parts["train"] | parts["val"] | parts["test"]
    assert "1 training scans are of patients in val or test and are left out, such as train_7_a_1" in caplog.text


def test_the_test_part_has_questions_and_no_masks(root):
    found = cases(ReXGroundingCTDataset(root, split="test"))
    assert [case.target for case in found.values()] == [None, None]


def test_patients_and_targets_are_chosen(root):
    one = ReXGroundingCTDataset(root, split="train", patients=PatientSettings(only=["ct-rate-train_2"]))
    assert {one.patient_id(i) for i in range(len(one))} == {"ct-rate-train_2"}
    assert len(one) == 4
    named = ReXGroundingCTDataset(root, questions=QuestionSettings(targets=["Pulmonary nodule or mass"]))
    assert {named[i].query.target for i in range(len(named))} == {"pulmonary nodule or mass"}
    with pytest.raises(DatasetError, match="patients: 'x' is not in the data"):
        len(ReXGroundingCTDataset(root, patients=PatientSettings(only=["x"])))
    for settings in (
        {"patients": PatientSettings(split_file="x.json")},
        {"questions": QuestionSettings(relations=True)},
        {"questions": QuestionSettings(absent_share=0.1)},
    ):
        with pytest.raises(ConfigError, match="leave"):
            ReXGroundingCTDataset(root, **settings)


def test_a_cache_of_slices_gives_the_same_cases(root, tmp_path):
    plain = cases(ReXGroundingCTDataset(root, split="val"))
    kept = cases(ReXGroundingCTDataset(root, split="val", cache=CacheSettings(folder=str(tmp_path / "cache"))))
    for name, case in plain.items():
        np.testing.assert_array_equal(kept[name].target, case.target)
        np.testing.assert_array_equal(kept[name].volume.voxels, case.volume.voxels)


def test_scans_may_lie_side_by_side_and_elsewhere(root, tmp_path, caplog):
    folder = tmp_path / "ct"
    folder.mkdir()
    for name in releases.REX_SCANS["val"][:1]:
        kind, number, study, _ = name.split("_")
        nested = f"{root}/{kind}_fixed/{kind}_{number}/{kind}_{number}_{study}/{name}.nii.gz"
        shutil.copy(nested, folder)
    found = ReXGroundingCTDataset(root, ct_rate=str(folder), split="val")
    assert len(found) == 2
    assert "1 of 2 scans are not there and are left out, such as valid_3_a_1.nii.gz" in caplog.text
    with pytest.raises(
        DatasetError, match=r"there is no train_1_a_1.nii.gz, nor any other of the 3 scans; set ct_rate"
    ):
        len(ReXGroundingCTDataset(root, ct_rate=str(folder), split="train"))


def blob(*ranges):
    mask = np.zeros((12, 12, 12), bool)
    mask[tuple(slice(*one) for one in ranges)] = True
    return mask


def test_measures_of_one_finding_by_hand():
    """Two true cubes of 27; one is found, of Dice 2 * 18 / (27 + 18); one is invented; a speck is none."""
    first, second = blob((0, 3), (0, 3), (0, 3)), blob((8, 11), (8, 11), (8, 11))
    entities = (first + 2 * second).astype(np.int32)
    predicted = blob((0, 2), (0, 3), (0, 3)) | blob((5, 8), (0, 3), (9, 12)) | blob((11, 12), (0, 3), (0, 3))
    score = score_finding(predicted, entities, "x")
    assert (score.true, score.predicted, score.found) == (2, 2, 1)
    assert score.dice == pytest.approx(2 * 18 / (18 + 27 + 9 + 54))
    pooled = pool_scores([score, score_finding(np.zeros((12, 12, 12), bool), entities, "y")], ["lost"])
    assert (pooled.precision, pooled.recall) == (1 / 2, 1 / 4)
    assert pooled.f1 == pytest.approx(2 / (2 + 4))
    assert pooled.hit_rate == 0.5
    assert pooled.dice == pytest.approx(score.dice / 2)
    assert pooled.dice_by_category == {"x": score.dice, "y": 0.0}
    assert pooled.missing == ("lost",)


def test_the_harmonic_mean_of_the_published_rows():
    """The leaderboard: precision 0.235 and recall 0.292 give F1 0.260; 0.074 and 0.369 give 0.123."""
    for found, predicted, true, f1 in ((235 * 292, 292_000, 235_000, 0.260), (74 * 369, 369_000, 74_000, 0.123)):
        score = score_finding(blob((0, 3), (0, 3), (0, 3)), blob((0, 3), (0, 3), (0, 3)).astype(np.int32))
        pooled = pool_scores([type(score)("", 1.0, true, predicted, found)])
        assert pooled.f1 == pytest.approx(2 * pooled.precision * pooled.recall / (pooled.precision + pooled.recall))
        assert round(pooled.f1, 3) == f1


def test_edges_join_instances_and_corners_do_not():
    entities = blob((0, 12), (0, 12), (0, 12)).astype(np.int32)
    by_edge = blob((0, 3), (0, 3), (0, 3)) | blob((3, 6), (3, 6), (0, 3))
    by_corner = blob((0, 3), (0, 3), (0, 3)) | blob((3, 6), (3, 6), (3, 6))
    assert score_finding(by_edge, entities).predicted == 1
    assert score_finding(by_corner, entities).predicted == 2


def test_touching_entities_are_counted_apart():
    entities = (blob((0, 3), (0, 3), (0, 3)) + 2 * blob((3, 6), (0, 3), (0, 3))).astype(np.int32)
    score = score_finding(entities > 0, entities)
    assert (score.true, score.predicted, score.found, score.dice) == (2, 1, 1, 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_by_brute_force(seed):
    """Of all ways to pair instances one to one, the one of the largest sum of Dice; pairs below 0.2 do not count."""
    from itertools import permutations

    rng = np.random.default_rng(seed)
    true, _ = ndimage.label(ndimage.gaussian_filter(rng.normal(size=(12, 12, 12)), 1.5) > 0.08)
    predicted = ndimage.gaussian_filter((true > 0) + rng.normal(size=true.shape) * 1.5, 1) > 0.45
    parts, count = ndimage.label(predicted, ndimage.generate_binary_structure(3, 2))
    kept = [parts == i for i in range(1, count + 1) if (parts == i).sum() >= 10][:5]
    entities = np.where(true <= 5, true, 0).astype(np.int32)
    numbers = [n for n in np.unique(entities) if n]
    mask = np.logical_or.reduce([*kept, np.zeros(true.shape, bool)])
    best, found = -1.0, 0
    longest = max(len(kept), len(numbers))
    for order in permutations(range(longest), len(kept)):
        pairs = [dice(part, entities == numbers[j]) for part, j in zip(kept, order, strict=True) if j < len(numbers)]
        pairs = [value for value in pairs if value >= 0.2]
        if sum(pairs) > best + 1e-12:
            best, found = sum(pairs), len(pairs)
    score = score_finding(mask, entities)
    assert (score.predicted, score.true, score.found) == (len(kept), len(numbers), found)


def write_predictions(dataset, folder, skip=(), digest=""):
    """Right masks, except those that are skipped; with a digest as ``medvol predict`` names them, records included."""
    for case_id, case in cases(dataset).items():
        if case_id not in skip:
            write_mask(folder / f"{case_id}{digest}.nii.gz", case.target, case.volume)
            if digest:
                (folder / f"{case_id}{digest}.json").write_text("{}")


def test_right_masks_measure_1_and_missing_ones_are_named(root, tmp_path):
    dataset = ReXGroundingCTDataset(root, split="val")
    write_predictions(dataset, tmp_path / "all")
    scores = dataset.measure(tmp_path / "all")
    assert (scores.findings, scores.dice, scores.hit_rate, scores.recall, scores.missing) == (4, 1, 1, 1, ())
    assert set(scores.dice_by_category) == {CATEGORIES["2b"], CATEGORIES["2d"]}
    write_predictions(dataset, tmp_path / "some", skip=["valid_3_a_1_0001"])
    scores = dataset.measure(tmp_path / "some")
    assert scores.missing == ("valid_3_a_1_0001",)
    assert scores.dice == 0.75
    assert scores.dice_by_category == {CATEGORIES["2b"]: 0.5, CATEGORIES["2d"]: 1.0}
    with pytest.raises(DatasetError, match=r"none of 4 findings; the first would be train_7_b_1_0000\.nii\.gz"):
        dataset.measure(tmp_path)
    with pytest.raises(DatasetError, match="choose the split val"):
        ReXGroundingCTDataset(root, split="test").measure(tmp_path)


def test_what_predict_writes_is_measured_and_sent_unless_two_policies_answered(root, tmp_path):
    dataset = ReXGroundingCTDataset(root, split="val")
    folder = tmp_path / "predictions"
    write_predictions(dataset, folder, digest="_0123456789ab")
    assert (dataset.measure(folder).dice, dataset.measure(folder).missing) == (1, ())
    assert dataset.write_submission(folder, tmp_path / "sent.zip") == []
    write_predictions(dataset, folder, digest="_ba9876543210")
    one, other = (folder / f"train_7_b_1_0000{digest}.nii.gz" for digest in ("_0123456789ab", "_ba9876543210"))
    sentence = f"case 'train_7_b_1_0000' is answered by {one} and by {other}; leave one of them out"
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        dataset.measure(folder)
    with pytest.raises(DatasetError, match=re.escape(sentence)):
        dataset.write_submission(folder, tmp_path / "other.zip")
    assert not (tmp_path / "other.zip").exists()


def test_the_submission_is_the_masks_of_the_release_again(root, tmp_path):
    dataset = ReXGroundingCTDataset(root, split="val")
    write_predictions(dataset, tmp_path / "masks", skip=["valid_3_a_1_0001"])
    assert dataset.write_submission(tmp_path / "masks", tmp_path / "sent.zip") == ["valid_3_a_1_0001"]
    with zipfile.ZipFile(tmp_path / "sent.zip") as archive:
        assert archive.namelist() == [f"{name}.nii.gz" for name in releases.REX_SCANS["val"]]
        for name in archive.namelist():
            sent = nib.Nifti1Image.from_bytes(gzip.decompress(archive.read(name)))
            masks = np.asarray(nib.load(f"{root}/segmentations/{name}").dataobj) > 0
            masks[1] &= name != "valid_3_a_1.nii.gz"
            assert sent.get_data_dtype() == np.uint8
            np.testing.assert_array_equal(np.asarray(sent.dataobj), masks)
    before = (tmp_path / "sent.zip").read_bytes()
    with pytest.raises(DatasetError, match="has a mask for none of 4 findings"):
        dataset.write_submission(tmp_path, tmp_path / "sent.zip")
    assert (tmp_path / "sent.zip").read_bytes() == before
    with pytest.raises(DatasetError, match=r"let the name end in \.zip"):
        dataset.write_submission(tmp_path / "masks", tmp_path / "sent")


def test_a_submission_for_the_test_part(root, tmp_path):
    dataset = ReXGroundingCTDataset(root, split="test")
    first = dataset[0]
    write_mask(tmp_path / f"{first.case_id}.nii.gz", first.volume.voxels > 0, first.volume)
    assert dataset.write_submission(tmp_path, tmp_path / "sent.zip") == ["valid_4_a_1_0001"]
    with zipfile.ZipFile(tmp_path / "sent.zip") as archive:
        assert archive.namelist() == ["valid_4_a_1.nii.gz"]


def write_masks(root, name, array):
    nib.save(nib.Nifti1Image(array, np.eye(4)), f"{root}/segmentations/{name}.nii.gz")


def test_masks_of_another_shape_are_refused_and_a_single_finding_may_lack_its_axis(own_root, caplog):
    name = "valid_3_a_1"
    path = own_root / "dataset.json"
    content = json.loads(path.read_text())
    stored = np.asarray(nib.load(own_root / "segmentations" / f"{name}.nii.gz").dataobj)
    write_masks(own_root, name, np.moveaxis(stored, 0, -1))
    dataset = ReXGroundingCTDataset(str(own_root), split="val")
    with pytest.raises(DatasetError, match=r"dataset\.json: valid_3_a_1\.nii\.gz, finding 0: .* of one release"):
        dataset[2]
    content["val"][1] |= {key: {"0": content["val"][1][key]["0"]} for key in ("findings", "pixels", "categories")}
    path.write_text(json.dumps(content))
    write_masks(own_root, name, stored[0])
    found = cases(ReXGroundingCTDataset(str(own_root), split="val"))
    np.testing.assert_array_equal(found["valid_3_a_1_0000"].target, releases.rex_findings(drawn(name)[1])[0] > 0)
    assert not caplog.text.count("the list says")


def test_masks_in_another_order_than_the_list_are_noticed(own_root, caplog):
    stored = np.asarray(nib.load(own_root / "segmentations" / "valid_3_a_1.nii.gz").dataobj)
    write_masks(own_root, "valid_3_a_1", stored[::-1].copy())
    cases(ReXGroundingCTDataset(str(own_root), split="val"))
    assert caplog.text.count("are list and masks of one release?") == 2


def test_an_empty_finding_is_not_asked_for_and_a_missing_file_is_named(own_root, caplog):
    path = own_root / "dataset.json"
    content = json.loads(path.read_text())
    content["val"][1]["pixels"]["0"] = 0
    path.write_text(json.dumps(content))
    dataset = ReXGroundingCTDataset(str(own_root), split="val")
    assert len(dataset) == 3
    assert "finding 0 of valid_3_a_1.nii.gz has an empty mask and is not asked for" in caplog.text
    (own_root / "segmentations" / "valid_3_a_1.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"valid_3_a_1\.nii\.gz is not there; unpack the segmentations"):
        len(ReXGroundingCTDataset(str(own_root), split="val"))


def change(**fields):
    return lambda content: content["val"][0].update(fields)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.clear(), "expected lists of scans under train, val, test"),
        (change(name="../../etc/passwd"), "names are like 'train_1741_b_2.nii.gz'"),
        (change(name=["x"]), "names are like"),
        (change(findings={}), "no findings numbered from 0 on"),
        (change(findings={"0": "x", "2": "y"}), "no findings numbered from 0 on"),
        (change(findings=["x"]), "findings is"),
        (change(findings={"0": "", "1": "y"}), "finding 0 is ''; expected a sentence"),
        (change(findings={"0": {"text": "x"}, "1": "y"}), "expected a sentence"),
        (change(categories={"0": "9z"}), "has the category '9z'; there are 1a, 1b"),
        (change(categories={"0": ["1a"]}), "has the category"),
        (change(pixels={"0": -1}), "has -1 pixels"),
        (lambda content: content["val"].append(content["val"][0]), "is in it twice"),
        (lambda content: content["val"].append("x"), "has the name None"),
    ],
)
def test_a_list_of_another_layout_is_refused_in_one_sentence(damage, message, own_root):
    path = own_root / "dataset.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=re.escape(message)) as caught:
        len(ReXGroundingCTDataset(str(own_root), split="val"))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:200])


def write_fractions(path):
    nib.save(nib.Nifti1Image(np.full((2, 16, 64, 64), 0.5, np.float32), np.eye(4)), path)


def write_negative(path):
    nib.save(nib.Nifti1Image(np.full((2, 16, 64, 64), -1, np.int16), np.eye(4)), path)


def write_huge_header(path):
    image = nib.Nifti1Image(np.zeros((2, 16, 64, 64), np.uint8), np.eye(4))
    data = bytearray(image.to_bytes())
    data[40:56] = np.array([4, 9999, 0, 9999, 0, 9999, 0, 9999], "<i2").tobytes()
    buffer = BytesIO()
    with gzip.open(buffer, "wb") as file:
        file.write(bytes(data))
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize("damage", [cut_short, write_fractions, write_negative, write_huge_header])
def test_damaged_masks_are_refused(damage, own_root):
    damage(own_root / "segmentations" / "train_7_b_1.nii.gz")
    with pytest.raises(MedvolError, match="train_7_b_1"):
        ReXGroundingCTDataset(str(own_root), split="val")[0]
