"""Labels on their scan's grid, the guess of a modality, the identity of a volume, and real scans."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from medvol.core.errors import ConfigError, DatasetError, GeometryError
from medvol.imaging import reading
from medvol.imaging.file_names import is_scan
from medvol.imaging.formats.problems import NoOrientationError, TooLargeError, UnknownDatatypeError
from medvol.imaging.geometry import axis_codes
from medvol.imaging.hounsfield import guess_modality
from medvol.imaging.reading import read_labels, read_mask, read_volume

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
SHAPE = (8, 7, 6)


def save(path, voxels, affine=AFFINE):
    image = nib.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    nib.save(image, path)
    return path


@pytest.fixture
def scan(tmp_path):
    return read_volume(save(tmp_path / "scan.nii", np.full(SHAPE, -500, np.int16)))


def label_map(dtype=np.uint8):
    labels = np.zeros(SHAPE, dtype)
    labels[1, 2, 3], labels[4, 5, 0], labels[6, 6, 5] = 1, 2, 7
    return labels


def test_labels_are_in_the_volumes_axes(scan, tmp_path):
    labels = read_labels(save(tmp_path / "labels.nii", label_map()), scan)
    assert labels.dtype == np.int32
    assert labels.shape == (6, 7, 8)
    np.testing.assert_array_equal(labels, label_map().transpose(2, 1, 0))


def test_labels_stored_in_other_axes_are_the_same_labels(scan, tmp_path):
    turned = nib.Nifti1Image(label_map(), AFFINE).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nib.save(turned, tmp_path / "turned.nii.gz")
    assert axis_codes(nib.load(tmp_path / "turned.nii.gz").affine) != "LPS"
    np.testing.assert_array_equal(read_labels(tmp_path / "turned.nii.gz", scan), label_map().transpose(2, 1, 0))


def test_a_mask_of_some_labels(scan, tmp_path):
    path = save(tmp_path / "labels.nii", label_map())
    assert read_mask(path, scan).sum() == 3
    assert np.argwhere(read_mask(path, scan, [2])).tolist() == [[0, 5, 4]]
    assert read_mask(path, scan, [1, 7]).sum() == 2
    assert read_mask(path, scan, [5]).sum() == 0
    assert read_mask(path, scan, []).sum() == 0
    for labels in ([0], [1, -2]):
        with pytest.raises(DatasetError, match="positive"):
            read_mask(path, scan, labels)


def test_negative_labels_belong_to_no_mask(scan, tmp_path):
    labels = label_map(np.int16)
    labels[0, 0, 0] = -1
    path = save(tmp_path / "labels.nii", labels)
    assert read_labels(path, scan).min() == -1
    assert read_mask(path, scan).sum() == 3


def test_labels_saved_as_floats(scan, tmp_path):
    path = save(tmp_path / "labels.nii", label_map(np.float32))
    np.testing.assert_array_equal(read_labels(path, scan), label_map().transpose(2, 1, 0))


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -np.inf, 3e9])
def test_values_that_are_no_labels(scan, tmp_path, value):
    labels = label_map(np.float64)
    labels[0, 0, 0] = value
    with pytest.raises(UnknownDatatypeError, match="whole numbers"):
        read_labels(save(tmp_path / "labels.nii", labels), scan)


@pytest.mark.parametrize(
    ("kind", "value"), [("int64", -(2**63)), ("int64", 2**31), ("uint32", 2**32 - 1), ("uint64", 2**63)]
)
def test_labels_beyond_32_bits_never_wrap_around(scan, tmp_path, kind, value):
    labels = label_map(kind)
    labels[0, 0, 0] = value
    with pytest.raises(UnknownDatatypeError, match="whole numbers of 32 bits"):
        read_labels(save(tmp_path / "labels.nii", labels), scan)


@pytest.mark.parametrize(
    ("change", "apart"),
    [((0, 3, 5.0), "5 mm"), ((2, 2, 2.5), "2.5 mm"), ((1, 3, -0.2), "0.2 mm")],
    ids=["shifted", "thicker slices", "shifted a little"],
)
def test_labels_on_another_grid_say_how_far(scan, tmp_path, change, apart):
    row, column, value = change
    affine = AFFINE.copy()
    affine[row, column] = value
    path = save(tmp_path / "labels.nii", label_map(), affine)
    with pytest.raises(GeometryError) as caught:
        read_labels(path, scan)
    assert str(path) in str(caught.value)
    assert f"up to {apart} beside" in str(caught.value)


def test_float_noise_between_grids_is_no_other_grid(scan, tmp_path):
    affine = AFFINE.copy()
    affine[:3, 3] += 0.004
    assert read_mask(save(tmp_path / "labels.nii", label_map(), affine), scan).sum() == 3


def test_labels_of_another_shape(scan, tmp_path):
    with pytest.raises(GeometryError, match=r"\(6, 7, 7\).*\(6, 7, 8\)"):
        read_labels(save(tmp_path / "labels.nii", label_map()[1:]), scan)


def test_labels_have_a_budget(scan, tmp_path):
    with pytest.raises(TooLargeError):
        read_labels(save(tmp_path / "labels.nii", label_map()), scan, max_bytes=100)


def test_a_mask_of_a_scan_over_the_usual_budget_is_read(scan, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 100)
    path = save(tmp_path / "labels.nii", label_map())
    assert read_mask(path, scan).sum() == 3  # 336 voxels are 2,688 bytes at most
    with pytest.raises(TooLargeError, match="32,000 bytes; the budget is 2,688"):
        read_mask(save(tmp_path / "large.nii", np.zeros((20, 20, 20), np.uint8)), scan)


def test_modality():
    rng = np.random.default_rng(0)
    tissue = rng.normal(40, 20, (10, 40, 40)).astype(np.float32)
    ct = tissue.copy()
    ct[:, :15] = rng.normal(-1000, 15, (10, 15, 40))
    padded = ct.copy()
    padded[:, :, :8] = -3024
    assert guess_modality(ct) == "CT"
    assert guess_modality(padded) == "CT"
    assert guess_modality(np.abs(ct)) == "other", "magnitude MR"
    assert guess_modality((ct - ct.mean()) / ct.std()) == "other", "normalised"
    assert guess_modality(rng.uniform(-4096, 4096, (10, 40, 40)).astype(np.float32)) == "other", "phase MR"
    assert guess_modality(ct * 0 + 5) == "other", "constant"
    assert guess_modality(np.clip(ct, 0, 255)) == "other", "windowed before"


def test_negative_values_alone_make_no_ct():
    rng = np.random.default_rng(1)
    magnitude = np.abs(rng.normal(600, 300, (10, 40, 40))).astype(np.float32)
    ringing = magnitude.copy()
    ringing[0, :3, 0] = -240
    scaled = magnitude * 20
    scaled[:, :, :2] = rng.uniform(-1100, 0, (10, 40, 2))
    for name, voxels in {
        "interpolation": ringing,
        "interpolation, large intensities": scaled,
        "field map": rng.normal(0, 120, magnitude.shape),
        "wide field map": rng.normal(0, 300, magnitude.shape),
        "phase in thousandths": rng.uniform(-1000, 1000, magnitude.shape),
        "phase in thousandths of a radian": rng.uniform(-3142, 3142, magnitude.shape),
    }.items():
        assert guess_modality(voxels.astype(np.float32)) == "other", name


def test_a_ct_with_little_air_or_much_bone():
    rng = np.random.default_rng(2)
    voxels = rng.normal(40, 30, (10, 40, 40)).astype(np.float32)
    voxels[:, :20, 0] = -900
    voxels[5:, 20:, :] = 1200
    assert guess_modality(voxels) == "other", "more bone than air: a head without its surroundings, or no CT"
    voxels[5:, 20:, :] = 60
    assert guess_modality(voxels) == "CT", "bowel gas of 1.3 %"


def test_a_given_modality_wins(tmp_path):
    path = save(tmp_path / "scan.nii", np.full(SHAPE, -900, np.int16))
    assert read_volume(path).modality == "CT"
    assert read_volume(path, modality="MR").modality == "MR"


def test_identity_depends_on_content_and_affine_only(tmp_path):
    voxels = np.arange(8 * 7 * 6, dtype=np.int16).reshape(SHAPE)
    first = read_volume(save(tmp_path / "a.nii", voxels)).volume_id
    assert first
    assert read_volume(save(tmp_path / "b.nii.gz", voxels.astype(np.float32)), modality="MR").volume_id == first
    moved = AFFINE.copy()
    moved[0, 3] = 1
    voxels_changed = voxels.copy()
    voxels_changed[0, 0, 0] = 9
    others = {
        read_volume(save(tmp_path / "c.nii", voxels, moved)).volume_id,
        read_volume(save(tmp_path / "d.nii", voxels_changed)).volume_id,
        read_volume(save(tmp_path / "e.nii", voxels.reshape(7, 8, 6))).volume_id,
    }
    assert len(others | {first}) == 4


def test_names_of_scans(tmp_path):
    taken = [name for name in ("a.nii", "A.NII.GZ", "b.nrrd", "b.nhdr", "c.mha", "c.mhd") if is_scan(tmp_path / name)]
    assert len(taken) == 6
    assert not any(is_scan(tmp_path / name) for name in (".a.nii", "a.gz", "a.raw", "nii", "a.dcm", "a.nii.bak"))


REAL = {  # folder: shape (Z, Y, X), stored orientation, modality, one label and its voxels, all from the data's README
    "totalseg_ct_abdomen": ((30, 101, 122), "RAS", "CT", None, None),
    "totalseg_ct_pulmonary_artery": ((112, 102, 122), "LPS", "CT", 1, 14261),
    "totalseg_mr_abdomen": ((20, 91, 117), "LPS", "other", None, None),
    "lidc0314_ct_nodule": ((49, 310, 430), "LPS", "CT", 1, 3399),
    "lung1_ct_nodule": ((19, 512, 512), None, "CT", 1, 837),
    "deeplesion_000002_03_01_035-047": ((13, 512, 512), None, "other", 1, 3961),
    "brain1_mr_tumour": ((25, 256, 256), "LAS", "other", 1, 4137),
}


@pytest.mark.real
@pytest.mark.parametrize("folder", REAL)
def test_real_scans(shared_data, folder):
    shape, orientation, modality, label, count = REAL[folder]
    [image] = (shared_data / folder).glob("image.n*")
    [labels] = [*(shared_data / folder).glob("label.n*"), *(shared_data / folder).glob("pulmonary_artery.nii.gz")]
    volume = read_volume(image)
    assert volume.shape == shape
    assert axis_codes(volume.affine) == "LPS"
    assert orientation is None or axis_codes(volume.source.affine) == orientation
    assert volume.modality == modality
    assert read_labels(labels, volume).any()
    assert count is None or read_mask(labels, volume, [label]).sum() == count


@pytest.mark.real
def test_the_liver_is_on_the_images_left(shared_data):
    """And so right of the patient; the spleen is on the other side, the kidneys behind."""
    folder = shared_data / "totalseg_ct_abdomen"
    volume = read_volume(folder / "image.nii.gz")
    names = json.loads((folder / "labels.json").read_text())
    value = {name: int(number) for number, name in names.items()} if "liver" in names.values() else names
    labels = read_labels(folder / "label.nii.gz", volume)
    centre = {
        name: np.argwhere(labels == value[name]).mean(axis=0)
        for name in ("liver", "spleen", "kidney_left", "kidney_right")
    }
    counts = {name: int((labels == value[name]).sum()) for name in centre}
    assert counts == {"liver": 38634, "spleen": 9452, "kidney_left": 3676, "kidney_right": 3947}
    assert centre["liver"][2] < centre["spleen"][2]
    assert centre["kidney_right"][2] < centre["kidney_left"][2]
    assert centre["kidney_left"][1] > centre["liver"][1]


@pytest.mark.real
def test_sarcoma_masks_lie_on_their_scans(shared_data):
    """Counts, sizes and modalities of the data's own table; every ninth row, CT and MR."""
    with (shared_data / "sts" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[::9]:
        volume = read_volume(shared_data / "sts" / row["image"])
        assert "x".join(map(str, volume.source.shape)) == row["size_xyz"]
        assert read_mask(shared_data / "sts" / row["mask"], volume).sum() == int(row["tumour_voxels"])
        assert (volume.modality == "CT") == (row["modality"] == "CT"), row["image"]


@pytest.mark.parametrize("size", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize(("apart", "refused"), [(0.2, False), (0.5, True), (3.0, True)])
def test_places_are_compared_in_voxels_where_these_are_small(tmp_path, size, apart, refused):
    """0.1 mm is a hundred voxels of a micrometre: a mask that far beside its scan is refused."""
    step = apart * min(size, 0.4)
    affine = np.diag([-size, -size, size, 1.0])
    volume = read_volume(save(tmp_path / "scan.nii", label_map().astype(np.float32), affine))
    affine[0, 3] += step
    path = save(tmp_path / "labels.nii", label_map(), affine)
    if refused:
        with pytest.raises(GeometryError, match="beside its scan's grid"):
            read_labels(path, volume)
    else:
        assert read_labels(path, volume).shape == volume.shape


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"modality": "ct"}, "modality is 'ct'; it is 'CT', 'MR', 'other', or None for a guess"),
        ({"assume_orientation": "xyz"}, "assume_orientation is three letters such as LPS or RAS; got 'xyz'"),
        ({"assume_orientation": "LPSS"}, "got 'LPSS'"),
        ({"assume_orientation": 5}, "got 5"),
        ({"nan_to": "0"}, "nan_to takes the place of NaN voxels and cannot be '0'"),
        ({"max_bytes": 0}, "max_bytes is 0; it is a whole number of bytes, 1 or more"),
        ({"max_bytes": "1"}, "max_bytes is '1'"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(tmp_path, setting, said):
    path = save(tmp_path / "scan.nii", np.full(SHAPE, -500, np.int16))  # it needs none of them
    with pytest.raises(NoOrientationError if "assume_orientation" in setting else ConfigError) as refusal:
        read_volume(path, **setting)
    assert said in str(refusal.value)
