"""Masks are written whole or not at all, always the same bytes, with the scan's geometry and nothing else of it."""

import gzip
import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medvol.core.errors import GeometryError
from medvol.imaging.formats.problems import UnknownFormatError
from medvol.imaging.geometry import make_volume
from medvol.imaging.reading import read_mask, read_volume
from medvol.imaging.writing import to_stored_axes, write_map, write_mask, write_volume, write_whole

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
GEOMETRY = ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d")
MORE_GEOMETRY = ("qoffset_x", "qoffset_y", "qoffset_z", "xyzt_units")


@pytest.fixture
def volume():
    return make_volume(np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32), (2.5, 0.9, 0.8))


def only_scan(folder):
    return [path.name for path in folder.iterdir()]


def only_codes(sform, qform):
    def change(header):
        header["sform_code"], header["qform_code"] = sform, qform

    return change


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (4, 0), (0, 1)])
def test_geometry_fields_are_those_of_the_scan(scans, tmp_path, order, kind, codes):
    path = tmp_path / "scan.nii"
    path.write_bytes(
        scans.nifti(scans.voxels(f"{order}i2"), kind=kind, order=order, change=only_codes(*codes), scl_slope=2)
    )
    scan = read_volume(path)
    before, after = nib.load(path), nib.load(write_mask(tmp_path / "mask.nii.gz", scan.voxels > 0, scan))
    assert type(after) is type(before)
    assert after.affine.tobytes() == before.affine.tobytes()
    for name in (*GEOMETRY, *MORE_GEOMETRY):
        assert after.header[name].tobytes() == before.header[name].tobytes(), name
    assert after.header["pixdim"][:4].tobytes() == before.header["pixdim"][:4].tobytes()
    assert after.get_data_dtype() == np.uint8
    assert set(np.unique(after.get_fdata())) == {0, 1}


@pytest.mark.parametrize("written", [".nii", ".nii.gz"])
def test_free_text_of_the_scan_stays_behind(scans, tmp_path, written):
    texts = {"descrip": b"Jane Doe", "db_name": b"Jane Doe", "aux_file": b"Jane Doe", "intent_name": b"Jane Doe"}
    (tmp_path / "scan.nii").write_bytes(scans.nifti(**texts))
    scan = read_volume(tmp_path / "scan.nii")
    data = write_mask(tmp_path / f"mask{written}", scan.voxels > 0, scan).read_bytes()
    assert b"Jane" not in (gzip.decompress(data) if written.endswith("gz") else data)


def test_free_text_of_an_nrrd_stays_behind(scans, tmp_path):
    (tmp_path / "scan.nrrd").write_bytes(scans.nrrd(content="Jane Doe\n# Jane Doe\npatient:=Jane Doe"))
    scan = read_volume(tmp_path / "scan.nrrd")
    assert b"Jane" not in write_mask(tmp_path / "mask.nrrd", scan.voxels > 0, scan).read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_mask_is_the_same_bytes(volume, tmp_path, suffix, monkeypatch):
    first = write_mask(tmp_path / f"a{suffix}", volume.voxels > 0, volume).read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert write_mask(tmp_path / "other" / f"b{suffix}", volume.voxels > 0, volume).read_bytes() == first


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("fill", [False, True])
def test_empty_and_full_masks(volume, tmp_path, suffix, fill):
    path = write_mask(tmp_path / f"mask{suffix}", np.full(volume.shape, fill), volume)
    assert (read_mask(path, volume) == fill).all()


def test_folders_are_made_and_the_file_can_be_read_by_whom_the_umask_lets(volume, tmp_path):
    (tmp_path / "plain").touch()
    path = write_mask(str(tmp_path / "new" / "folder" / "mask.nii.gz"), volume.voxels > 0, volume)
    assert isinstance(path, Path)
    assert only_scan(path.parent) == ["mask.nii.gz"]
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["mask", "mask.png", "mask.npz", "mask.gz", "mask.nhdr", "mask.mhd", "mask.hdr"])
def test_a_name_that_says_no_format(volume, tmp_path, name):
    with pytest.raises(UnknownFormatError, match=r"\.nii, \.nii\.gz, \.nrrd or \.mha"):
        write_mask(tmp_path / name, volume.voxels > 0, volume)
    assert only_scan(tmp_path) == []


