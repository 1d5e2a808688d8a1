"""Published data sets: their files, labels, splits and patients, on small copies of their layouts."""

import json
import os
import pickle
import shutil
import time
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import releases
from scipy import ndimage

from medvol.core import settled_files
from medvol.core.errors import ConfigError, DatasetError
from medvol.core.registry import DATASETS
from medvol.datasets.abdomenct1k import AbdomenCT1KDataset
from medvol.datasets.ctorg import CTORGDataset, CTORGLayout
from medvol.datasets.decathlon import DecathlonDataset
from medvol.datasets.joined import JoinedDataset
from medvol.datasets.kits23 import CLASSES, KiTS23Dataset
from medvol.datasets.phantom_anatomy import LABELS
from medvol.datasets.settings import PatientSettings, QuestionSettings
from medvol.datasets.totalsegmentator import TotalSegmentatorDataset
from medvol.training.data import CaseDataModule

FEW = {"questions": QuestionSettings(min_voxels=20)}


def by_target(dataset, patient=None):
    """Cases by target, of the first patient unless one is named."""
    wanted = patient or dataset.patient_id(0)
    indices = [i for i in range(len(dataset)) if dataset.patient_id(i) == wanted]
    return {case.query.target: case for case in map(dataset.__getitem__, indices)}


def patients(dataset):
    return {dataset.patient_id(i) for i in range(len(dataset))}


@pytest.fixture(scope="module")
def ctorg(tmp_path_factory):
    return str(releases.write_ctorg(tmp_path_factory.mktemp("ctorg")))


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    root = tmp_path_factory.mktemp("kits")
    return str(root), releases.write_kits23(root)


def test_ctorg_labels_lie_where_they_were_drawn(ctorg):
    voxels, labels, spacing = releases.phantoms(5, 0.0)[0]
    found = by_target(CTORGDataset(ctorg, **FEW))
    assert set(found) == {"liver", "urinary bladder", "kidneys", "bone"}
    for target, names in {
        "liver": ["liver"],
        "urinary bladder": ["urinary bladder"],
        "kidneys": ["left kidney", "right kidney"],
        "bone": ["spine"],
    }.items():
        np.testing.assert_array_equal(found[target].target, np.isin(labels, [LABELS[n] for n in names]))
    volume = found["liver"].volume
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert volume.spacing == pytest.approx(spacing, rel=1e-6)
    assert volume.modality == "CT"


def test_ctorg_labels_beside_the_folder_of_the_scans_are_found_from_within(tmp_path, monkeypatch):
    for name in ("volumes/volume-21.nii.gz", "labels/labels-21.nii.gz"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "volumes")
    (scan,), _ = CTORGLayout().find(Path())
    assert scan.label_map.samefile(tmp_path / "labels" / "labels-21.nii.gz")


def test_ctorg_is_119_to_train_and_21_to_test(tmp_path):
    for number in range(140):
        for kind in ("volume", "labels"):
            (tmp_path / f"{kind}-{number}.nii.gz").touch()
    scans, _ = CTORGLayout().find(tmp_path)
    parts = [scan.split for scan in scans]
    assert (parts.count("train"), parts.count("test")) == (119, 21)
    assert {scan.image.name for scan in scans if scan.split == "test"} == {f"volume-{n}.nii.gz" for n in range(21)}
    assert len({scan.patient for scan in scans}) == 140


def test_ctorg_splits(ctorg):
    test = patients(CTORGDataset(ctorg, split="test", **FEW))
    train, val = (
        patients(CTORGDataset(ctorg, split=part, patients=PatientSettings(val_share=0.34), **FEW))
        for part in ("train", "val")
    )
    assert test == {"ctorg-000", "ctorg-001"}
    assert train | val == {"ctorg-021", "ctorg-022", "ctorg-023"}
    assert (len(train), len(val)) == (2, 1)


def test_sides_come_from_the_affine(ctorg):
    labels = releases.phantoms(5, 0.0)[0][1]
    found = by_target(CTORGDataset(ctorg, questions=QuestionSettings(relations=True, min_voxels=20)))
    for side in ("left kidney", "right kidney"):
        np.testing.assert_array_equal(found[side].target, labels == LABELS[side])
    liver = np.argwhere(labels == LABELS["liver"]) * releases.phantoms(1, 0.0)[0][2]
    gaps = {}
    for side in ("left kidney", "right kidney"):
        points = np.argwhere(labels == LABELS[side]) * releases.phantoms(1, 0.0)[0][2]
        gaps[side] = min(np.linalg.norm(liver - point, axis=1).min() for point in points)
    assert gaps["right kidney"] + 5 < gaps["left kidney"]
    assert found["kidney nearest to liver"].query.meaning == "right kidney"


