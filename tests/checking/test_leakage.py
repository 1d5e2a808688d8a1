"""One scan in two splits is found, whatever it is called, however it is turned."""

import gzip
import shutil
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medvol.checking.fingerprint import CELLS, find_matches, hash_file, hash_pieces, make_thumbnail
from medvol.checking.leakage import shared_files, shared_patients, shared_scans
from medvol.core.errors import DatasetError
from medvol.datasets.nifti import NiftiDataset
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings
from medvol.imaging.geometry import make_volume
from medvol.training.data import CaseDataModule

TURNS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


@pytest.fixture(scope="module")
def scans():
    data = PhantomDataset("test", 12, shape=(20, 64, 72), cache=CacheSettings(scans=12))
    return [data[i].volume for i in {data.volume_key(i): i for i in range(len(data))}.values()]


def write(folder, volume, voxels=None, affine=None, dtype=np.int16):
    """A scan and a label map with a liver in one half, in the layout that NiftiDataset searches."""
    stored = volume.voxels.transpose(2, 1, 0) if voxels is None else voxels
    labels = np.zeros(stored.shape, np.uint8)
    labels[: len(labels) // 2] = 1
    for name, array in (("image", stored.astype(dtype)), ("label", labels)):
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, volume.affine if affine is None else affine), folder / f"{name}.nii.gz")
    return folder


def dataset(root, **settings):
    return NiftiDataset(str(root), target="liver", **settings)


def turned_copy(volume, factors, order=(2, 0, 1), flips=(-1, 1, -1)):
    """The scan resampled, clipped and stored along other axes in other directions, with the affine that says so."""
    small = ndimage.zoom(volume.voxels, factors, order=1, grid_mode=True, mode="nearest").clip(-160, 240)
    steps = np.array(volume.voxels.shape) / small.shape
    # Voxel (z, y, x) of the copy in world mm: the first cell's centre moves by half the change of the step.
    affine = volume.affine @ np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    affine = affine @ np.diag([*steps, 1.0]) + np.c_[np.zeros((4, 3)), affine @ [*((steps - 1) / 2), 0]]
    ornt = np.array([[order.index(axis), flips[axis]] for axis in range(3)], float)
    return nib.apply_orientation(small, ornt), affine @ nib.orientations.inv_ornt_aff(ornt, small.shape)


def test_cells_are_means_less_those_around():
    voxels = np.random.default_rng(0).uniform(0, 1, size=(2 * CELLS, CELLS, 3 * CELLS)).astype(np.float32)
    voxels.ravel()[:2] = 0, 1
    thumbnail = make_thumbnail(make_volume(voxels, (1.0, 1.0, 1.0), "other"))
    low, high = np.percentile(voxels, (1, 99))
    means = (voxels.clip(low, high) - low).reshape(CELLS, 2, CELLS, 1, CELLS, 3).mean(axis=(1, 3, 5)) / (high - low)
    relief = means - ndimage.gaussian_filter(means, 2.5)
    np.testing.assert_allclose(thumbnail.cells, relief / np.linalg.norm(relief), atol=1e-5)
    assert thumbnail.sides_mm == (32, 16, 48)


@pytest.mark.parametrize(("size", "cell"), [(7, 3), (16, 15), (40, 0), (50, 9)])
def test_a_voxel_counts_for_each_cell_by_its_share(size, cell):
    """Against an integral over a fine grid."""
    from medvol.checking.fingerprint import _cell_weights

    row = np.random.default_rng(size).normal(size=size).astype(np.float32)
    means = row @ _cell_weights(size)
    fine = np.repeat(row, CELLS * 10)
    width = size * 10
    assert means[cell] == pytest.approx(fine[cell * width : (cell + 1) * width].mean(), abs=1e-5)


def test_a_scan_of_few_slices_and_a_constant_one_have_thumbnails():
    for shape in ((1, 3, 5), (40, 7, 16)):
        flat = make_thumbnail(make_volume(np.zeros(shape, np.float32), (1.0, 1.0, 1.0)))
        assert np.isfinite(flat.cells).all()
        assert find_matches([flat, flat]) == []
    ramp = make_volume(np.arange(35, dtype=np.float32).reshape(1, 5, 7), (1.0, 1.0, 1.0))
    assert [match.correlation for match in find_matches([make_thumbnail(ramp)] * 2)] == pytest.approx([1.0], abs=1e-5)


def test_different_patients_do_not_match(scans):
    assert find_matches([make_thumbnail(scan) for scan in scans]) == []
    assert find_matches([make_thumbnail(scan, sized=False) for scan in scans]) == []


@settings(max_examples=25)
@given(number=st.integers(0, 11), factors=st.tuples(*[st.floats(0.6, 1.8)] * 3), turn=st.sampled_from(TURNS))
def test_a_turned_resampled_windowed_copy_matches(scans, number, factors, turn):
    order, flips = turn
    volume = scans[number]
    small = ndimage.zoom(volume.voxels, factors, order=1, grid_mode=True, mode="nearest").clip(-160, 240)
    spacing = np.array(volume.spacing) * volume.voxels.shape / small.shape
    turned = small.transpose(order)[:: flips[0], :: flips[1], :: flips[2]]
    copy = make_volume(turned, tuple(spacing[list(order)].tolist()))
    matches = find_matches([*(make_thumbnail(scan) for scan in scans), make_thumbnail(copy)])
    assert [(match.first, match.second) for match in matches] == [(number, len(scans))]


