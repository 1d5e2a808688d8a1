"""M3D-Seg: arrays and sparse masks; what is lost is said, and nothing in a file is executed."""

import io
import json
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import releases
from scipy import sparse

from medvol.core.errors import ConfigError, DatasetError
from medvol.datasets.kits23 import KiTS23Dataset
from medvol.datasets.m3dseg import M3DSegDataset
from medvol.datasets.m3dseg_arrays import mask_shape, read_masks
from medvol.datasets.settings import PatientSettings, QuestionSettings


@pytest.fixture
def root(tmp_path):
    return releases.write_m3dseg(tmp_path)


def cases(dataset):
    return {(case.patient_id, case.query.target): case for case in map(dataset.__getitem__, range(len(dataset)))}


def only_file(root, pattern):
    (path,) = (root / "0004" / "case_00000").glob(pattern)
    return path


@pytest.mark.parametrize("spaces", [True, False])
def test_masks_lie_where_they_were_drawn(tmp_path, spaces):
    root = releases.write_m3dseg(tmp_path, spaces=spaces)
    found = cases(M3DSegDataset(str(root), "0004", questions=QuestionSettings(min_voxels=20)))
    for number, (voxels, labels, _) in enumerate(releases.phantoms(5, seed=5)):
        values, *_ = releases.kits_labels(labels)
        for value, target in enumerate(("kidneys", "kidney tumour", "kidney cyst"), start=1):
            case = found[f"kits-{number:05d}", target]
            np.testing.assert_array_equal(case.target, values == value)
        order = np.argsort(voxels[8].ravel(), kind="stable")
        assert (np.diff(case.volume.voxels[8].ravel()[order]) >= 0).all()
        assert case.volume.modality == "other"
        assert case.volume.spacing == (1.0, 1.0, 1.0)


def test_axes_are_taken_as_they_are_said_to_point(root):
    as_lps, as_ras = (
        cases(M3DSegDataset(str(root), "0004", o, questions=QuestionSettings(min_voxels=20))) for o in ("LPS", "RAS")
    )
    key = ("kits-00000", "kidney tumour")
    np.testing.assert_array_equal(as_ras[key].target, as_lps[key].target[:, ::-1, ::-1])
    np.testing.assert_array_equal(as_ras[key].volume.voxels, as_lps[key].volume.voxels[:, ::-1, ::-1])


def test_voxels_in_another_order_are_another_volume(root):
    first, again, turned = (M3DSegDataset(str(root), "0004", o) for o in ("LPS", "LPS", "RAS"))
    assert first[0].volume.volume_id == again[0].volume.volume_id != turned[0].volume.volume_id
    assert first.volume_key(0) == again.volume_key(0) != turned.volume_key(0)
    image = only_file(root, "image.npy")
    np.save(image, np.load(image) + 1)
    assert M3DSegDataset(str(root), "0004")[0].volume.volume_id != first[0].volume.volume_id


def test_what_is_lost_is_said_once(root, caplog):
    dataset = M3DSegDataset(str(root), "0004", questions=QuestionSettings(min_voxels=20))
    assert len(dataset) == len(list(dataset))
    (message,) = [text for text in caplog.messages if "M3D-Seg" in text]
    assert "lost Hounsfield units, spacing and orientation" in message
    assert "read the original release" in message


def test_splits_and_patients_are_those_of_the_release(root, tmp_path):
    train, test = (
        M3DSegDataset(str(root / "0004"), "0004", split=s, questions=QuestionSettings(min_voxels=20))
        for s in ("train", "test")
    )
    assert {p for p, _ in cases(train)} == {"kits-00000", "kits-00001", "kits-00002"}
    assert {p for p, _ in cases(test)} == {"kits-00003", "kits-00004"}
    releases.write_kits23(tmp_path / "kits", 1)
    original = KiTS23Dataset(str(tmp_path / "kits"), questions=QuestionSettings(min_voxels=20))
    assert original.patient_id(0) == train.patient_id(0)


def test_an_empty_mask_is_an_absent_target(root):
    path = only_file(root, "mask_*.npz")
    masks = read_masks(path).tolil()
    masks[2] = 0
    sparse.save_npz(path, masks.tocsr())
    found = cases(
        M3DSegDataset(
            str(root),
            "0004",
            patients=PatientSettings(only=["kits-00000"]),
            questions=QuestionSettings(min_voxels=20, absent_share=0.4),
        )
    )
    assert {target for _, target in found} == {"kidneys", "kidney tumour", "kidney cyst"}
    assert found["kits-00000", "kidney cyst"].query.kind == "absent"


@pytest.mark.parametrize(
    "name", ["mask_(3, 512, 512, 69).npz", "mask_(3,512,512,69).npz", "mask_( 3, 512,512, 69 ).npz"]
)
def test_a_shape_is_read_from_the_name(name, tmp_path):
    assert mask_shape(tmp_path / name) == (3, 512, 512, 69)


@pytest.mark.parametrize(
    "name", ["mask.npz", "mask_(3, 512, 512).npz", "mask_(0, 1, 1, 1).npz", "mask_(a, 1, 1, 1).npz"]
)
def test_a_name_without_a_shape_is_refused(name, tmp_path):
    with pytest.raises(DatasetError, match="its name says no shape"):
        mask_shape(tmp_path / name)