def test_abdomenct1k(tmp_path, caplog):
    root = releases.write_abdomenct1k(tmp_path)
    labels = releases.phantoms(5, 0.0, seed=4)[0][1]
    found = by_target(AbdomenCT1KDataset(str(root), **FEW))
    assert set(found) == {"liver", "kidneys", "spleen", "pancreas"}
    np.testing.assert_array_equal(found["pancreas"].target, labels == LABELS["pancreas"])
    np.testing.assert_array_equal(found["spleen"].target, labels == LABELS["spleen"])
    parts = [
        patients(AbdomenCT1KDataset(str(root), split=s, patients=PatientSettings(val_share=0.2), **FEW))
        for s in ("train", "val", "test")
    ]
    assert [len(part) for part in parts] == [3, 1, 1]
    assert set().union(*parts) == {f"abdomenct1k-Case_{i:05d}" for i in range(1, 6)}
    (root / "Mask" / "Case_00002.nii.gz").unlink()
    incomplete = AbdomenCT1KDataset(str(root), **FEW)
    assert len(patients(incomplete)) == 4
    lonely = root / "AbdomenCT-1K-ImagePart1" / "Case_00002_0000.nii.gz"
    message = f"1 scan has no label map and is left out: {lonely}"
    assert caplog.messages == [f"{root}: {message}"]
    assert incomplete.find_problems() == [("barren_scan", str(root), message)]
    for mask in (root / "Mask").iterdir():
        mask.unlink()
    with pytest.raises(DatasetError, match=r"there is no Case_00001\.nii\.gz; unpack the masks too"):
        len(AbdomenCT1KDataset(str(root)))


def write_twins(root, release):
    """One scan of a release with a file that could be another file of it."""
    if release is AbdomenCT1KDataset:
        releases.write_abdomenct1k(root, 1)
        return root / "Mask" / "Case_00001.nii.gz", root / "predictions" / "Case_00001.nii.gz"
    if release is CTORGDataset:
        releases.write_ctorg(root, (0,))
        return root / "labels-0.nii.gz", root / "labels" / "labels-0.nii.gz"
    if release is KiTS23Dataset:
        releases.write_kits23(root, 1)
        folder = root / "dataset" / "case_00000"
        return folder / "segmentation.nii.gz", folder / "segmentation.nii"
    releases.write_totalsegmentator(root, ("train",))
    return root / "s0000" / "segmentations" / "liver.nii.gz", root / "s0000" / "segmentations" / "liver.nii"


@pytest.mark.parametrize("release", [AbdomenCT1KDataset, CTORGDataset, KiTS23Dataset, TotalSegmentatorDataset])
def test_two_label_maps_of_one_scan_are_refused(release, tmp_path):
    """Nothing says which one is the truth; predictions beside a release carry the names of its masks."""
    own, other = write_twins(tmp_path / "scans", release)
    if release is CTORGDataset:  # labels are looked for beside the scan, and in a folder beside its own
        (tmp_path / "scans" / "images").mkdir()
        volume = tmp_path / "scans" / "volume-0.nii.gz"
        volume.rename(volume.parent / "images" / volume.name)
        own = own.rename(volume.parent / "images" / own.name)
    other.parent.mkdir(exist_ok=True)
    if other.name.endswith(".gz"):
        other.write_bytes(own.read_bytes())
    else:
        nib.save(nib.load(own), other)
    with pytest.raises(DatasetError, match="keep one of them there") as caught:
        len(release(str(tmp_path / "scans"), **FEW))
    assert str(own) in str(caught.value)
    assert str(other) in str(caught.value)


def test_two_scans_of_one_name_are_refused(tmp_path):
    root = releases.write_ctorg(tmp_path, (0, 21))
    for kind in ("volume", "labels"):
        releases.save(root / "again" / f"{kind}-21.nii.gz", np.ones((4, 4, 4)), np.eye(4))
    message = r"volume-21\.nii\.gz and .*volume-21\.nii\.gz are both 'ctorg-021'; keep one of them there"
    with pytest.raises(DatasetError, match=message):
        len(CTORGDataset(str(root), **FEW))


@pytest.mark.parametrize("release", [CTORGDataset, KiTS23Dataset])
def test_scans_without_truth_are_left_out_and_told(release, tmp_path, caplog):
    write, scan, labels = {
        CTORGDataset: (releases.write_ctorg, "volume-{}.nii.gz", "labels-{}.nii.gz"),
        KiTS23Dataset: (
            lambda root, numbers: releases.write_kits23(root, len(numbers)),
            "dataset/case_0000{}/imaging.nii.gz",
            "dataset/case_0000{}/segmentation.nii.gz",
        ),
    }[release]
    write(tmp_path, (0, 1, 2))
    everyone = patients(release(str(tmp_path), **FEW))
    (tmp_path / labels.format(1)).unlink()
    dataset = release(str(tmp_path), **FEW)
    assert len(everyone - patients(dataset)) == 1
    message = f"1 scan has no label map and is left out: {tmp_path / scan.format(1)}"
    assert caplog.messages == [f"{tmp_path}: {message}"]
    assert ("barren_scan", str(tmp_path), message) in dataset.find_problems()
    (tmp_path / labels.format(0)).unlink()
    message = f"2 scans have no label map and are left out, such as {tmp_path / scan.format(0)}"
    assert ("barren_scan", str(tmp_path), message) in release(str(tmp_path), **FEW).find_problems()
    (tmp_path / labels.format(2)).unlink()
    with pytest.raises(DatasetError, match=r"there is no .*; unpack"):
        len(release(str(tmp_path), **FEW))


