"""NiftiDataset: tables, folders, splits by patient, and errors that say where."""

import csv
import json
import os
import pickle
import re
from dataclasses import replace
from itertools import chain

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medvol.core.errors import ConfigError, DatasetError, GeometryError, ScanError
from medvol.datasets.nifti import NiftiDataset
from medvol.datasets.settings import CacheSettings, PatientSettings, QuestionSettings
from medvol.datasets.splits import split_patients
from medvol.imaging.folders import find_all_scans
from medvol.queries.query_bank import QueryBank

RAS = np.diag([2.0, 2.0, 5.0, 1.0])
SHAPE = (16, 12, 8)


def save(path, array, affine=RAS):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)


def write_scan(folder, name="image.nii.gz", seed=0):
    voxels = np.random.default_rng(seed).integers(-1000, 300, SHAPE).astype(np.int16)
    save(folder / name, voxels)
    return voxels


def kidney_labels():
    """RAS: small i is the patient's left."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:5, 3:9, 1:7] = 3
    labels[11:14, 3:9, 1:7] = 2
    labels[10, 3:9, 2:6] = 9
    labels[7:9, 2:4, 2:4] = 5
    return labels


NAMES = {"2": "kidney_right", "3": "kidney_left", "5": "aorta", "9": "kidney_cyst_right"}


@pytest.fixture
def folder(tmp_path):
    write_scan(tmp_path / "scan")
    save(tmp_path / "scan" / "label.nii.gz", kidney_labels())
    (tmp_path / "labels.json").write_text(json.dumps(NAMES))
    return tmp_path


def write_table(folder, rows, name="table.csv"):
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return str(folder / name)


ROW = {"image": "scan/image.nii.gz", "mask": "scan/label.nii.gz", "label": "2", "target": "kidney_right"}


def all_cases(dataset):
    return [dataset[i] for i in range(len(dataset))]


def to_lps(array):
    """Stored (I, J, K) in RAS as (Z, Y, X) in LPS, by hand."""
    return array[::-1, ::-1].transpose(2, 1, 0)


def test_a_row_becomes_a_case(folder):
    case = NiftiDataset(
        str(folder), write_table(folder, [{**ROW, "patient": "P1", "case": "first", "modality": "CT"}])
    )[0]
    np.testing.assert_array_equal(case.target, to_lps(kidney_labels() == 2))
    np.testing.assert_array_equal(case.volume.voxels, to_lps(write_scan(folder / "again")))
    assert (case.patient_id, case.case_id, case.volume.modality) == ("P1", "first_0002_0", "CT")
    assert case.query in QueryBank.load().phrasings("right kidney", held_out=False)
    assert case.volume.spacing == (5.0, 2.0, 2.0)


def test_labels_of_a_row_are_united_and_default_to_everything(folder):
    rows = [{**ROW, "label": "2;3", "target": "kidneys"}, {**ROW, "label": "", "target": "lesion"}]
    both, everything = all_cases(NiftiDataset(str(folder), write_table(folder, rows)))
    np.testing.assert_array_equal(both.target, to_lps(np.isin(kidney_labels(), [2, 3])))
    np.testing.assert_array_equal(everything.target, to_lps(kidney_labels() > 0))


def test_a_query_is_asked_as_it_is_once(folder):
    rows = [{**ROW, "query": " Where is the bean? "}]
    (case,) = all_cases(
        NiftiDataset(str(folder), write_table(folder, rows), questions=QuestionSettings(phrasing="both"))
    )
    assert (case.query.text, case.query.kind, case.query.target) == ("Where is the bean?", "free", "right kidney")


def test_without_a_mask_the_truth_is_unknown_and_absent_targets_are_asked_for_by_their_column(folder):
    rows = [
        {**ROW, "mask": "", "absent": ""},
        {**ROW, "label": "77", "absent": "yes"},
        {**ROW, "mask": "", "target": "spleen", "absent": "Yes", "query": "Where is the spleen?"},
    ]
    unknown, absent, unmasked = all_cases(NiftiDataset(str(folder), write_table(folder, rows)))
    assert unknown.target is None
    assert unknown.query.kind != "absent"
    for case in (absent, unmasked):
        assert not case.target.any()
        assert case.target.shape == case.volume.shape
        assert case.query.kind == "absent"
    assert unmasked.query.text == "Where is the spleen?"


MISSTATED = {
    "no_such_label": ({"label": "77"}, "label 77 of 'right kidney' is not in MASK, which holds 2, 3, 5, 9; correct it"),
    "labels": ({"label": "7;8"}, "label 7 or 8 of 'right kidney' is not in MASK"),
    "absent_and_there": ({"absent": "yes"}, "'right kidney' is said to be absent, and MASK holds 108 voxels of it"),
}


@pytest.mark.parametrize("name", MISSTATED)
def test_a_row_that_its_mask_belies_is_refused_by_row(folder, name):
    change, message = MISSTATED[name]
    table = write_table(folder, [{**ROW, "absent": ""}, {**ROW, "absent": "", **change}])
    dataset = NiftiDataset(str(folder), table)
    assert dataset[0].target.any()
    with pytest.raises(DatasetError) as caught:
        dataset[1]
    assert str(caught.value).startswith(f"{table}: row 3: ")
    assert message.replace("MASK", str(folder / ROW["mask"])) in str(caught.value)


WRONG_MASKS = {
    "nothing": (lambda scan: np.zeros(SHAPE, np.uint8), "'kidneys' is empty in"),
    "everything": (lambda scan: np.ones(SHAPE, np.uint8), "'kidneys' fills 100% of the scan"),
    "all_but_the_target": (lambda scan: (kidney_labels() != 9).astype(np.uint8), "'kidneys' fills 98% of the scan"),
    "the_scan": (lambda scan: scan, "holds values from -1000 to 299: a scan, not labels"),
    "grey_values": (lambda scan: ((scan + 1000) // 6).astype(np.uint8), "a scan, not labels"),
}


@pytest.mark.parametrize("name", WRONG_MASKS)
def test_a_mask_that_is_none_is_refused_by_row(folder, name):
    make, message = WRONG_MASKS[name]
    save(folder / "scan" / "wrong.nii.gz", make(write_scan(folder / "scan")))
    row = {**ROW, "mask": "scan/wrong.nii.gz", "label": "", "target": "kidneys"}
    with pytest.raises(DatasetError, match=message) as caught:
        NiftiDataset(str(folder), write_table(folder, [row]))[0]
    assert ": row 2: " in str(caught.value)


def test_many_labels_are_still_labels(folder):
    """96 structures of 2 x 2 x 4 voxels, as an atlas may have them on a coarse grid."""
    blocks = np.arange(1, 97, dtype=np.uint8).reshape(8, 6, 2).repeat(2, 0).repeat(2, 1).repeat(4, 2)
    save(folder / "scan" / "label.nii.gz", blocks)
    case = NiftiDataset(str(folder), write_table(folder, [{**ROW, "label": "7"}]))[0]
    assert case.target.sum() == 16


def test_json_tables_read_like_csv(folder):
    table = folder / "table.json"
    table.write_text(json.dumps([{**ROW, "label": [2, 3]}, {**ROW, "label": 2}]))
    first, second = all_cases(NiftiDataset(str(folder), str(table)))
    np.testing.assert_array_equal(first.target, to_lps(np.isin(kidney_labels(), [2, 3])))
    np.testing.assert_array_equal(second.target, to_lps(kidney_labels() == 2))


def test_cases_of_one_scan_come_together_and_share_it(folder):
    write_scan(folder / "other", seed=1)
    other = {"image": "other/image.nii.gz", "target": "liver"}
    dataset = NiftiDataset(
        str(folder), write_table(folder, [ROW, other, {**ROW, "label": "3"}]), cache=CacheSettings(scans=1)
    )
    keys = [dataset.volume_key(i) for i in range(3)]
    assert keys[0] == keys[1] != keys[2]
    assert dataset[0].volume is dataset[1].volume
    assert len({dataset[i].case_id for i in range(3)}) == 3
    assert dataset[0].volume.volume_id != dataset[2].volume.volume_id


def test_phrasings(folder):
    table = write_table(folder, [ROW])
    bank = QueryBank.load()
    held_out = {
        p: [
            c.query.held_out
            for c in all_cases(NiftiDataset(str(folder), table, questions=QuestionSettings(phrasing=p)))
        ]
        for p in PHRASINGS
    }
    assert held_out == PHRASINGS
    many = all_cases(NiftiDataset(str(folder), table, questions=QuestionSettings(phrasings_per_target=99)))
    assert {c.query for c in many} == set(bank.phrasings("right kidney", False))
    again = all_cases(NiftiDataset(str(folder), table, questions=QuestionSettings(phrasings_per_target=99)))
    assert [c.query for c in many] == [c.query for c in again]


PHRASINGS = {"train": [False], "held_out": [True], "both": [False, True]}


def test_a_folder_finds_its_targets(folder):
    dataset = NiftiDataset(str(folder), questions=QuestionSettings(min_voxels=20))
    found = {case.query.target: case for case in all_cases(dataset)}
    assert set(found) == {
        "right kidney",
        "left kidney",
        "right kidney cyst",
        "kidneys",
        "kidney with lesion",
        "kidney without lesion",
    }
    np.testing.assert_array_equal(found["kidney with lesion"].target, to_lps(kidney_labels() == 2))
    np.testing.assert_array_equal(found["kidney without lesion"].target, to_lps(kidney_labels() == 3))
    np.testing.assert_array_equal(found["kidneys"].target, to_lps(np.isin(kidney_labels(), [2, 3])))
    assert {case.patient_id for case in found.values()} == {"scan"}


@pytest.mark.parametrize("name", ["kidney cancer", "kidney_tumors", "renal mass", "left renal metastases"])
@pytest.mark.parametrize("relations", [False, True])
def test_a_growth_of_either_kidney_is_a_lesion_whatever_it_is_called(name, relations, folder):
    """The right kidney bears a cyst and the left one another growth, so none is the one with a lesion."""
    labels = kidney_labels()
    labels[5, 3:9, 2:6] = 7
    save(folder / "scan" / "label.nii.gz", labels)
    (folder / "labels.json").write_text(json.dumps({**NAMES, "7": name}))
    asked = QuestionSettings(min_voxels=20, relations=relations)
    targets = {case.query.target for case in all_cases(NiftiDataset(str(folder), questions=asked))}
    assert {"right kidney cyst", "left kidney"} < targets
    assert targets.isdisjoint({"kidney with lesion", "kidney without lesion"})


def test_a_growth_of_another_organ_is_no_lesion_of_a_kidney(folder):
    (folder / "labels.json").write_text(json.dumps({**NAMES, "9": "right adrenal tumour"}))
    targets = {c.query.target for c in all_cases(NiftiDataset(str(folder), questions=QuestionSettings(min_voxels=20)))}
    assert "kidney with lesion" not in targets


def test_one_kidney_has_no_relations(folder):
    save(folder / "scan" / "label.nii.gz", np.where(kidney_labels() == 3, 0, kidney_labels()).astype(np.uint8))
    targets = {
        case.query.target for case in all_cases(NiftiDataset(str(folder), questions=QuestionSettings(min_voxels=20)))
    }
    assert targets == {"right kidney", "right kidney cyst"}


def test_small_targets_of_a_folder_are_left_out(folder):
    targets = {
        case.query.target for case in all_cases(NiftiDataset(str(folder), questions=QuestionSettings(min_voxels=100)))
    }
    assert targets == {"right kidney", "left kidney", "kidneys", "kidney with lesion", "kidney without lesion"}


def test_relations_between_kidneys_are_asked_for_where_they_have_one_answer(folder):
    assert NiftiDataset(str(folder), questions=QuestionSettings(min_voxels=20)).dropped == {
        "larger": 1,
        "smaller": 1,
        "higher": 1,
        "lower": 1,
    }
    labels = kidney_labels()
    labels[2:5, 3:9, 3:7] = 0
    save(folder / "scan" / "label.nii.gz", labels)
    dataset = NiftiDataset(str(folder), questions=QuestionSettings(min_voxels=20))
    found = {case.query.target: case.target for case in all_cases(dataset)}
    left, right = to_lps(labels == 3), to_lps(labels == 2)
    for target, mask in {"larger kidney": right, "smaller kidney": left, "higher kidney": right}.items():
        np.testing.assert_array_equal(found[target], mask)
    np.testing.assert_array_equal(found["lower kidney"], left)
    assert dataset.dropped == {}


def test_every_relation_of_a_folder(folder):
    dataset = NiftiDataset(str(folder), questions=QuestionSettings(min_voxels=20, relations=True))
    found = {case.query.target: case for case in all_cases(dataset)}
    labels = kidney_labels()
    # Twin kidneys of one size and height, equally far from the aorta.
    assert dataset.dropped == {"larger": 1, "smaller": 1, "higher": 1, "lower": 1, "nearest": 1}
    assert set(found) >= {"kidney with cyst", "kidney without cyst", "only right kidney cyst", "kidney with lesion"}
    assert found["kidney with cyst"].query.meaning == "right kidney"
    assert found["only right kidney cyst"].query.meaning == "right kidney cyst"
    np.testing.assert_array_equal(found["kidneys"].target, to_lps(np.isin(labels, [2, 3])))
    np.testing.assert_array_equal(found["kidney with cyst"].target, to_lps(labels == 2))
    np.testing.assert_array_equal(found["only right kidney cyst"].target, to_lps(labels == 9))
    world = {value: np.argwhere(labels == value) * np.diag(RAS)[:3] for value in (2, 3, 5)}
    gaps = {v: min(np.linalg.norm(world[5] - p, axis=1).min() for p in world[v]) for v in (2, 3)}
    assert abs(gaps[2] - gaps[3]) < 5
    assert "kidney nearest to aorta" not in found


def test_relations_of_a_folder_need_names(folder):
    (folder / "labels.json").unlink()
    with pytest.raises(DatasetError, match=r"relations need the names of its labels; write labels\.json"):
        len(NiftiDataset(str(folder), target="kidney", questions=QuestionSettings(relations=True)))


@pytest.mark.parametrize("relations", [False, True])
def test_a_folder_asks_for_what_its_labels_name_and_the_scan_lacks(folder, relations):
    (folder / "labels.json").write_text(json.dumps({**NAMES, "7": "brain", "8": "heart"}))
    settings = QuestionSettings(min_voxels=20, relations=relations)
    shown = all_cases(NiftiDataset(str(folder), questions=settings))
    assert not {"brain", "heart"} & {case.query.target for case in shown}
    asked = all_cases(NiftiDataset(str(folder), questions=replace(settings, absent_share=0.5)))
    absent = [case for case in asked if case.query.kind == "absent"]
    assert {case.query.target for case in absent} == {"brain", "heart"}
    assert not any(case.target.any() for case in absent)
    assert len(asked) == len(shown) + 2


@pytest.mark.parametrize(("min_voxels", "kept"), [(24, True), (25, False)])
def test_a_target_of_just_enough_voxels_is_kept(folder, min_voxels, kept):
    assert (kidney_labels() == 9).sum() == 24
    dataset = NiftiDataset(str(folder), questions=QuestionSettings(min_voxels=min_voxels))
    assert ("right kidney cyst" in {dataset[i].query.target for i in range(len(dataset))}) == kept


def test_swapped_sides_are_refused(folder):
    (folder / "labels.json").write_text(json.dumps({**NAMES, "2": "kidney_left", "3": "kidney_right"}))
    with pytest.raises(DatasetError, match=r"label\.nii\.gz: left kidney: .*names are swapped"):
        len(NiftiDataset(str(folder), questions=QuestionSettings(min_voxels=20)))


def test_pairs_by_name_and_a_target_for_masks_without_names(tmp_path):
    for name in ("A", "B"):
        write_scan(tmp_path, f"{name}_image.nii.gz")
        save(tmp_path / f"{name}_mask.nii.gz", (kidney_labels() == 2).astype(np.uint8))
    write_scan(tmp_path, "unpaired_image.nii.gz")
    with pytest.raises(DatasetError, match=r"A_mask\.nii\.gz: nothing says what its labels are"):
        len(NiftiDataset(str(tmp_path)))
    cases = all_cases(NiftiDataset(str(tmp_path), target="soft-tissue mass", questions=QuestionSettings(min_voxels=20)))
    assert [c.patient_id for c in cases] == ["A", "B"]
    assert {c.query.target for c in cases} == {"soft-tissue mass"}
    np.testing.assert_array_equal(cases[0].target, to_lps(kidney_labels() == 2))


def write_pair(folder, image, label):
    write_scan(folder, image)
    save(folder / label, (kidney_labels() == 2).astype(np.uint8))


def find_masses(folder):
    return NiftiDataset(str(folder), target="mass", questions=FEW)


def test_scans_of_a_folder_are_read_or_named(tmp_path, caplog):
    write_pair(tmp_path, "a_image.nii.gz", "a_label.nii.gz")
    write_pair(tmp_path, "B_Image.nii.gz", "B_Mask.nii.gz")
    write_scan(tmp_path, "c_image.nii.gz")
    (tmp_path / "a_j").mkdir()  # in the order of the paths, it lies between a_image and a_label
    (tmp_path / "a_j" / "x.nii.gz").touch()
    dataset = find_masses(tmp_path)
    assert [case.patient_id for case in all_cases(dataset)] == ["B", "a"]
    message = f"1 scan has no label map and is left out: {tmp_path / 'c_image.nii.gz'}"
    assert caplog.messages == [f"{tmp_path}: {message}"]
    assert dataset.find_problems() == [("barren_scan", str(tmp_path), message)]


def test_label_maps_without_a_scan_are_named(tmp_path, caplog):
    write_pair(tmp_path, "a_image.nii.gz", "a_label.nii.gz")
    write_pair(tmp_path, "b_imag.nii.gz", "b_Label.nii.gz")
    write_scan(tmp_path, "c.nii.gz")
    assert [case.patient_id for case in all_cases(find_masses(tmp_path))] == ["a"]
    told = "1 label map has no *image* beside it and is left out:"
    assert caplog.messages == [f"{tmp_path}: {told} {tmp_path / 'b_Label.nii.gz'}"]


def test_a_label_map_that_is_called_an_image_too_is_no_scan(tmp_path, caplog):
    """An image that is merely masked, or not labelled, is one."""
    write_pair(tmp_path, "a_image.nii.gz", "a_label.nii.gz")
    save(tmp_path / "a_image_label.nii.gz", (kidney_labels() == 2).astype(np.uint8))
    assert [case.patient_id for case in all_cases(find_masses(tmp_path))] == ["a"]
    assert not caplog.messages
    for name in ("masked_image.nii.gz", "unlabelled_image.nii.gz"):
        write_scan(tmp_path, name)
    assert len(find_masses(tmp_path)._folder.unlabelled) == 2


NAMES_OF_SCANS = {
    "capitals of folders": (("Images/p1/image", "Images/p2/image"), ["Images-p1", "Images-p2"]),
    "small letters of folders": (("images/p1/image", "images/p2/image"), ["s-p1", "s-p2"]),
    "capitals beside small letters": (("ImageA_image", "ImageB_image"), ["ImageA", "ImageB"]),
    "capitals alone": (("P1_Image", "P2_IMAGE"), ["P1", "P2"]),
    "an ending within": (("p.nii.image",), ["p.nii"]),
    "folders apart": (("b/1/p.image", "b/Image1/p.image"), ["b-1-p", "b-Image1-p"]),
    "namesakes of folders": (("1/p.image", "image1/p.image", "2/image"), ["1--p.image", "2", "image1--p.image"]),
    "namesakes": (("image_p1", "p1_image", "p2_image"), ["image_p1", "p1_image", "p2"]),
    "namesakes by a dash": (("a/b_image", "a-b_image"), ["a--b_image", "a-b_image"]),
}


@pytest.mark.parametrize("what", NAMES_OF_SCANS)
def test_names_of_scans_stay_what_they_were_and_tell_them_apart(tmp_path, what):
    """Splits are dealt by the names of the patients: another name makes a test patient one to train on."""
    files, names = NAMES_OF_SCANS[what]
    for file in files:
        place = (tmp_path / file).parent
        place.mkdir(parents=True, exist_ok=True)
        name = file.rpartition("/")[2]
        word = "image" if "image" in name else "IMAGE" if "IMAGE" in name else "Image"
        write_pair(place, f"{name}.nii.gz", f"{name.replace(word, 'label')}.nii.gz")
    cases = all_cases(find_masses(tmp_path))
    assert [case.patient_id for case in cases] == names
    assert [case.case_id.rpartition("_")[0].rpartition("_")[0] for case in cases] == names


def test_links_to_folders_are_followed_once(tmp_path, caplog):
    root = tmp_path / "root"
    for place in (root / "p1", tmp_path / "far" / "p2"):
        place.mkdir(parents=True)
        write_pair(place, "image.nii.gz", "label.nii.gz")
    for name, target in {"p2": tmp_path / "far" / "p2", "p0": root / "p1", "loop": root, "up": tmp_path}.items():
        (root / name).symlink_to(target)
    (tmp_path / "far" / "p2" / "back").symlink_to(root / "p1")
    assert [case.patient_id for case in all_cases(find_masses(root))] == ["p1", "p2"]
    again, around = "a folder that is looked through already", f"a folder around {root}"
    where = {"p0": again, "loop": again, "p2/back": again, "up": around}
    assert set(caplog.messages) == {
        f"{root / name} is a link to {what}; it is left out" for name, what in where.items()
    }
    scans = {root / place / name for place in ("p1", "p2") for name in ("image.nii.gz", "label.nii.gz")}
    assert set(find_all_scans(root)) == scans


def test_a_link_into_a_linked_folder_takes_nothing_out_of_it(tmp_path):
    """Names of scans, and so splits, do not depend on links beside."""
    root, far = tmp_path / "root", tmp_path / "far" / "deep"
    (far / "p1").mkdir(parents=True)
    root.mkdir()
    write_pair(far / "p1", "image.nii.gz", "label.nii.gz")
    (root / "cohort").symlink_to(far)
    assert [case.patient_id for case in all_cases(find_masses(root))] == ["cohort-p1"]
    (root / "a").symlink_to(far / "p1")
    assert [case.patient_id for case in all_cases(find_masses(root))] == ["cohort-p1"]


def test_which_of_two_links_is_followed_does_not_depend_on_the_disk(tmp_path, monkeypatch):
    far = tmp_path / "far"
    far.mkdir()
    write_pair(far, "image.nii.gz", "label.nii.gz")
    for name in ("b", "a"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "p").symlink_to(far)
    walk = os.walk

    def turned(top, **options):
        for place, folders, files in walk(top, **options):
            folders.sort(reverse=True)
            yield place, folders, files

    for order in (walk, turned):
        monkeypatch.setattr("os.walk", order)
        assert [case.patient_id for case in all_cases(find_masses(tmp_path / "root"))] == ["a-p"]


def test_a_split_file_may_name_a_scan_without_a_target(tmp_path):
    for name in ("a", "b"):
        write_pair(tmp_path, f"{name}_image.nii.gz", f"{name}_label.nii.gz")
    save(tmp_path / "b_label.nii.gz", np.zeros(SHAPE, np.uint8))
    (tmp_path / "split.json").write_text('{"train": ["a", "b"]}')
    patients = PatientSettings(split_file=str(tmp_path / "split.json"))
    dataset = NiftiDataset(str(tmp_path), split="train", target="mass", patients=patients, questions=FEW)
    assert [case.patient_id for case in all_cases(dataset)] == ["a"]


FEW = QuestionSettings(min_voxels=20)

TWINS = {
    "label maps": (("a_image.nii.gz", "a_label.nii", "a_label.nii.gz"), "has two label maps"),
    "images": (("a_image.nii", "a_image.nii.gz", "a_label.nii.gz"), "has two scans"),
    "spellings": (("a_image.nii.gz", "a_label.nii.gz", "A_label.nii.gz"), "has two label maps"),
    "names": (("a-/image.nii", "a-/label.nii", "a/-image.nii", "a/-label.nii"), "rename one of them"),
}


@pytest.mark.parametrize("names", TWINS)
def test_two_files_that_could_be_meant_are_refused(tmp_path, names):
    files, message = TWINS[names]
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name, (kidney_labels() == 2).astype(np.uint8))
    with pytest.raises(DatasetError, match=message):
        len(find_masses(tmp_path))


def test_nrrd_and_mha_are_read(tmp_path):
    voxels = np.arange(8 * 12 * 16, dtype=np.int16).reshape(8, 12, 16) - 900
    for suffix in ("nrrd", "mha"):
        for name, array in (("image", voxels), ("mask", (voxels > 0).astype(np.uint8))):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((2.0, 2.0, 5.0))
            sitk.WriteImage(image, str(tmp_path / f"{suffix}_{name}.{suffix}"))
    cases = all_cases(NiftiDataset(str(tmp_path), target="lesion"))
    assert [c.patient_id for c in cases] == ["mha", "nrrd"]
    for case in cases:
        np.testing.assert_array_equal(case.volume.voxels, voxels)
        np.testing.assert_array_equal(case.target, voxels > 0)


def test_the_modality_of_the_dataset_fills_the_tables_gaps(folder):
    table = write_table(folder, [{**ROW, "modality": "MR"}, {**ROW, "modality": ""}])
    dataset = NiftiDataset(str(folder), table, modality="other")
    assert [dataset[i].volume.modality for i in range(2)] == ["MR", "other"]
    assert len(NiftiDataset(str(folder), table, modality="other", modalities=["MR"])) == 1


def test_no_question_speaks_of_another_modality(folder):
    bank = folder / "bank.yaml"
    bank.write_text("right kidney: {training: {free: [{text: the bean on this MR, modality: MR}]}}")
    for modality in ("CT", "MR"):
        table = write_table(folder, [{**ROW, "modality": modality}])
        dataset = NiftiDataset(
            str(folder), table, questions=QuestionSettings(phrasings_per_target=99, query_bank=str(bank))
        )
        asked = {dataset[i].query.text for i in range(len(dataset))}
        assert ("the bean on this MR" in asked) == (modality == "MR")


@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0), (0.1, 0.45, 0.45)])
def test_splits_deal_every_patient_once(fractions):
    patients = [f"P{i}" for i in range(34)]
    parts = split_patients(patients, fractions, seed=0)
    assert sorted(chain(*parts.values())) == sorted(patients)
    for name, share in zip(("train", "val", "test"), fractions, strict=True):
        assert abs(len(parts[name]) - 34 * share) <= 1
    assert parts == split_patients(patients[::-1] * 2, fractions, seed=0)


def test_a_folder_whose_name_is_no_utf_8(folder, tmp_path_factory):
    """Its cases are dealt, asked about and kept in a cache like any other's."""
    (folder / "scan").rename(folder / os.fsdecode(b"sc\xe4n"))
    cache = CacheSettings(folder=str(tmp_path_factory.mktemp("cache")))
    questions = QuestionSettings(min_voxels=1, absent_share=0.2)
    dataset = NiftiDataset(str(folder), questions=questions, cache=cache)
    assert len(dataset) >= 4
    assert dataset[0].target.any()
    assert split_patients({dataset.patient_id(0), "P0"}, (0.5, 0.0, 0.5), 0)["train"]


