"""A scan written in every orientation is one scan inside, and its mask goes back to where it came from."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medvol.core.imaging.geometry import make_volume, voxel_to_world
from medvol.core.imaging.reading import read_mask, read_volume
from medvol.core.imaging.writing import write_mask

SHAPE = (15, 12, 9)
SPACING = (0.8, 1.3, 2.5)
ORIENTATIONS = [(axes, flips) for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)]


def scene(oblique: bool) -> tuple[np.ndarray, np.ndarray]:
    """An array (i, j, k) in RAS order with a lopsided bright blob, and its affine."""
    voxels = np.full(SHAPE, -900, np.int16)
    voxels[2:6, 3:5, 1:7] = 300
    voxels[6, 4, 6] = 500
    affine = np.eye(4)
    affine[:3, :3] = rotation() @ np.diag(SPACING) if oblique else np.diag(SPACING)
    affine[:3, 3] = (-31.5, 12.25, 80.0)
    return voxels, affine


def rotation() -> np.ndarray:
    a, b = np.deg2rad(12), np.deg2rad(7)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_x @ about_z


def turn(voxels: np.ndarray, affine: np.ndarray, axes, flips) -> tuple[np.ndarray, np.ndarray]:
    """The same scene with its array axes permuted and flipped, worked out without nibabel."""
    turned = voxels.transpose(axes)
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3)[:, list(axes)]
    for axis, flip in enumerate(flips):
        if flip < 0:
            turned = np.flip(turned, axis)
            mirror = np.eye(4)
            mirror[axis, axis] = -1
            mirror[axis, 3] = turned.shape[axis] - 1
            matrix = matrix @ mirror
    return np.ascontiguousarray(turned), affine @ matrix


def centroid(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return voxel_to_world(affine, np.argwhere(mask)).mean(axis=0)


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS)
def test_nifti_in_48_orientations(axes, flips, oblique, tmp_path):
    voxels, affine = scene(oblique)
    truth = centroid(voxels > 0, affine)
    turned, turned_affine = turn(voxels, affine, axes, flips)
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(turned, turned_affine), path)
    volume = read_volume(path)
    mask = volume.voxels > 0
    inside = voxel_to_world(volume.affine, np.argwhere(mask)[:, ::-1]).mean(axis=0)
    assert np.abs(inside - truth).max() < 0.01 * min(SPACING)
    written = nib.load(write_mask(tmp_path / "mask.nii.gz", mask, volume))
    assert written.affine.tobytes() == nib.load(path).affine.tobytes()
    assert written.get_data_dtype() == np.uint8
    back = np.asarray(written.dataobj)
    np.testing.assert_array_equal(back, turned > 0)
    assert np.abs(centroid(back, written.affine) - truth).max() < 0.01 * min(SPACING)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", volume), mask)


def test_inside_all_48_are_one_array(tmp_path):
    voxels, affine = scene(oblique=False)
    # LPS from RAS: left and front are mirrored, then (z, y, x).
    expected = voxels[::-1, ::-1].transpose(2, 1, 0)
    for axes, flips in ORIENTATIONS:
        turned, turned_affine = turn(voxels, affine, axes, flips)
        nib.save(nib.Nifti1Image(turned, turned_affine), tmp_path / "scan.nii")
        volume = read_volume(tmp_path / "scan.nii")
        np.testing.assert_array_equal(volume.voxels, expected)
        assert volume.spacing == pytest.approx(SPACING[::-1], abs=1e-6)
        assert (np.sign(np.diag(volume.affine)[:3]) == (-1, -1, 1)).all()


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize(("axes", "flips"), ORIENTATIONS[::3])
def test_itk_formats_keep_their_geometry(axes, flips, suffix, tmp_path):
    voxels, affine = scene(oblique=True)
    truth = centroid(voxels > 0, affine)
    turned, turned_affine = turn(voxels, affine, axes, flips)
    image = sitk.GetImageFromArray(turned.transpose(2, 1, 0))
    world = np.diag([-1.0, -1, 1, 1]) @ turned_affine
    spacing = np.linalg.norm(world[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(world[:3, 3].tolist())
    image.SetDirection((world[:3, :3] / spacing).ravel().tolist())
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, str(path))
    stored = sitk.ReadImage(str(path))
    volume = read_volume(path)
    mask = volume.voxels > 0
    inside = voxel_to_world(volume.affine, np.argwhere(mask)[:, ::-1]).mean(axis=0)
    assert np.abs(inside - truth).max() < 0.01 * min(SPACING)
    write_mask(tmp_path / f"mask{suffix}", mask, volume)
    written = sitk.ReadImage(str(tmp_path / f"mask{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(stored) > 0)
    for part in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(written, part)() == pytest.approx(getattr(stored, part)(), abs=1e-12)
    nifti = nib.load(write_mask(tmp_path / "mask.nii.gz", mask, volume))
    assert np.abs(centroid(np.asarray(nifti.dataobj), nifti.affine) - truth).max() < 0.01 * min(SPACING)


def test_left_is_on_the_right_and_the_head_comes_last(tmp_path):
    voxels = np.full((10, 10, 10), -1000, np.int16)
    voxels[1, 5, 8] = 100  # RAS: index 1 of x is the patient's left, index 8 of z is near the head
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "scan.nii")
    (z, y, x) = np.argwhere(read_volume(tmp_path / "scan.nii").voxels > 0)[0]
    assert (z, y, x) == (8, 4, 8)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_volume_made_in_memory(suffix, tmp_path):
    volume = make_volume(np.zeros((4, 5, 6), np.float32), (5.0, 2.0, 1.0))
    mask = np.zeros(volume.shape, bool)
    mask[3, 1:3, 2] = True
    path = write_mask(tmp_path / f"mask{suffix}", mask, volume)
    again = read_volume(path)
    np.testing.assert_array_equal(again.voxels > 0, mask)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-6)