def test_ct_and_mr_of_one_number_are_two_scans(tmp_path):
    """Both releases of TotalSegmentator begin at s0000."""
    for name in ("ct", "mri"):
        releases.write_totalsegmentator(tmp_path / name, ("train",))
    (tmp_path / "mri" / "s0000" / "ct.nii.gz").rename(tmp_path / "mri" / "s0000" / "mri.nii.gz")
    dataset = TotalSegmentatorDataset(str(tmp_path), questions=QuestionSettings(min_voxels=20, absent_share=0.2))
    cases = [dataset[index] for index in range(len(dataset))]
    assert {case.volume.modality for case in cases} == {"CT", "MR"}
    assert len({case.case_id for case in cases}) == len(cases)
    absent = Counter(case.volume.modality for case in cases if case.query.kind == "absent")
    assert absent == {"CT": 1, "MR": 1}
    apart = [TotalSegmentatorDataset(str(tmp_path / name), **FEW) for name in ("ct", "mri")]
    joined = JoinedDataset(apart)
    assert {joined.case_id(index).partition("-")[0] for index in range(len(joined))} == {"part0", "part1"}
    shutil.copytree(tmp_path / "ct", tmp_path / "copy")
    with pytest.raises(DatasetError, match="are both 's0000'; keep one of them there"):
        len(TotalSegmentatorDataset(str(tmp_path), **FEW))


def test_kits_classes_and_instances(kits):
    root, sides = kits
    dataset = KiTS23Dataset(root, questions=QuestionSettings(relations=True, min_voxels=20))
    for number, (voxels, labels, _) in enumerate(releases.phantoms(5, seed=5)):
        values, (first, second), (cyst,), side = releases.kits_labels(labels)
        found = by_target(dataset, f"kits-{number:05d}")
        np.testing.assert_array_equal(found["kidneys"].volume.voxels, voxels)
        for name, target in (("kidney_and_mass", "kidneys"), ("mass", "kidney lesion"), ("tumor", "kidney tumour")):
            np.testing.assert_array_equal(found[target].target, np.isin(values, CLASSES[name]))
        np.testing.assert_array_equal(found["kidney cyst"].target, values == 3)
        large, small = (first, second) if first.sum() > second.sum() else (second, first)
        np.testing.assert_array_equal(found["largest kidney tumour"].target, large)
        np.testing.assert_array_equal(found["only kidney cyst"].target, cyst)
        assert "smallest kidney tumour" not in found or np.array_equal(found["smallest kidney tumour"].target, small)
        assert found["kidney with tumour"].query.meaning == side == sides[f"case_{number:05d}"]
        assert found["kidney with cyst"].query.meaning != side
        np.testing.assert_array_equal(found["kidney with tumour"].target, found[side].target)
        assert "only kidney tumour" not in found
        assert "kidney with lesion" not in found


def test_kits_kidneys_carry_their_masses(kits):
    root, _ = kits
    labels = releases.phantoms(5, seed=5)[0][1]
    values, (tumour, second), _, side = releases.kits_labels(labels)
    found = by_target(KiTS23Dataset(root, questions=QuestionSettings(relations=True, min_voxels=20)))
    parts, _ = ndimage.label(values > 0, np.ones((3, 3, 3)))
    assert (found[side].target & second).sum() == second.sum()
    assert (found[side].target & tumour).sum() == tumour.sum()
    np.testing.assert_array_equal(found[side].target, parts == parts[tuple(np.argwhere(second)[0])])


def test_kits_counts_what_has_no_answer(kits):
    dropped = KiTS23Dataset(kits[0], questions=QuestionSettings(relations=True, min_voxels=20)).dropped
    assert dropped["with"] == dropped["without"] == dropped["with both"] == 5
    assert KiTS23Dataset(kits[0], **FEW).dropped == {}


def test_kits_without_instance_files_takes_connected_parts(kits, tmp_path):
    root = tmp_path / "kits"
    releases.write_kits23(root, count=1)
    with_files = by_target(KiTS23Dataset(str(root), questions=QuestionSettings(relations=True, min_voxels=20)))
    for path in (root / "dataset" / "case_00000" / "instances").iterdir():
        path.unlink()
    without = by_target(KiTS23Dataset(str(root), questions=QuestionSettings(relations=True, min_voxels=20)))
    np.testing.assert_array_equal(with_files["largest kidney tumour"].target, without["largest kidney tumour"].target)
    assert set(with_files) == set(without)