@pytest.mark.parametrize("shape", [(6, 5, 4), (4, 5, 5), (4, 5), (1, 4, 5, 6)])
def test_a_mask_of_another_shape(volume, tmp_path, shape):
    with pytest.raises(GeometryError, match=r"\(4, 5, 6\)"):
        write_mask(tmp_path / "mask.nii", np.zeros(shape, bool), volume)
    assert only_scan(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("failing", ["write", "rename"])
def test_a_failure_leaves_what_was_there(volume, tmp_path, suffix, failing, monkeypatch):
    path = tmp_path / f"mask{suffix}"
    before = write_mask(path, volume.voxels > 0, volume).read_bytes()

    def fail(*arguments, **settings):
        raise OSError(28, "No space left on device")

    targets = {"write": ["pathlib.Path.write_bytes", "SimpleITK.WriteImage"], "rename": ["pathlib.Path.replace"]}
    for target in targets[failing]:
        monkeypatch.setattr(target, fail)
    with pytest.raises(OSError, match="No space"):
        write_mask(path, volume.voxels < 0, volume)
    assert path.read_bytes() == before
    assert only_scan(tmp_path) == [path.name]


def test_an_interrupt_leaves_nothing(tmp_path):
    def interrupted():
        with write_whole(tmp_path / "mask.nii.gz") as partial:
            partial.write_bytes(b"half")
            assert partial.parent == tmp_path
            assert partial.name.endswith("mask.nii.gz")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_stored_axes_of_a_volume_made_in_memory(volume):
    mask = volume.voxels > 0
    np.testing.assert_array_equal(to_stored_axes(mask, volume), mask.transpose(2, 1, 0))


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_volume_is_read_as_it_was_written(volume, tmp_path, name):
    turn = np.eye(4)
    turn[:2, :2], turn[:3, 3] = [[0.8, -0.6], [0.6, 0.8]], (3, 4, 5)
    volume = replace(volume, affine=turn @ volume.affine)
    path = write_volume(tmp_path / "new" / name, volume)
    assert only_scan(path.parent) == [name]
    again, stored = read_volume(path, modality=volume.modality), nib.load(path)
    assert np.array_equal(again.voxels, volume.voxels)
    assert again.affine == pytest.approx(volume.affine, abs=1e-5)
    # Voxel (i, j, k) of the file lies where the affine says, which points from left to right and from back to front.
    assert stored.affine @ [5, 2, 3, 1] == pytest.approx(volume.affine @ [5, 2, 3, 1], abs=1e-4)
    assert stored.get_fdata()[5, 2, 3] == volume.voxels[3, 2, 5]
    before = path.read_bytes()
    assert write_volume(path, volume).read_bytes() == before


def test_a_volume_is_written_as_nifti_only(volume, tmp_path):
    with pytest.raises(UnknownFormatError, match=r"\.nii or \.nii\.gz"):
        write_volume(tmp_path / "scan.nrrd", volume)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_map_keeps_its_numbers_in_the_grid_of_the_scan(scans, tmp_path, order):
    path = tmp_path / "scan.nii"
    path.write_bytes(scans.nifti(scans.voxels(f"{order}i2"), order=order, scl_slope=2))
    scan = read_volume(path)
    values = np.random.default_rng(0).random(scan.shape).astype(np.float32)
    written = write_map(tmp_path / "map.nii.gz", values, scan)
    before, after = nib.load(path), nib.load(written)
    assert after.affine.tobytes() == before.affine.tobytes()
    assert after.get_data_dtype() == np.dtype(f"{order}f4")
    back = read_volume(written)
    np.testing.assert_array_equal(back.voxels, values)
    assert write_map(tmp_path / "again.nii.gz", values, scan).read_bytes() == written.read_bytes()


def test_a_map_of_another_shape_or_format_is_refused(volume, tmp_path):
    with pytest.raises(GeometryError, match="the map has shape"):
        write_map(tmp_path / "map.nii.gz", np.zeros((1, 2, 3), np.float32), volume)
    with pytest.raises(UnknownFormatError, match="a map is written as"):
        write_map(tmp_path / "map.mha", np.zeros(volume.shape, np.float32), volume)
    assert not list(tmp_path.iterdir())