def test_another_seed_deals_otherwise():
    patients = [f"P{i}" for i in range(34)]
    assert split_patients(patients, (0.5, 0.25, 0.25), 0) != split_patients(patients, (0.5, 0.25, 0.25), 1)


def patient_table(folder):
    rows = [{**ROW, "patient": f"P{i // 2:02d}", "label": str(2 + i % 2)} for i in range(20)]
    return write_table(folder, rows)


def patients(folder, **settings):
    dataset = NiftiDataset(str(folder), patient_table(folder), **settings)
    return {dataset.patient_id(i) for i in range(len(dataset))}, len(dataset)


def test_patients_are_disjoint_and_complete(folder):
    parts = [patients(folder, split=split) for split in ("train", "val", "test")]
    assert [count for _, count in parts] == [12, 4, 4]
    assert len(set().union(*(names for names, _ in parts))) == 10
    assert patients(folder)[1] == 20


def test_named_patients(folder):
    assert patients(folder, patients=PatientSettings(only=["P01", "P03"]))[0] == {"P01", "P03"}
    assert patients(folder, patients=PatientSettings(exclude=["P01"]))[0] == {f"P{i:02d}" for i in range(10)} - {"P01"}
    with pytest.raises(DatasetError, match="patients: 'P99' is not in the data; there are 10: P00"):
        patients(folder, patients=PatientSettings(only=["P99"]))