def test_kits_tolerances_are_those_of_the_challenge():
    assert KiTS23Dataset.surface_tolerances_mm == {
        "kidneys": 1.0331,
        "kidney lesion": 1.1329,
        "kidney tumour": 1.1498,
    }


def test_kits_with_a_published_split(kits, tmp_path):
    """With the mark that some editors put before the text."""
    split = tmp_path / "split.json"
    entries = {part: [{"image": f"0004/case_{i:05d}/image.npy"} for i in numbers] for part, numbers in PARTS.items()}
    split.write_text(json.dumps({"name": "kits", "numTrain": 3, **entries}), encoding="utf-8-sig")
    for part, numbers in (("train", [0, 2, 3]), ("test", [1, 4])):
        dataset = KiTS23Dataset(kits[0], split=part, patients=PatientSettings(split_file=str(split)), **FEW)
        assert patients(dataset) == {f"kits-{i:05d}" for i in numbers}
    split.write_text(json.dumps({"train": ["case_99999"], "test": ["case_99998"]}))
    with pytest.raises(DatasetError, match=r"train names 'case_99999', which is no case; cases are like 'case_00000'"):
        len(KiTS23Dataset(kits[0], split="test", patients=PatientSettings(split_file=str(split))))
    split.write_text("{}")
    with pytest.raises(DatasetError, match="with names of cases"):
        len(KiTS23Dataset(kits[0], split="test", patients=PatientSettings(split_file=str(split))))


PARTS = {"train": [0, 2, 3], "test": [1, 4]}


def test_decathlon_asks_for_an_organ_with_its_tumour(tmp_path):
    root = releases.write_decathlon(tmp_path)
    labels = releases.phantoms(5, 0.0, seed=6)[0][1] == LABELS["liver"]
    dataset = DecathlonDataset(str(root), **FEW)
    found = by_target(dataset)
    assert set(found) == {"liver", "liver tumour"}
    np.testing.assert_array_equal(found["liver"].target, labels)
    np.testing.assert_array_equal(found["liver tumour"].target, releases.ball(labels, radius=4.0))
    assert len(patients(dataset)) == 5
    assert found["liver"].volume.modality == "CT"


def test_a_growth_of_another_organ_stays_its_own_in_a_set_that_is_called_after_the_liver(tmp_path):
    root = releases.write_decathlon(tmp_path, 1)
    content = json.loads((root / "dataset.json").read_text())
    content["labels"]["2"] = "Kidney_Tumor"
    (root / "dataset.json").write_text(json.dumps(content))
    whole = releases.phantoms(1, 0.0, seed=6)[0][1] == LABELS["liver"]
    growth = releases.ball(whole, radius=4.0)
    found = by_target(DecathlonDataset(str(root), **FEW))
    assert set(found) == {"liver", "kidney tumour"}
    np.testing.assert_array_equal(found["liver"].target, whole & ~growth)
    np.testing.assert_array_equal(found["kidney tumour"].target, growth)


@pytest.mark.parametrize("start", ["./", "../Task03_Liver/", "{folder}/"])
def test_a_decathlon_list_may_write_its_paths_in_any_way(start, tmp_path):
    """Tools that copy the layout write whole paths; a table may hold these too."""
    folder = releases.write_decathlon(tmp_path / "Task03_Liver", 1)
    former = cases_of(DecathlonDataset(str(folder), **FEW))
    content = json.loads((folder / "dataset.json").read_text())
    for entry in content["training"]:
        for key, path in entry.items():
            entry[key] = start.format(folder=folder) + path.removeprefix("./")
    (folder / "dataset.json").write_text(json.dumps(content))
    assert cases_of(DecathlonDataset(str(folder), **FEW)) == former


def test_scans_of_a_decathlon_list_that_share_a_file_name_are_told_apart(tmp_path):
    root = releases.write_decathlon(tmp_path, 3)
    content = json.loads((root / "dataset.json").read_text())
    for number, entry in enumerate(content["training"][:2]):
        for key, path in entry.items():
            (root / f"p{number}").mkdir(exist_ok=True)
            entry[key] = f"p{number}/{key}.nii.gz"
            (root / path).rename(root / entry[key])
    (root / "dataset.json").write_text(json.dumps(content))
    assert patients(DecathlonDataset(str(root), **FEW)) == {"liver-p0-image", "liver-p1-image", "liver-liver_2"}


def cases_of(dataset):
    return [(dataset.case_id(index), dataset.patient_id(index)) for index in range(len(dataset))]


