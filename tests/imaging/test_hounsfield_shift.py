"""A CT that was stored with another zero is told, with what to do; an MR is not."""

import logging

import nibabel as nib
import numpy as np
import pytest

from medvol.checking.header_mending import Mending
from medvol.checking.mending import mend_copy
from medvol.checking.scans import check_scan
from medvol.cli import main
from medvol.datasets.phantom import PhantomDataset
from medvol.imaging.hounsfield import find_lost_sign, find_shift
from medvol.imaging.reading import read_volume

AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])


@pytest.fixture(scope="module")
def ct():
    """A phantom in HU, (I, J, K)."""
    return PhantomDataset(split="train", num_volumes=1, shape=(16, 64, 64))[0].volume.voxels.transpose(2, 1, 0)


def save(path, voxels):
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    return path


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.float32])
def test_a_shifted_ct_is_told_once_and_how_to_tell(ct, kind, tmp_path, caplog):
    path = save(tmp_path / "ct.nii", (ct + 1024).clip(0, 4095).astype(kind))
    with caplog.at_level(logging.WARNING):
        assert read_volume(path).modality == "other"
        read_volume(path)
    (message,) = caplog.messages
    assert message.startswith(f"{path} is read as other, but its intensities look like Hounsfield units plus 1024")
    assert "--hu_offset -1024" in message


def test_modality_ct_does_not_hide_it(ct, tmp_path, caplog):
    path = save(tmp_path / "ct.nii", (ct + 1024).astype(np.int16))
    with caplog.at_level(logging.WARNING):
        read_volume(path, modality="CT")
    assert "is read as CT, but its intensities look like Hounsfield units plus 1024" in caplog.text


def test_lost_signs_are_told(ct, tmp_path, caplog):
    path = save(tmp_path / "ct.nii", ct.astype(np.int16).view(np.uint16))
    with caplog.at_level(logging.WARNING):
        read_volume(path)
    assert "stored without a sign; if so, save them as int16" in caplog.text


def test_a_mended_copy_is_in_hounsfield_units(ct, tmp_path):
    path = save(tmp_path / "ct.nii.gz", (ct + 1024).astype(np.int16))
    (finding,) = check_scan(path).findings
    assert finding.name == "shifted_hu"
    assert finding.problem.warning
    assert mend_copy(path, tmp_path / "no" / "ct.nii.gz", Mending()) == []
    assert not (tmp_path / "no").exists()
    assert main(["check", str(path), "--fix", str(tmp_path / "fixed"), "--hu_offset", "-1024"]) == 0
    mended = read_volume(tmp_path / "fixed" / "ct.nii.gz")
    assert mended.modality == "CT"
    np.testing.assert_array_equal(mended.voxels.transpose(2, 1, 0), ct.astype(np.int16))
    assert nib.load(tmp_path / "fixed" / "ct.nii.gz").get_data_dtype() == np.int16


def test_an_offset_is_added_once(ct, tmp_path):
    """One that gives no Hounsfield units was added until the finding was gone."""
    path = save(tmp_path / "ct.nii", (ct + 1024).astype(np.int16))
    for wrong in (-24, -40):
        assert mend_copy(path, tmp_path / "fixed" / "ct.nii", Mending(hu_offset=wrong)) == []
    assert not (tmp_path / "fixed").exists()
    assert mend_copy(path, tmp_path / "fixed" / "ct.nii", Mending(hu_offset=-1000)) == ["shifted_hu"]
    moved = nib.load(tmp_path / "fixed" / "ct.nii").get_fdata() - nib.load(path).get_fdata()
    assert np.unique(moved).tolist() == [-1000]


def test_an_offset_is_not_added_to_a_ct_without_signs(ct, tmp_path, caplog):
    path = save(tmp_path / "ct.nii", ct.astype(np.int16).view(np.uint16))
    (finding,) = check_scan(path).findings
    assert finding.name == "lost_sign"
    caplog.clear()
    assert mend_copy(path, tmp_path / "fixed.nii", Mending(hu_offset=-1024)) == []
    assert not caplog.messages  # of a copy that nobody sees


def test_a_warning_that_stays_does_not_keep_others_from_being_mended(ct, tmp_path):
    path = save(tmp_path / "ct.nii", (ct + 1024).astype(np.int16))
    path = path.rename(tmp_path / "ct.nii.gz")
    assert mend_copy(path, tmp_path / "fixed" / "ct.nii.gz", Mending()) == ["misnamed"]


def test_hounsfield_units_and_labels_are_left_alone(ct):
    assert find_shift(ct) == ""
    assert find_shift(np.where(ct > 0, 1, 0)) == ""


def test_real_scans(shared_data):
    """Every CT plus 1024 is told, no CT as it is, and no MR."""
    for path in sorted((shared_data / "sts").glob("*_image.nii.gz"))[:24]:
        voxels = np.asarray(nib.load(path).dataobj)
        if "_CT_" in path.name:
            assert "plus 1024" in find_shift(voxels + 1024), path.name
            assert "without a sign" in find_lost_sign(voxels.astype(np.int16).view(np.uint16)), path.name
        assert find_shift(voxels) == find_lost_sign(voxels) == "", path.name
    mr = shared_data / "totalseg_mr_abdomen" / "image.nii.gz"
    assert find_shift(np.asarray(nib.load(mr).dataobj)) == ""