def test_named_targets(folder):
    table = write_table(folder, [ROW, {**ROW, "target": "liver"}])
    assert len(NiftiDataset(str(folder), table, questions=QuestionSettings(targets=["liver"]))) == 1
    assert len(NiftiDataset(str(folder), table, questions=QuestionSettings(targets=["kidney_right"]))) == 1
    with pytest.raises(DatasetError, match="targets: 'spleen' is not in the data"):
        len(NiftiDataset(str(folder), table, questions=QuestionSettings(targets=["spleen"])))


def test_a_split_without_cases_is_refused(folder):
    with pytest.raises(DatasetError, match="no case is left in split 'val'; choose other patients"):
        len(NiftiDataset(str(folder), write_table(folder, [ROW]), split="val"))


BAD_ROWS = {
    "no_image": ({"image": ""}, "row 3: image is empty"),
    "absent_image": ({"image": "no.nii"}, "row 3: image is 'no.nii', and there is no such file"),
    "absent_mask": ({"mask": "no.nii"}, "row 3: mask is 'no.nii', and there is no such file"),
    "long_path": ({"mask": "a" * 5000}, "there is no such file"),
    "nul_in_path": ({"mask": "a\0b.nii"}, "there is no such file"),
    "long_label": ({"label": "9" * 5000}, "write values above 0"),
    "label_zero": ({"label": "0"}, "row 3: label is '0'; write values above 0"),
    "label_text": ({"label": "kidney"}, "row 3: label is 'kidney'"),
    "label_comma": ({"label": "2,3"}, "row 3: label is '2,3'"),
    "modality": ({"modality": "PET"}, "row 3: modality is 'PET'; write one of CT, MR, other"),
    "nothing_asked": ({"target": ""}, "row 3: target is empty, and so is query"),
    "underscore": ({"target": "_"}, "row 3: target is '_'"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_cell_is_named(folder, name):
    change, message = BAD_ROWS[name]
    table = write_table(folder, [{**ROW, "modality": "CT"}, {**ROW, "modality": "CT", **change}])
    with pytest.raises(DatasetError, match=re.escape(message)) as caught:
        len(NiftiDataset(str(folder), table))
    assert table in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_TABLES = {
    "empty": ("t.csv", "", "no rows"),
    "header_only": ("t.csv", "image,target\n", "no rows"),
    "no_image_column": ("t.csv", "scan,target\na,b\n", "no column 'image'"),
    "misspelt": ("t.csv", "image,lable\na,2\n", "unknown column 'lable'; did you mean 'label'?"),
    "few_cells": ("t.csv", "image,target\na\n", "row 2: not as many cells"),
    "many_cells": ("t.csv", "image,target\na,b,c\n", "row 2: not as many cells"),
    "quote": ("t.csv", 'image,target\n"a,b\n', "not a CSV table"),
    "not_json": ("t.json", "[{", "not JSON"),
    "deep_json": ("t.json", "[" * 100_000, "not JSON"),
    "json_object": ("t.json", "{}", "expected a list of objects"),
    "json_numbers": ("t.json", "[1]", "expected a list of objects"),
    "json_misspelt_later": ("t.json", '[{"image": "a"}, {"image": "a", "targt": "b"}]', "did you mean 'target'?"),
    "json_null": ("t.json", '[{"image": true}]', "t.json[0]: image is True; write a text"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_named(tmp_path, name):
    file, text, message = BAD_TABLES[name]
    (tmp_path / file).write_text(text)
    with pytest.raises(DatasetError, match=re.escape(message)) as caught:
        len(NiftiDataset(str(tmp_path), str(tmp_path / file)))
    assert file in str(caught.value)


def test_other_columns_are_left_alone(folder):
    assert len(NiftiDataset(str(folder), write_table(folder, [{**ROW, "size_xyz": "1x2x3", "comment": "fine"}]))) == 1


def test_absent_places_are_named(tmp_path):
    with pytest.raises(DatasetError, match="no such folder; set root"):
        len(NiftiDataset(str(tmp_path / "nowhere")))
    with pytest.raises(DatasetError, match=r"nothing\.csv: the table cannot be read"):
        len(NiftiDataset(str(tmp_path), str(tmp_path / "nothing.csv")))
    with pytest.raises(DatasetError, match="no file \\*image\\*"):
        len(NiftiDataset(str(tmp_path)))
    (tmp_path / "latin.csv").write_bytes("image,target\nM\xfcller,liver\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="not UTF-8"):
        len(NiftiDataset(str(tmp_path), str(tmp_path / "latin.csv")))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ('{"2": 7}', "expected names by label"),
        ("[" * 100_000, "expected names by label"),
        ("[]", "expected names by label"),
        ('{"x": "liver"}', "expected names by label"),
        ('{"2": "liver"}', "no name"),
    ],
)
def test_bad_label_names(folder, names, message):
    (folder / "labels.json").write_text(names)
    with pytest.raises(DatasetError, match=message):
        len(NiftiDataset(str(folder), questions=QuestionSettings(min_voxels=20)))


def test_two_label_maps_for_one_image(folder):
    save(folder / "scan" / "mask.nii.gz", kidney_labels())
    with pytest.raises(DatasetError, match=r"image\.nii\.gz has two label maps"):
        len(NiftiDataset(str(folder)))


def test_a_mask_on_another_grid_and_a_broken_scan_are_refused(folder):
    save(folder / "scan" / "moved.nii.gz", kidney_labels(), RAS + np.eye(4, k=3) * 7)
    (folder / "scan" / "cut.nii.gz").write_bytes((folder / "scan" / "image.nii.gz").read_bytes()[:200])
    moved = NiftiDataset(str(folder), write_table(folder, [{**ROW, "mask": "scan/moved.nii.gz"}]))
    with pytest.raises(GeometryError, match=r"moved\.nii\.gz"):
        moved[0]
    cut = NiftiDataset(str(folder), write_table(folder, [{**ROW, "image": "scan/cut.nii.gz"}]))
    with pytest.raises(ScanError, match=r"cut\.nii\.gz"):
        cut[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NiftiDataset(".", split="dev"), "split is one of all, train, val, test; got 'dev'"),
        (lambda: QuestionSettings(phrasing="seen"), "phrasing is one of train, held_out, both; got 'seen'"),
        (
            lambda: QuestionSettings(phrasings_per_target=0),
            "phrasings_per_target is 0; it must be a whole number, 1 or more",
        ),
        (
            lambda: QuestionSettings(absent_share=1.0),
            "absent_share is 1.0; it must be 0 or more and below 1",
        ),
        (lambda: PatientSettings(val_share=0.6, test_share=0.5), "sum to at most 1; got 0.6 and 0.5"),
        (lambda: PatientSettings(val_share=-0.5), "sum to at most 1; got -0.5 and 0.2"),
        (lambda: CacheSettings(gib=0), "cache.gib is 0; it must be above 0"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make()


def test_travels_to_workers(folder):
    dataset = NiftiDataset(str(folder), write_table(folder, [ROW]))
    case = dataset[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset))[0].target, case.target)


def test_a_cache_of_slices_changes_nothing(tmp_path):
    rng = np.random.default_rng(3)
    for patient in range(3):
        folder = tmp_path / "scans" / f"p{patient}"
        folder.mkdir(parents=True)
        labels = np.zeros((9, 8, 7), np.uint8)
        labels[1:5, 2:7, 1:5] = 1
        labels[6:, 2:7, 1:5] = 2
        for name, voxels in (("image", rng.integers(-1000, 1000, labels.shape)), ("label", labels)):
            nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.diag([1.0, 1, 3, 1])), folder / f"{name}.nii.gz")
    (tmp_path / "scans" / "labels.json").write_text('{"1": "liver", "2": "spleen"}')
    root, questions = str(tmp_path / "scans"), QuestionSettings(min_voxels=1)
    plain = NiftiDataset(root, questions=questions, cache=CacheSettings(scans=1))
    for _ in range(2):
        kept = NiftiDataset(root, questions=questions, cache=CacheSettings(scans=1, folder=str(tmp_path / "cache")))
        assert len(kept) == len(plain) == 6
        for index in range(6):
            ours, theirs = kept[index], plain[index]
            assert ours.volume.volume_id == theirs.volume.volume_id
            assert np.array_equal(ours.volume.voxels, theirs.volume.voxels)
            assert np.array_equal(ours.target, theirs.target)
    assert len(list((tmp_path / "cache").glob("*.slices"))) == 4, "three scans, and label maps that hold the same"