def test_totalsegmentator_splits_and_absent_masks(tmp_path):
    root = releases.write_totalsegmentator(tmp_path)
    parts = {s: patients(TotalSegmentatorDataset(str(root), split=s, **FEW)) for s in ("train", "val", "test")}
    assert [len(parts[s]) for s in ("train", "val", "test")] == [3, 1, 1]
    assert parts["val"] == {"totalsegmentator-s0003"}
    found = by_target(TotalSegmentatorDataset(str(root), questions=QuestionSettings(absent_share=0.5, min_voxels=20)))
    assert set(found) == {"liver", "spleen", "left kidney", "right kidney", "brain"}
    assert found["brain"].query.kind == "absent"
    assert not found["brain"].target.any()
    labels = releases.phantoms(5, 0.0, seed=7)[0][1]
    np.testing.assert_array_equal(found["left kidney"].target, labels == LABELS["left kidney"])


def test_scans_behind_links_are_found_and_those_without_masks_are_named(tmp_path, caplog):
    root = releases.write_totalsegmentator(tmp_path / "here", ("train", "train", "train"))
    (tmp_path / "far").mkdir()
    (root / "s0001").rename(tmp_path / "far" / "s0001")
    (root / "s0001").symlink_to(tmp_path / "far" / "s0001")
    shutil.rmtree(root / "s0002" / "segmentations")
    dataset = TotalSegmentatorDataset(str(root), **FEW)
    assert patients(dataset) == {"totalsegmentator-s0000", "totalsegmentator-s0001"}
    message = f"1 scan has no label map and is left out: {root / 's0002' / 'ct.nii.gz'}"
    assert caplog.messages == [f"{root}: {message}"]
    assert ("barren_scan", str(root), message) in dataset.find_problems()


def test_swapped_sides_are_refused(tmp_path):
    root = releases.write_totalsegmentator(tmp_path, ("train",))
    folder = root / "s0000" / "segmentations"
    (folder / "kidney_left.nii.gz").rename(folder / "x.nii.gz")
    (folder / "kidney_right.nii.gz").rename(folder / "kidney_left.nii.gz")
    (folder / "x.nii.gz").rename(folder / "kidney_right.nii.gz")
    with pytest.raises(DatasetError, match=r"kidney_left\.nii\.gz: left kidney: .*names are swapped"):
        len(TotalSegmentatorDataset(str(root), **FEW))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
def test_absent_queries_make_up_their_share(ctorg, share):
    cases = [
        case
        for patient in sorted(patients(CTORGDataset(ctorg, **FEW)))
        for case in by_target(
            CTORGDataset(ctorg, questions=QuestionSettings(absent_share=share, min_voxels=20)), patient
        ).values()
    ]
    absent = [case for case in cases if case.query.kind == "absent"]
    assert {case.query.target for case in absent} <= {"lungs", "brain"}
    assert not any(case.target.any() for case in absent)
    shown = len(cases) - len(absent)
    # Two structures are never drawn, so that a scan can be asked for two absent targets at most.
    assert abs(len(absent) - min(shown * share / (1 - share), 10)) <= 5 * (share > 0)
    assert bool(absent) == (share > 0)


def test_named_targets_and_patients(ctorg):
    dataset = CTORGDataset(
        ctorg,
        patients=PatientSettings(only=["ctorg-001"]),
        questions=QuestionSettings(targets=["liver", "left kidney"], relations=True, min_voxels=20),
    )
    assert {dataset[i].query.target for i in range(len(dataset))} == {"liver", "left kidney"}
    assert patients(dataset) == {"ctorg-001"}
    with pytest.raises(DatasetError, match="targets: 'spleen' is not in the data"):
        len(CTORGDataset(ctorg, questions=QuestionSettings(targets=["spleen"], min_voxels=20)))
    with pytest.raises(DatasetError, match="patients: 'ctorg-7' is not in the data"):
        len(CTORGDataset(ctorg, patients=PatientSettings(exclude=["ctorg-7"]), **FEW))


@pytest.fixture
def rested(monkeypatch):
    """The clock is a minute ahead of the files, so that they count as settled."""
    now = time.time_ns
    monkeypatch.setattr(settled_files.time, "time_ns", lambda: now() + 60 * 10**9)


@pytest.mark.parametrize("settled", [True, False])
def test_an_index_sees_a_label_map_of_the_same_size_and_time(tmp_path, request, settled):
    if settled:
        request.getfixturevalue("rested")
    root, index = releases.write_ctorg(tmp_path / "ctorg", (0,)), str(tmp_path / "index")
    (root / "labels-0.nii.gz").unlink()
    volume, shown = nib.load(root / "volume-0.nii.gz"), []
    for value in (1, 2):  # the liver, which the corrected release calls the urinary bladder
        labels = np.zeros(volume.shape, np.uint8)
        labels[4:20, 4:20, 4:10] = value
        (root / "labels-0.nii").write_bytes(nib.Nifti1Image(labels, volume.affine).to_bytes())
        os.utime(root / "labels-0.nii", (0, 0))
        shown.append(set(by_target(CTORGDataset(str(root), index=index))))
    assert shown == [{"liver"}, {"urinary bladder"}]


