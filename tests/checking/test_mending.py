"""Mended copies: safe ones are written and pass the gate, all others are left alone, nothing is mended in place."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_bytes import Scans

from medvol.checking.header_mending import Mending
from medvol.checking.mending import mend_copy
from medvol.checking.scans import check_scan
from medvol.checking.straighten import straighten
from medvol.imaging.reading import read_volume

SCANS = Scans()


def field(name, value, index=None):
    def change(header):
        if index is None:
            header[name] = value
        else:
            header[name][index] = value

    return change


def flipped_qform(header):
    header.set_qform(np.diag([0.8, 0.9, 2.5, 1]), 1)


def long_quaternion(header):
    header["quatern_b"] = header["quatern_c"] = 0.9


def intercept(header):
    header["scl_slope"], header["scl_inter"] = 2, np.nan


GEOMETRY = {
    "qform flips left and right": (flipped_qform, "conflicting_affines"),
    "qform shifted": (field("qoffset_x", 99.0), "conflicting_affines"),
    "pixdim unlike sform": (field("pixdim", 0.5, 1), "conflicting_affines"),
    "pixdim 0": (field("pixdim", 0, 3), "bad_spacing"),
    "pixdim NaN": (field("pixdim", np.nan, 1), "bad_spacing"),
    "pixdim negative": (field("pixdim", -0.8, 1), "bad_spacing"),
    "sform code 9": (field("sform_code", 9), "bad_header"),
    "qform code 7": (field("qform_code", 7), "bad_header"),
    "quaternion longer than one": (long_quaternion, "bad_header"),
    "qfac 7": (field("pixdim", 7, 0), "bad_header"),
}


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_headers_follow_the_sform_and_voxels_stay(name, ending, tmp_path):
    change, problem = GEOMETRY[name]
    path, copy = tmp_path / f"s.{ending}", tmp_path / "mended" / f"s.{ending}"
    data = SCANS.nifti(change=change)
    path.write_bytes(SCANS.zip(data) if ending == "nii.gz" else data)
    before = path.read_bytes()
    assert check_scan(path).findings[0].name == problem
    assert problem in mend_copy(path, copy, Mending())
    assert path.read_bytes() == before
    mended = gzip.decompress(copy.read_bytes()) if ending == "nii.gz" else copy.read_bytes()
    assert mended[348:] == data[348:]
    image = nib.Nifti1Image.from_bytes(mended)
    np.testing.assert_allclose(image.get_sform(), SCANS.affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), SCANS.affine, atol=1e-4)
    assert check_scan(copy).findings == ()


def test_a_missing_intercept_is_0(tmp_path):
    (tmp_path / "s.nii").write_bytes(SCANS.nifti(change=intercept))
    assert mend_copy(tmp_path / "s.nii", tmp_path / "m" / "s.nii", Mending()) == ["bad_header"]
    stored = read_volume(tmp_path / "m" / "s.nii").voxels.transpose(2, 1, 0)
    np.testing.assert_array_equal(stored, 2.0 * SCANS.voxels())


def test_orientation_and_fill_are_the_users(tmp_path):
    voxels = SCANS.voxels(np.float32)
    voxels[3, 4, 5], voxels[1, 1, 1] = np.nan, -np.inf
    path, copy = tmp_path / "s.nii.gz", tmp_path / "m" / "s.nii.gz"
    path.write_bytes(SCANS.zip(SCANS.nifti(voxels, qform_code=0, sform_code=0)))
    for known in (Mending(), Mending(nan_to=-1024), Mending(assume_orientation="LPS"), Mending(-1024, "LPX")):
        assert mend_copy(path, copy, known) == []
        assert not copy.exists()
    assert mend_copy(path, copy, Mending(-1024, "RAS")) == ["no_orientation", "non_finite"]
    image = nib.load(copy)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(image.get_fdata(), np.where(np.isfinite(voxels), voxels, -1024))


def test_a_misnamed_file_is_written_as_its_name_says(tmp_path):
    for name, data in (("a.nii.gz", SCANS.nifti()), ("b.nii", SCANS.zip(SCANS.nifti()))):
        (tmp_path / name).write_bytes(data)
        assert mend_copy(tmp_path / name, tmp_path / "m" / name, Mending()) == ["misnamed"]
        content = (tmp_path / "m" / name).read_bytes()
        assert (gzip.decompress(content) if name.endswith(".gz") else content) == SCANS.nifti()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz"])
def test_voxels_of_a_misnamed_file_are_mended_too(kind, name, tmp_path):
    """The file is gzipped against its name, and that is not all that is wrong with it."""

    def write(data):
        (tmp_path / name).write_bytes(data if name.endswith(".gz") else SCANS.zip(data))

    def mended():
        content = (tmp_path / "m" / name).read_bytes()
        return kind.from_bytes(gzip.decompress(content) if name.endswith(".gz") else content)

    voxels = SCANS.voxels(np.float32)
    voxels[3, 4, 5] = np.nan
    write(SCANS.nifti(voxels, kind=kind))
    assert mend_copy(tmp_path / name, tmp_path / "m" / name, Mending(nan_to=-1024)) == ["non_finite"]
    np.testing.assert_array_equal(mended().get_fdata(), np.nan_to_num(voxels, nan=-1024))
    labels = np.zeros(Scans.shape, np.float32)
    labels[4:9, 4:9, 4:9] = 2.995
    write(SCANS.nifti(labels, kind=kind))
    assert set(mend_copy(tmp_path / name, tmp_path / "m" / name, Mending())) == {"moved_labels"}
    np.testing.assert_array_equal(mended().get_fdata(), 3.0 * (labels > 0))
    affine = sheared(SCANS.affine, 12)
    write(SCANS.nifti(kind=kind, change=lambda header: header.set_sform(affine, 1), qform_code=0))
    assert mend_copy(tmp_path / name, tmp_path / "m" / name, Mending()) == ["sheared_affine"]


def test_a_grid_that_straightened_would_fill_any_memory_is_left_alone(tmp_path):
    """Voxels of 1 um and 1 m along two axes 0.1 degrees apart: 11 million x 15 x 16 straight ones, of 6 kB."""
    affine = np.array([[1e-3, 0, 1e3, 0], [0, 1e-3, 0, 0], [0, 0, 2.0, 0], [0, 0, 0, 1]])
    data = SCANS.nifti(qform_code=0, change=lambda header: header.set_sform(affine, 1))
    (tmp_path / "s.nii").write_bytes(data)
    assert check_scan(tmp_path / "s.nii").findings[0].name == "sheared_affine"
    assert mend_copy(tmp_path / "s.nii", tmp_path / "m" / "s.nii", Mending()) == []


UNSAFE = {
    "truncated": lambda: SCANS.nifti()[:-9],
    "overlong": lambda: SCANS.nifti() + b"\0",
    "infinite slope": lambda: SCANS.nifti(scl_slope=np.inf),
    "pixdim negative, no sform": lambda: SCANS.nifti(sform_code=0, change=field("pixdim", -0.8, 1)),
    "two columns of the sform equal": lambda: SCANS.nifti(qform_code=0, srow_x=(1, 1, 0, 0), srow_y=(0, 0, 0, 0)),
    "conflict and truncated": lambda: SCANS.nifti(change=flipped_qform)[:-9],
    "micrometres": lambda: SCANS.nifti(change=lambda header: header.set_xyzt_units("micron")),
    "a time series": lambda: SCANS.nifti(change=lambda header: field("dim", (4, 16, 15, 3, 4, 1, 1, 1))(header)),
    "text": lambda: b"no scan " * 90,
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_is_not_safe_is_left_alone(name, tmp_path):
    (tmp_path / "s.nii").write_bytes(UNSAFE[name]())
    assert mend_copy(tmp_path / "s.nii", tmp_path / "m" / "s.nii", Mending(0.0, "LPS")) == []
    assert not (tmp_path / "m").exists()


def test_nothing_is_mended_in_place_and_no_other_format(tmp_path):
    (tmp_path / "s.nii").write_bytes(SCANS.nifti(change=flipped_qform))
    before = (tmp_path / "s.nii").read_bytes()
    assert mend_copy(tmp_path / "s.nii", tmp_path / "s.nii", Mending()) == []
    assert (tmp_path / "s.nii").read_bytes() == before
    (tmp_path / "s.nrrd").write_bytes(SCANS.nrrd(np.full(2880, np.nan, "<f4").tobytes(), type="float"))
    assert mend_copy(tmp_path / "s.nrrd", tmp_path / "m" / "s.nrrd", Mending(0.0)) == []


def sheared(affine, angle_degrees):
    """The third axis leans by an angle, as with gantry tilt."""
    tilted = affine.copy()
    tilted[1, 2] += np.tan(np.deg2rad(angle_degrees)) * affine[2, 2]
    return tilted


@pytest.mark.parametrize("nearest", [False, True])
def test_straightening_keeps_things_where_they_are(nearest):
    """A linear ramp in world coordinates is the same ramp on the straight grid, and a block keeps its centre."""
    affine = sheared(SCANS.affine, 12)
    grid = np.indices(Scans.shape).reshape(3, -1).T
    world = grid @ affine[:3, :3].T + affine[:3, 3]
    ramp = (world @ [3.0, -2.0, 1.5] + 1e4).reshape(Scans.shape)
    if nearest:
        ramp = (np.abs(world - world.mean(axis=0)) < [4, 4, 9]).all(axis=1).reshape(Scans.shape).astype(np.uint8)
    straight, new = straighten(Path("s.nii"), ramp, affine, nearest)
    axes = new[:3, :3] / np.linalg.norm(new[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(new[:3, :3], axis=0), np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-9)
    there = np.indices(straight.shape).reshape(3, -1).T @ new[:3, :3].T + new[:3, 3]
    old = (there - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    inside = ((old >= 1e-6) & (old <= np.array(Scans.shape) - 1 - 1e-6)).all(axis=1)
    if nearest:
        assert set(np.unique(straight)) == {0, 1}
        np.testing.assert_allclose(
            there[straight.ravel() > 0].mean(axis=0), world[ramp.ravel() > 0].mean(axis=0), atol=1
        )
    else:
        expected = there @ [3.0, -2.0, 1.5] + 1e4
        np.testing.assert_allclose(straight.ravel()[inside], expected[inside], rtol=1e-5)
        assert straight.min() >= ramp.min() - 1e-3
    low, high = there.min(axis=0) - 1e-6, there.max(axis=0) + 1e-6
    assert ((world >= low) & (world <= high)).all()


def test_a_tilted_scan_is_resampled(tmp_path):
    affine = sheared(SCANS.affine, 12)

    def tilt(header):
        header["qform_code"] = 0
        header.set_sform(affine, 1)
        header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)

    (tmp_path / "s.nii").write_bytes(SCANS.nifti(change=tilt))
    assert [finding.name for finding in check_scan(tmp_path / "s.nii").findings] == ["sheared_affine"]
    assert mend_copy(tmp_path / "s.nii", tmp_path / "m" / "s.nii", Mending()) == ["sheared_affine"]
    assert check_scan(tmp_path / "m" / "s.nii").findings == ()
    labels = np.zeros(Scans.shape, np.uint8)
    labels[4:9, 4:9, 3:8] = 5
    (tmp_path / "l.nii").write_bytes(SCANS.nifti(labels, change=tilt))
    assert mend_copy(tmp_path / "l.nii", tmp_path / "m" / "l.nii", Mending()) == ["sheared_affine"]
    assert set(np.unique(nib.load(tmp_path / "m" / "l.nii").dataobj)) == {0, 5}