def test_a_patient_in_two_splits(tmp_path, scans):
    write(tmp_path / "a" / "p1", scans[0])
    splits = {"train": dataset(tmp_path / "a"), "test": dataset(tmp_path / "a")}
    (leak,) = shared_patients(splits)
    assert (leak.kind, leak.splits, leak.names) == ("patient", ("train", "test"), ("p1", "p1"))


def test_a_file_under_two_names(tmp_path, scans):
    write(tmp_path / "a" / "p1", scans[0])
    write(tmp_path / "a" / "p2", scans[1])
    shutil.copytree(tmp_path / "a" / "p2", tmp_path / "b" / "someone")
    splits = {"train": dataset(tmp_path / "a"), "test": dataset(tmp_path / "b")}
    (leak,) = shared_files(splits)
    assert leak.names == (str(tmp_path / "a/p2/image.nii.gz"), str(tmp_path / "b/someone/image.nii.gz"))
    assert shared_patients(splits) == []
    with pytest.raises(DatasetError, match=r"someone/image\.nii\.gz in test, and 0 more such pair"):
        CaseDataModule(splits["train"], test=splits["test"]).setup("fit")
    CaseDataModule(splits["train"], test=splits["test"], allow_shared_patients=True).setup("fit")


def test_few_files_are_read_whole(tmp_path, scans, monkeypatch):
    import medvol.checking.leakage as leakage

    hashed, looked = [], []
    monkeypatch.setattr(leakage, "hash_file", lambda path: hashed.append(path) or hash_file(path))
    monkeypatch.setattr(leakage, "hash_pieces", lambda path: looked.append(path) or hash_pieces(path))
    for number in range(3):
        write(tmp_path / "ab"[number % 2] / f"p{number}", scans[number])
    splits = {"train": dataset(tmp_path / "a"), "val": dataset(tmp_path / "b")}
    assert shared_files(splits) == []
    assert hashed == looked == []
    content = np.random.default_rng(0).bytes(300_000)
    for folder, middle in (("a", b"x"), ("b", b"y")):
        path = tmp_path / folder / ("p0" if folder == "a" else "p1") / "image.nii.gz"
        path.write_bytes(content[:120_000] + middle + content[120_000:])
    assert shared_files(splits) == []
    assert len(looked) == 2
    assert hashed == []
    path.write_bytes(content[:10_000] + b"y" + content[10_000:])
    (tmp_path / "a" / "p0" / "image.nii.gz").write_bytes(path.read_bytes())
    assert len(shared_files(splits)) == 1
    assert len(set(hashed)) == 2


def test_a_copy_that_was_turned_and_packed_anew(tmp_path, scans):
    write(tmp_path / "a" / "p1", scans[0])
    write(tmp_path / "a" / "p2", scans[1])
    write(tmp_path / "b" / "x", scans[2])
    write(tmp_path / "b" / "y", scans[1], *turned_copy(scans[1], (1.3, 0.8, 0.7)), np.float32)
    splits = {"train": dataset(tmp_path / "a"), "test": dataset(tmp_path / "b")}
    assert shared_files(splits) == []
    (leak,) = shared_scans(splits)
    assert leak.splits == ("train", "test")
    assert [name.split("/")[-2] for name in leak.names] == ["p2", "y"]
    assert leak.correlation > 0.97
    CaseDataModule(splits["train"], test=splits["test"]).setup("fit")
    with pytest.raises(DatasetError, match=r"p2/image\.nii\.gz in train looks like the same scan as .*y/image"):
        CaseDataModule(splits["train"], test=splits["test"], compare_scans=True).setup("fit")


def test_a_scan_twice_in_one_split_is_listed_and_not_refused(tmp_path, scans):
    write(tmp_path / "a" / "p1", scans[0])
    shutil.copytree(tmp_path / "a" / "p1", tmp_path / "a" / "p2")
    packed = tmp_path / "a" / "p2" / "image.nii.gz"
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()), 1))
    write(tmp_path / "b" / "p3", scans[3])
    splits = {"train": dataset(tmp_path / "a"), "val": dataset(tmp_path / "b")}
    (leak,) = shared_scans(splits)
    assert leak.splits == ("train", "train")
    CaseDataModule(splits["train"], val=splits["val"], compare_scans=True).setup("fit")


@pytest.mark.real
def test_real_scans_of_different_patients_do_not_match(shared_data):
    from medvol.imaging.reading import read_volume

    files = sorted((shared_data / "sts").glob("*_image.nii.gz"))[:24]
    volumes = [read_volume(path) for path in files]
    assert find_matches([make_thumbnail(volume) for volume in volumes]) == []
    copies = [make_volume(v.voxels[::-1, :, ::2], (*v.spacing[:2], v.spacing[2] * 2), v.modality) for v in volumes]
    matches = find_matches([make_thumbnail(volume) for volume in (*volumes, *copies)])
    assert {(m.first, m.second) for m in matches} == {(i, i + len(files)) for i in range(len(files))}