def test_an_index_that_cannot_be_written_costs_time_only(tmp_path, rested, caplog):
    """A file lies where its folder should be."""
    root, index = releases.write_ctorg(tmp_path / "ctorg", (0, 21)), tmp_path / "index"
    index.write_text("")
    dataset = CTORGDataset(str(root), index=str(index), **FEW)
    assert len(dataset) == len(CTORGDataset(str(root), **FEW))
    told = [record.message for record in caplog.records if "index" in record.message]
    assert told == [f"index {index} cannot be written (File exists); label maps are read at each start"]


def test_an_index_holds_in_another_working_folder(tmp_path, monkeypatch, rested):
    import medvol.imaging.reading as reading

    root, index = releases.write_totalsegmentator(tmp_path / "data", ("train",)), str(tmp_path / "index")
    releases.write_ctorg(tmp_path / "data", (0,))
    monkeypatch.chdir(tmp_path)
    before = [len(release("data", index=index, **FEW)) for release in (TotalSegmentatorDataset, CTORGDataset)]
    monkeypatch.chdir(root / "s0000")
    for release, count in zip((TotalSegmentatorDataset, CTORGDataset), before, strict=True):
        dataset = release("..", index=index, **FEW)
        with monkeypatch.context() as patch:
            patch.setattr(reading, "read_label_map", None)
            assert len(dataset) == count
        assert all(case.target.any() for case in map(dataset.__getitem__, range(count)))


def test_an_index_remembers_what_label_maps_hold(tmp_path, monkeypatch, rested):
    import medvol.imaging.reading as reading

    root, index = releases.write_ctorg(tmp_path / "ctorg", (0, 21)), tmp_path / "index"
    settings = {"index": str(index), "questions": QuestionSettings(relations=True, min_voxels=20)}
    first = CTORGDataset(str(root), **settings)
    asked = [(first[i].case_id, first[i].query) for i in range(len(first))]
    assert len(list(index.iterdir())) == 2
    read = []
    real = reading.read_label_map
    monkeypatch.setattr(reading, "read_label_map", lambda path, **options: read.append(path) or real(path, **options))
    again = CTORGDataset(str(root), **settings)
    assert [(again[i].case_id, again[i].query) for i in range(len(again))] == asked
    assert again.dropped == first.dropped
    looked_at = len(read)
    image = nib.load(root / "labels-0.nii.gz")
    nib.save(
        nib.Nifti1Image(np.where(np.asarray(image.dataobj) == 1, 0, np.asarray(image.dataobj)), image.affine),
        root / "labels-0.nii.gz",
    )
    changed = CTORGDataset(str(root), **settings)
    len(changed)
    assert len(read) == looked_at + 1
    assert "liver" not in by_target(changed, "ctorg-000")
    for entry in index.iterdir():
        entry.write_text("{")
    assert len(CTORGDataset(str(root), **settings)) == len(changed)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CTORGDataset", r"there is no volume-N\.nii\.gz in it"),
        ("AbdomenCT1KDataset", r"there is no Case_00001_0000\.nii\.gz in it"),
        ("KiTS23Dataset", "there is no case_00000"),
        ("M3DSegDataset", r"there is no 0003/0003\.json in it"),
        ("DecathlonDataset", r"dataset\.json: it cannot be read"),
        ("TotalSegmentatorDataset", "there is no s0000/segmentations in it"),
    ],
)
def test_an_empty_folder_is_told_what_is_looked_for(name, message, tmp_path):
    with pytest.raises(DatasetError, match=message):
        len(DATASETS.get(name)(str(tmp_path)))
    with pytest.raises(DatasetError, match="there is no such folder"):
        len(DATASETS.get(name)(str(tmp_path / "gone")))


