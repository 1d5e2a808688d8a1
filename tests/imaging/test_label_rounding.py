"""Labels that were moved a little off whole numbers: rounded and told, or refused by a value that is none."""

import logging
import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medvol.checking.header_mending import Mending
from medvol.checking.label_maps import check_labels
from medvol.checking.mending import mend_copy
from medvol.checking.scans import check_scan
from medvol.imaging.formats.problems import UnknownDatatypeError
from medvol.imaging.label_values import LABEL_TOLERANCE, label_values
from medvol.imaging.reading import read_label_map, read_volume

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])


def block(values=(1, 2, 3, 7), shape=(20, 24, 12)):
    """A label in each quarter of the slices' rows, nothing around them."""
    labels = np.zeros(shape)
    for i, value in enumerate(values):
        labels[5 * i : 5 * i + 4, 2:-2, 1:-1] = value
    return labels


def save(path, labels, kind=np.int16):
    """As nibabel scales a float array under an integer header."""
    header = nib.Nifti1Image(np.zeros(labels.shape, kind), AFFINE).header
    nib.save(nib.Nifti1Image(labels, AFFINE, header), path)
    return path


def stored(labels):
    """(Z, Y, X) as it is read."""
    return labels.transpose(2, 1, 0).astype(np.int32)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.integers(1, 250), min_size=1, max_size=4, unique=True))
def test_scaling_to_16_bits_loses_no_label(values, tmp_path):
    labels = block(values)
    path = save(tmp_path / "m_label.nii.gz", labels)
    np.testing.assert_array_equal(read_label_map(path)[0], stored(labels))
    assert label_values(read_volume(path).voxels) == dict(zip(*np.unique(labels, return_counts=True), strict=True))


def test_rounded_labels_are_told_once(tmp_path, caplog):
    path = save(tmp_path / "m_label.nii", block())
    values = np.unique(nib.load(path).get_fdata())
    apart = np.abs(values - np.rint(values)).max()
    assert 0 < apart < 1e-3
    with caplog.at_level(logging.WARNING):
        read_label_map(path)
        read_label_map(path)
    assert caplog.messages == [f"{path}: its labels lie up to {apart:.1g} beside whole numbers and are rounded"]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-5, 0.009])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_noise_in_float_labels(suffix, noise, kind, tmp_path):
    labels = block()
    moved = (labels + np.random.default_rng(0).uniform(-noise, noise, labels.shape)).astype(kind)
    moved[0, 0, 0] = -0.0
    image = sitk.GetImageFromArray(np.ascontiguousarray(moved.transpose(2, 1, 0)))
    sitk.WriteImage(image, str(tmp_path / f"m{suffix}"))
    np.testing.assert_array_equal(np.unique(read_label_map(tmp_path / f"m{suffix}")[0]), [0, 1, 2, 3, 7])


@pytest.mark.parametrize("bad", [0.5, 2.98, 1.02, np.nan, np.inf, -np.inf, 6.5])
def test_what_is_no_label_is_named(bad, tmp_path):
    labels = block()
    labels[3, 3, 3] = bad
    path = tmp_path / "m.nii"
    nib.save(nib.Nifti1Image(labels.astype(np.float32), AFFINE), path)
    with pytest.raises(UnknownDatatypeError) as caught:
        read_label_map(path)
    value = float(re.search(r"one of its values is (\S+);", str(caught.value))[1])
    assert np.float32(value) == np.float32(bad) or (np.isnan(value) and np.isnan(bad))
    if np.isfinite(bad):
        (finding,) = check_labels(path, None, None).findings
        assert finding.name == "fractions"
        assert abs(float(finding.detail.split()[-1]) - bad) < 1e-6


def test_a_scan_of_tiny_values_is_no_empty_label_map(tmp_path):
    voxels = np.random.default_rng(0).gamma(2, 3e-10, (8, 9, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "mr.nii")
    assert label_values(voxels) is None
    with pytest.raises(UnknownDatatypeError, match="one of its values is"):
        read_label_map(tmp_path / "mr.nii")
    assert check_scan(tmp_path / "mr.nii").fingerprint.kind == "scan"


@pytest.mark.parametrize("kind", [np.int32, np.float64])
@pytest.mark.parametrize("slope", [None, 1.0])
def test_large_labels_stay_exact(kind, slope, tmp_path):
    labels = block((1, 16_777_216, 16_777_217, 2**31 - 2)).astype(kind)
    image = nib.Nifti1Image(labels, AFFINE)
    if slope is not None:
        image = nib.Nifti1Image((labels - 1).astype(kind), AFFINE)
        image.header.set_slope_inter(slope, 1)
        raw = image.header.copy()
        data = bytearray(nib.Nifti1Image((labels - 1).astype(kind), AFFINE, raw).to_bytes())
        data[112:120] = np.array([slope, 1], "<f4").tobytes()
        (tmp_path / "m.nii").write_bytes(data)
    else:
        nib.save(image, tmp_path / "m.nii")
    np.testing.assert_array_equal(read_label_map(tmp_path / "m.nii")[0], stored(labels))


def test_float32_that_cannot_tell_labels_apart_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(block((16_777_217,)).astype(np.float32), AFFINE), tmp_path / "m.nii")
    with pytest.raises(UnknownDatatypeError, match="16777216 from the next; save it as int32"):
        read_label_map(tmp_path / "m.nii")


@pytest.mark.parametrize("values", [(1, 2, 3, 7), (300, 4, 5)])
def test_moved_labels_are_a_warning_and_are_mended(values, tmp_path):
    labels = block(values)
    path = save(tmp_path / "m_label.nii.gz", labels)
    report = check_scan(path)
    assert [finding.name for finding in report.findings] == ["moved_labels"]
    assert report.usable
    assert [finding.name for finding in check_labels(path, None, None).findings] == ["moved_labels"]
    assert mend_copy(path, tmp_path / "fixed" / "m.nii.gz", Mending()) == ["moved_labels"]
    mended = nib.load(tmp_path / "fixed" / "m.nii.gz")
    assert mended.get_data_dtype().kind in "iu"
    np.testing.assert_array_equal(np.asarray(mended.dataobj), labels)
    np.testing.assert_allclose(mended.affine, AFFINE)
    assert check_scan(tmp_path / "fixed" / "m.nii.gz").findings == ()


def test_the_tolerance_is_the_stated_one():
    values = np.zeros((2, 8, 8), np.float32)
    values[:, 2:6, 2:6] = 1 + LABEL_TOLERANCE * 0.99
    assert label_values(values) == {0: 96, 1: 32}
    values[:, 2:6, 2:6] = 1 + LABEL_TOLERANCE * 1.01
    assert label_values(values) is None