@pytest.mark.parametrize("absolute_root", [True, False])
def test_absolute_paths_name_a_patient_each(absolute_root, tmp_path, monkeypatch):
    """Of an absolute path below a relative root the file name alone was left, which all patients share."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        write_scan(tmp_path / "scans" / name)
        save(tmp_path / "scans" / name / "label.nii.gz", kidney_labels())
    write_scan(tmp_path / "other" / "a")
    save(tmp_path / "other" / "a" / "label.nii.gz", kidney_labels())
    places = [tmp_path / "scans" / "a", tmp_path / "scans" / "b", tmp_path / "other" / "a"]
    rows = [ROW | {"image": str(place / "image.nii.gz"), "mask": str(place / "label.nii.gz")} for place in places]
    root = tmp_path / "scans" if absolute_root else "scans"
    dataset = NiftiDataset(str(root), write_table(tmp_path, rows))
    outside = (tmp_path / "other" / "a" / "image.nii.gz").as_posix()
    assert [dataset.patient_id(i) for i in range(3)] == ["a/image.nii.gz", "b/image.nii.gz", outside]
    assert len({dataset.case_id(i) for i in range(3)}) == 3


def test_a_name_in_two_unicode_forms_is_one_patient(folder):
    rows = [ROW | {"patient": "Müller", "case": "é"}, ROW | {"patient": "Mu\u0308ller", "label": "3", "case": "e"}]
    rows[1]["target"] = "kidney_left"
    table = write_table(folder, rows)
    dataset = NiftiDataset(str(folder), table)
    assert dataset.patient_id(0) == dataset.patient_id(1) == "Müller"
    for name in ("Müller", "Mu\u0308ller"):
        assert len(NiftiDataset(str(folder), table, patients=PatientSettings(only=[name]))) == 2
    with pytest.raises(DatasetError, match="no case"):
        len(NiftiDataset(str(folder), table, patients=PatientSettings(exclude=["Mu\u0308ller"])))