def test_missing_halves_are_named(tmp_path):
    ctorg = releases.write_ctorg(tmp_path / "a", (0,))
    (ctorg / "labels-0.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"there is no labels-N\.nii\.gz in it; unpack the labels too"):
        len(CTORGDataset(str(ctorg)))
    releases.write_kits23(tmp_path / "k", 1)
    (tmp_path / "k" / "dataset" / "case_00000" / "imaging.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"there is no imaging\.nii\.gz in it"):
        len(KiTS23Dataset(str(tmp_path / "k")))
    total = releases.write_totalsegmentator(tmp_path / "t", ("train",))
    (total / "s0000" / "ct.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"neither ct\.nii\.gz nor mri\.nii\.gz"):
        len(TotalSegmentatorDataset(str(total)))


BAD_DECATHLON = {
    "list": ("[]", "expected an object with 'labels'"),
    "no labels": ('{"training": []}', "labels: expected names by label, such as"),
    "label of letters": ('{"training": [], "labels": {"x": "liver"}}', "'x' is no label; write a whole number"),
    "label without a name": (
        '{"training": [], "labels": {"1": ""}}',
        'labels: expected names by label, such as {"1": "spleen"}; the label 1 is called \'\'; write a name',
    ),
    "label twice": (
        '{"training": [], "labels": {"1": "spleen", "01": "liver"}}',
        "the label 1 has two names; keep one",
    ),
    "name twice": (
        '{"training": [], "labels": {"1": "liver", "2": "Liver"}}',
        "the labels 1 and 2 are all called 'liver'; give each a name of its own",
    ),
    "two words for one growth": (
        '{"name": "Liver", "training": [], "labels": {"0": "", "1": "tumour", "2": "cancer"}}',
        "the labels 1 and 2 are all called 'liver tumour'; give each a name of its own",
    ),
    "entry": ('{"training": [7], "labels": {"1": "liver"}}', "an entry of 'training' is 7"),
    "no name": (
        json.dumps({"training": [{"image": "a" * 5000, "label": "b.nii"}], "labels": {"1": "liver"}}),
        "'aaa.* is not there",
    ),
    "absent file": ('{"training": [{"image": "a.nii", "label": "b.nii"}], "labels": {"1": "liver"}}', "is not there"),
    "not json": ("{", "not JSON"),
}


@pytest.mark.parametrize("name", BAD_DECATHLON)
def test_a_bad_list_of_scans_is_named(name, tmp_path):
    text, message = BAD_DECATHLON[name]
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        len(DecathlonDataset(str(tmp_path)))


def test_a_meta_table_without_its_columns_is_named(tmp_path):
    root = releases.write_totalsegmentator(tmp_path, ("train",))
    (root / "meta.csv").write_text("image_id,age\ns0000,60\n")
    with pytest.raises(DatasetError, match="expected the columns image_id and split"):
        len(TotalSegmentatorDataset(str(root)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image_id;split;institute\ns0000;train;Universität\n".encode("latin-1"),
            r"not UTF-8 text \(byte 0xe4 in line 2",
        ),
        (b'image_id;split\ns0000;"train\n', "a quote is opened and not closed"),
        (b"image_id;split\ns0000\n", "not as many cells as the header has"),
    ],
)
def test_a_damaged_meta_table_is_named(tmp_path, content, message):
    root = releases.write_totalsegmentator(tmp_path, ("train",))
    (root / "meta.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"meta\.csv: .*{message}"):
        len(TotalSegmentatorDataset(str(root)))


def test_shares_are_checked():
    for settings in ({"val_share": 0.7, "test_share": 0.5}, {"val_share": -0.1}):
        with pytest.raises(ConfigError, match="shares that sum to at most 1"):
            PatientSettings(**settings)
    with pytest.raises(ConfigError, match=r"absent_share is 1\.0; it must be 0 or more and below 1"):
        CTORGDataset(".", questions=QuestionSettings(absent_share=1.0))


def test_ambiguous_questions_are_told_when_a_run_starts(kits, caplog):
    """A tumour in one kidney and a cyst in the other: both bear a lesion, none bears both."""
    parts = {
        part: KiTS23Dataset(
            kits[0],
            split=part,
            patients=PatientSettings(val_share=0.2),
            questions=QuestionSettings(relations=True, min_voxels=20),
        )
        for part in ("train", "val", "test")
    }
    CaseDataModule(**parts).setup("fit")
    told = [text for text in caplog.messages if "without a single answer, not asked: " in text]
    assert [text.split(":")[0] for text in told] == ["train", "val"]
    assert "with 3, with both 3, without 3" in ", ".join(sorted(told[0].split(": ")[-1].split(", ")))
    caplog.clear()
    CaseDataModule(**parts).setup("test")
    assert [text.split(":")[0] for text in caplog.messages] == ["test"]


def test_data_sets_travel(kits):
    dataset = KiTS23Dataset(kits[0], questions=QuestionSettings(relations=True, min_voxels=20))
    case = dataset[3]
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[3].target, case.target)


def test_a_long_look_is_announced(tmp_path, caplog, monkeypatch):
    root = releases.write_ctorg(tmp_path, (0, 21))
    monkeypatch.setattr("medvol.datasets.release._MANY", 2)
    len(CTORGDataset(str(root), index=str(tmp_path / "index"), **FEW))
    assert not caplog.messages
    len(CTORGDataset(str(root), **FEW))
    assert caplog.messages == [f"{root}: looking through 2 label maps; set index to do that once"]


def kits_by_hand(image):
    """What a mask of KiTS19 answers, worked out with scipy and nibabel alone: relation and the voxels it means."""
    values = np.asarray(image.dataobj)
    parts, _ = ndimage.label(values > 0, np.ones((3, 3, 3)))
    pair = np.argsort(-np.bincount(parts.ravel())[1:])[:2] + 1
    kidneys = [parts == part for part in pair]
    world = [nib.affines.apply_affine(image.affine, np.argwhere(kidney)) for kidney in kidneys]
    # RAS: the patient's left has the smaller x, the head the larger z.
    left = int(np.argmin([points[:, 0].mean() for points in world]))
    sizes, heights = [len(points) for points in world], [points[:, 2].mean() for points in world]
    bearing = [bool((kidney & (values == 2)).any()) for kidney in kidneys]
    found = {"left kidney": left, "right kidney": 1 - left}
    if sum(bearing) == 1:
        bearer = bearing.index(True)
        found |= {f"kidney with {name}": bearer for name in ("tumour", "lesion")}
        found |= {f"kidney without {name}": 1 - bearer for name in ("tumour", "lesion")}
    axis = int(np.argmax(np.abs(image.affine[2, :3])))
    ends = [np.take(kidney, [0, -1], axis=axis).any() for kidney in kidneys]
    if not any(ends) and max(sizes) >= 1.15 * min(sizes):
        found |= {"larger kidney": int(np.argmax(sizes)), "smaller kidney": int(np.argmin(sizes))}
    if not any(ends) and np.ptp(heights) >= 5:
        found |= {"higher kidney": int(np.argmax(heights)), "lower kidney": int(np.argmin(heights))}
    answers = {target: world[index] for target, index in found.items()}
    tumours, _ = ndimage.label(values == 2, np.ones((3, 3, 3)))
    large = [part for part, count in enumerate(np.bincount(tumours.ravel())) if part and count >= 10]
    if len(large) == 1:
        answers["only kidney tumour"] = nib.affines.apply_affine(image.affine, np.argwhere(tumours == large[0]))
    return answers


def write_kits19(image, folder):
    """A mask in the layout of KiTS23; it stands in for its own scan, which is not at hand."""
    folder.mkdir(parents=True)
    for name in ("segmentation", "imaging"):
        nib.save(image, folder / f"{name}.nii.gz")


def as_set(points):
    """World positions, rounded to a hundredth of a millimetre, in one order."""
    rounded = np.rint(points * 100).astype(np.int64)
    return rounded[np.lexsort(rounded.T)]


def stored_as(image, axes):
    """The same mask with its axes in another order and direction."""
    wanted = nib.orientations.axcodes2ornt(axes)
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))