class Canary:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def test_pickled_files_are_refused_and_not_executed(root):
    image, masks = only_file(root, "image.npy"), only_file(root, "mask_*.npz")
    np.save(image, np.array([Canary()], object), allow_pickle=True)
    with pytest.raises(DatasetError, match=r"image\.npy: it is no array"):
        M3DSegDataset(str(root), "0004", questions=QuestionSettings(min_voxels=20))[0]
    np.savez(masks, data=np.array([Canary()], object), allow_pickle=True)
    with pytest.raises(DatasetError, match="it is no sparse matrix"):
        read_masks(masks)
    masks.write_bytes(pickle.dumps(Canary()))
    with pytest.raises(DatasetError, match="it is no sparse matrix"):
        read_masks(masks)


def spoil(matrix, change):
    matrix = matrix.copy()
    change(matrix)
    return matrix


BAD_MASKS = {
    "another shape": (lambda m: m[:2], "its name says"),
    "another format": (lambda m: m.tocsc(), "holds a csc matrix"),
    "index past the end": (lambda m: spoil(m, lambda n: n.indices.__setitem__(0, m.shape[1] + 5)), "no sparse matrix"),
    "negative index": (lambda m: spoil(m, lambda n: n.indices.__setitem__(0, -7)), "no sparse matrix"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_bad_masks_are_named(root, name):
    change, message = BAD_MASKS[name]
    path = only_file(root, "mask_*.npz")
    sparse.save_npz(path, change(sparse.load_npz(path)))
    with pytest.raises(DatasetError, match=message):
        len(M3DSegDataset(str(root), "0004"))


@pytest.mark.parametrize("count", [10**9, 10**14, -5])
def test_an_array_that_declares_what_it_does_not_hold_costs_no_memory(root, count):
    path = only_file(root, "mask_*.npz")
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i4", "fortran_order": False, "shape": (count,)})
    content["indices.npy"] = header.getvalue() + bytes(80)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    tracemalloc.start()
    with pytest.raises(DatasetError, match=rf"indices\.npy declares {4 * count:,} bytes of values and holds 80"):
        read_masks(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10**8


def test_bad_images_are_named(root):
    path = only_file(root, "image.npy")
    for array, message in (
        (np.zeros((4, 5, 6)), "expected numbers of shape"),
        (np.zeros((1, 4, 5, 6), "U1"), "expected numbers"),
        (np.full((1, 64, 64, 16), np.nan, np.float32), "NaN or infinite"),
    ):
        np.save(path, array)
        with pytest.raises(DatasetError, match=message):
            M3DSegDataset(str(root), "0004", questions=QuestionSettings(min_voxels=20))[0]
    np.save(path, np.zeros((1, 64, 64, 15), np.float32))
    with pytest.raises(DatasetError, match="masks of shape"):
        M3DSegDataset(str(root), "0004", questions=QuestionSettings(min_voxels=20))[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match="it is no array"):
        M3DSegDataset(str(root), "0004", questions=QuestionSettings(min_voxels=20))[0]


def test_labels_and_masks_must_agree_in_number(root):
    path = root / "0004" / "0004.json"
    content = json.loads(path.read_text())
    del content["labels"]["3"]
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"3 masks for the 2 labels of 0004\.json"):
        len(M3DSegDataset(str(root), "0004"))


@pytest.mark.parametrize("numbers", [("2", "3", "4"), ("1", "2", "4")])
def test_labels_that_do_not_number_the_masks_are_refused(root, numbers):
    """With 2, 3 and 4 for three masks, the kidney would get the tumour's mask."""
    path = root / "0004" / "0004.json"
    content = json.loads(path.read_text())
    content["labels"] = {"0": "background", **dict(zip(numbers, ("kidney", "tumor", "cyst"), strict=True))}
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="number the labels as the masks lie in their files"):
        len(M3DSegDataset(str(root), "0004"))


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"1": "tumor", "2": "tumour", "3": "kidney"}, "the labels 1 and 2 are all called 'tumour'"),
        ({"1": "kidney", "2": "tumor", "3": "Kidney_Tumor"}, "the labels 2 and 3 are all called 'kidney tumour'"),
        ({"1": "kidney", "2": "tumor", "02": "cyst"}, "the label 2 has two names; keep one"),
        ({"0": None, "1": "kidney", "2": "", "3": "cyst"}, "the label 2 is called ''; write a name"),
    ],
)
def test_two_names_of_a_label_and_two_labels_of_a_name_are_refused(root, labels, sentence):
    path = root / "0004" / "0004.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": labels}))
    with pytest.raises(DatasetError, match=f"0004.json: labels: expected names by label.*{sentence}"):
        len(M3DSegDataset(str(root), "0004"))


def test_missing_files_are_named(root):
    only_file(root, "image.npy").unlink()
    with pytest.raises(DatasetError, match=r"case_00000: expected image\.npy and one mask"):
        len(M3DSegDataset(str(root), "0004"))


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="four digits"):
        M3DSegDataset(".", "4")
    for orientation in ("LPX", "LRS", "LP"):
        with pytest.raises(ConfigError, match="three letters"):
            M3DSegDataset(".", orientation=orientation)
