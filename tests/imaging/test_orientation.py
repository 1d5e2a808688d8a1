"""A blob stays where it is in the world, however its scan is stored."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from medvol.imaging.geometry import (
    axis_codes,
    invert_orientation,
    lps_affine,
    make_volume,
    orientation_to_lps,
    voxel_to_world,
)
from medvol.imaging.reading import read_mask, read_volume
from medvol.imaging.writing import write_mask

SHAPE = (22, 18, 9)
SPACING = (0.8, 0.9, 2.5)
ORIENTATIONS = [
    np.column_stack([order, flips]).astype(float)
    for order in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]
IDS = ["".join(f"{'+' if flip > 0 else '-'}{int(axis)}" for axis, flip in rows) for rows in ORIENTATIONS]
OBLIQUE = Rotation.from_euler("xz", (12, 7), degrees=True).as_matrix()


def blob():
    """An L with a foot: no reflection or rotation maps it to itself."""
    voxels = np.zeros(SHAPE, np.int16)
    voxels[3:15, 4:7, 2:5] = 1000
    voxels[3:6, 4:14, 2:4] = 1000
    voxels[3:5, 12:14, 2:8] = 1000
    return voxels


def base_affine(rotation):
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(SPACING)
    affine[:3, 3] = (-31.5, 12.25, 407.75)
    return affine


def centroid(voxels, affine):
    return voxel_to_world(affine, np.argwhere(voxels > 0)).mean(axis=0)


def off_in_voxels(stored, affine, rotation):
    """Distance between a blob's centroid and the true one, along each axis, in voxels."""
    apart = centroid(stored, affine) - centroid(blob(), base_affine(rotation))
    return np.abs(rotation.T @ apart / SPACING).max()


def test_there_are_48_orientations():
    assert len(ORIENTATIONS) == 48
    assert len(set(IDS)) == 48


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=IDS)
def test_oblique_nifti_goes_back_to_its_own_grid(tmp_path, orientation, suffix):
    affine = base_affine(OBLIQUE) @ nib.orientations.inv_ornt_aff(orientation, SHAPE)
    stored = nib.orientations.apply_orientation(blob(), orientation)
    nib.save(nib.Nifti1Image(stored, affine), tmp_path / f"scan{suffix}")

    volume = read_volume(tmp_path / f"scan{suffix}")
    mask = volume.voxels > 500
    write_mask(tmp_path / f"mask{suffix}", mask, volume)

    scan, written = nib.load(tmp_path / f"scan{suffix}"), nib.load(tmp_path / f"mask{suffix}")
    assert axis_codes(volume.affine) == "LPS"
    assert written.affine.tobytes() == scan.affine.tobytes()
    assert written.header["pixdim"][:4].tobytes() == scan.header["pixdim"][:4].tobytes()
    np.testing.assert_array_equal(np.asarray(written.dataobj), stored > 500)
    assert off_in_voxels(np.asarray(written.dataobj), written.affine, OBLIQUE) < 0.01
    inside = voxel_to_world(volume.affine, np.argwhere(mask)[:, ::-1]).mean(axis=0)
    np.testing.assert_allclose(inside, centroid(blob(), base_affine(OBLIQUE)), atol=0.008)
    np.testing.assert_array_equal(read_mask(tmp_path / f"mask{suffix}", volume), mask)


def test_axis_aligned_content_is_one_array(tmp_path):
    expected = blob()[::-1, ::-1].transpose(2, 1, 0)  # stored RAS; LPS flips the first two axes
    for name, orientation in zip(IDS, ORIENTATIONS, strict=True):
        affine = base_affine(np.eye(3)) @ nib.orientations.inv_ornt_aff(orientation, SHAPE)
        nib.save(
            nib.Nifti1Image(nib.orientations.apply_orientation(blob(), orientation), affine), tmp_path / "scan.nii"
        )
        volume = read_volume(tmp_path / "scan.nii")
        np.testing.assert_array_equal(volume.voxels, expected, err_msg=name)
        np.testing.assert_allclose(volume.spacing, SPACING[::-1], rtol=1e-6)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=IDS)