SIDES = ["left kidney", "right kidney"]


@pytest.mark.real
@pytest.mark.parametrize("axes", ["IPL", "ARS"], ids=["as released", "turned and mirrored"])
def test_relations_of_real_kidneys(shared_data, tmp_path, axes):
    """Every relation of ten real patients, voxel by voxel in the world, whichever way the file is stored."""
    by_hand = {}
    for path in sorted((shared_data / "kits19_masks").glob("*.nii.gz")):
        image = stored_as(nib.load(path).slicer[:, ::6, ::6], axes)
        write_kits19(image, tmp_path / path.name.split(".")[0])
        by_hand[f"kits-{path.name[5:10]}"] = kits_by_hand(image)
    dataset = KiTS23Dataset(str(tmp_path), questions=QuestionSettings(relations=True, min_voxels=20))
    found = {patient: {} for patient in by_hand}
    for index in range(len(dataset)):
        case = dataset[index]
        found[case.patient_id][case.query.target] = case
    counted = Counter()
    for patient, answers in by_hand.items():
        plain = {"kidneys", "kidney lesion", "kidney tumour"}
        assert set(found[patient]) == set(answers) | plain, patient
        for target, points in answers.items():
            case = found[patient][target]
            places = nib.affines.apply_affine(case.volume.affine, np.argwhere(case.target)[:, ::-1])
            assert np.array_equal(as_set(places), as_set(points)), (patient, target)
        counted.update(form for form in ("larger", "higher") if f"{form} kidney" not in answers)
        bearer = found[patient]["kidney with tumour"]
        sides = [side for side in SIDES if np.array_equal(found[patient][side].target, bearer.target)]
        assert sides == [bearer.query.meaning]
    assert dataset.dropped["larger"] == dataset.dropped["smaller"] == counted["larger"]
    assert dataset.dropped["higher"] == dataset.dropped["lower"] == counted["higher"]
    assert {dataset.dropped.get(form, 0) for form in ("side", "with", "without", "largest")} == {0}
    right = [p for p in found if found[p]["kidney with tumour"].query.meaning == "right kidney"]
    assert right == ["kits-00003", "kits-00160"]


@pytest.mark.real
def test_a_mirrored_affine_names_the_other_side(shared_data, tmp_path):
    path = shared_data / "kits19_masks" / "case_00064.nii.gz"
    image = nib.load(path).slicer[:, ::4, ::4]
    mirrored = nib.Nifti1Image(np.asarray(image.dataobj), np.diag([-1.0, 1, 1, 1]) @ image.affine)
    meanings = {}
    for name, one in {"case_00000": image, "case_00001": mirrored}.items():
        write_kits19(one, tmp_path / name)
        found = by_target(
            KiTS23Dataset(str(tmp_path), questions=QuestionSettings(relations=True, min_voxels=20)), f"kits-{name[5:]}"
        )
        meanings[name] = found["kidney with tumour"].query.meaning
    assert meanings == {"case_00000": "left kidney", "case_00001": "right kidney"}