def test_oblique_itk_scan_goes_back_to_its_own_grid(tmp_path, orientation, suffix):
    affine = np.diag([-1, -1, 1, 1]) @ base_affine(OBLIQUE) @ nib.orientations.inv_ornt_aff(orientation, SHAPE)
    stored = nib.orientations.apply_orientation(blob(), orientation)
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored.transpose(2, 1, 0)))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))

    volume = read_volume(tmp_path / f"scan{suffix}")
    mask = volume.voxels > 500
    (tmp_path / f"scan{suffix}").rename(tmp_path / f"moved{suffix}")  # its geometry was read already
    write_mask(tmp_path / f"mask{suffix}", mask, volume)

    scan, written = (sitk.ReadImage(str(tmp_path / f"{name}{suffix}")) for name in ("moved", "mask"))
    for part in ("GetSpacing", "GetOrigin", "GetDirection", "GetSize"):
        assert getattr(written, part)() == getattr(scan, part)()
    assert written.GetPixelID() == sitk.sitkUInt8
    places = [
        written.TransformIndexToPhysicalPoint(p[::-1]) for p in np.argwhere(sitk.GetArrayFromImage(written)).tolist()
    ]
    apart = np.mean(places, axis=0) * (-1, -1, 1) - centroid(blob(), base_affine(OBLIQUE))
    assert np.abs(OBLIQUE.T @ apart / SPACING).max() < 0.01
    np.testing.assert_array_equal(read_mask(tmp_path / f"mask{suffix}", volume), mask)


@pytest.mark.parametrize(
    ("stored", "written"), [(".nii.gz", ".nrrd"), (".nrrd", ".nii.gz"), (".mha", ".nii"), (".nii", ".mha")]
)
def test_a_mask_may_change_format(tmp_path, stored, written):
    volume = make_volume((blob().transpose(2, 1, 0)).astype(np.float32), SPACING[::-1])
    write_mask(tmp_path / f"scan{stored}", volume.voxels > 500, volume)
    scan = read_volume(tmp_path / f"scan{stored}")
    path = write_mask(tmp_path / f"mask{written}", scan.voxels > 0, scan)
    np.testing.assert_array_equal(read_mask(path, scan), volume.voxels > 500)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_volume_made_in_memory(tmp_path, suffix):
    volume = make_volume(np.ascontiguousarray(blob().transpose(2, 1, 0), np.float32), (2.5, 0.75, 0.5))
    mask = volume.voxels > 500
    path = write_mask(tmp_path / f"mask{suffix}", mask, volume)
    again = read_volume(path)
    np.testing.assert_array_equal(again.voxels > 0, mask)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-6)
    np.testing.assert_array_equal(read_mask(path, volume), mask)


def test_the_patients_left_is_on_the_images_right(tmp_path):
    voxels = np.zeros((10, 8, 6), np.int16)
    voxels[1, 2, 5] = 1  # RAS: low i is the patient's left, low j the back, high k the head
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 1, 1])), tmp_path / "ras.nii")
    [[z, y, x]] = np.argwhere(read_volume(tmp_path / "ras.nii").voxels)
    assert (z, y, x) == (5, 8 - 1 - 2, 10 - 1 - 1)
    assert x > 10 / 2, "left of the patient, right of the image"
    assert y > 8 / 2, "back of the patient, bottom of the image"


def test_an_orientation_and_its_inverse_do_nothing():
    for orientation in ORIENTATIONS:
        there = nib.orientations.apply_orientation(blob(), orientation)
        back = nib.orientations.apply_orientation(there, invert_orientation(orientation))
        np.testing.assert_array_equal(back, blob())


def test_lps_affine_places_voxels():
    affine = lps_affine((2.5, 0.9, 0.8), (10, 20, 30))
    np.testing.assert_allclose(voxel_to_world(affine, [[1, 2, 3]]), [[10 - 0.8, 20 - 1.8, 30 + 7.5]])
    assert axis_codes(affine) == "LPS"
    np.testing.assert_array_equal(orientation_to_lps(affine), [[0, 1], [1, 1], [2, 1]])
