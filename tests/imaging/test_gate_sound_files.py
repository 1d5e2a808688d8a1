"""What the gate lets through, and how it is read: every format and voxel type, oddities that harm nobody."""

import gzip
import logging
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from damaged_nifti import codes, field, sizes

from medvol.core.errors import ConfigError
from medvol.imaging.formats import problems as p
from medvol.imaging.geometry import axis_codes
from medvol.imaging.reading import read_volume


def read(data, path, **options):
    path.write_bytes(data)
    return read_volume(path, **options)


def as_stored(volume):
    """Voxels of an LPS volume, (I, J, K)."""
    return volume.voxels.transpose(2, 1, 0)


def test_valid_scans_are_read(scans, tmp_path):
    expected = scans.voxels().astype(np.float32)
    for name, data in (
        ("a.nii", scans.nifti()),
        ("a.nii.gz", scans.zip(scans.nifti())),
        ("A.NII.GZ", scans.zip(scans.nifti())),
        ("two.nii", scans.nifti(kind=nib.Nifti2Image)),
        ("big.nii", scans.nifti(scans.voxels(">i2"), order=">")),
        ("big2.nii", scans.nifti(scans.voxels(">i2"), kind=nib.Nifti2Image, order=">")),
        ("a.nrrd", scans.nrrd()),
        ("windows.nrrd", scans.nrrd(separator="\r\n")),
        ("big.nrrd", scans.nrrd(scans.raw(">i2"), endian="big")),
        ("zip.nrrd", scans.nrrd(scans.zip(scans.raw()), encoding="gzip")),
        ("pairs.nrrd", scans.nrrd(content="x\n# sizes: 9 9 9\nsizes:=4 4 4")),
        (
            "single.nrrd",
            scans.nrrd(
                dimension="4",
                sizes="16 15 12 1",
                kinds="domain domain domain list",
                space_directions="(0.8,0,0) (0,0.9,0) (0,0,2.5) none",
            ),
        ),
        ("a.mha", scans.meta()),
        ("zip.mha", scans.meta(zlib.compress(scans.raw()), CompressedData="True")),
        ("big.mha", scans.meta(scans.raw(">i2"), BinaryDataByteOrderMSB="True")),
    ):
        volume = read(data, tmp_path / name)
        np.testing.assert_array_equal(as_stored(volume), expected, err_msg=name)
        np.testing.assert_allclose(volume.spacing, (2.5, 0.9, 0.8), rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["header.nhdr", "header.mhd"])
def test_voxels_in_a_file_of_their_own(scans, tmp_path, name):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "voxels.raw").write_bytes(scans.raw())
    make = (
        scans.nrrd(b"", data_file="sub/voxels.raw")
        if name.endswith("nhdr")
        else scans.meta(b"", ElementDataFile="sub/voxels.raw")
    )
    np.testing.assert_array_equal(as_stored(read(make, tmp_path / name)), scans.voxels())
    (tmp_path / "sub" / "voxels.raw").write_bytes(scans.raw()[:-1])
    with pytest.raises(p.TruncatedScanError):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["header.nhdr", "header.mhd"])
@pytest.mark.parametrize("words", ["%d" + 200_000 * " " + "x", 400 * "%d" + 500 * " " + "x"], ids=["long", "many"])
def test_a_name_that_no_file_can_have_is_refused_at_once(scans, tmp_path, name, words):
    """Matched as the name of a series of files, either of them would take hours."""
    make = scans.nrrd(b"", data_file=words) if name.endswith("nhdr") else scans.meta(b"", ElementDataFile=words)
    (tmp_path / name).write_bytes(make)
    with pytest.raises((p.BadHeaderError, p.TruncatedScanError), match=r"letters|one number only"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize(
    "kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_every_voxel_type(tmp_path, kind, suffix):
    voxels = np.random.default_rng(1).integers(0, 120, (4, 5, 6)).astype(kind)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((1, 2, 3))
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
    np.testing.assert_array_equal(read_volume(tmp_path / f"scan{suffix}").voxels, voxels.astype(np.float32))


def test_a_name_may_lie_about_gzip(scans, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        plain = read(scans.nifti(), tmp_path / "plain.nii.gz")
        zipped = read(scans.zip(scans.nifti()), tmp_path / "zipped.nii")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "plain.nii.gz is not gzipped" in caplog.messages[0]
    assert "zipped.nii is gzipped" in caplog.messages[1]
    np.testing.assert_array_equal(plain.voxels, zipped.voxels)


def test_gzip_in_two_members(scans, tmp_path):
    data = scans.nifti()
    volume = read(scans.zip(data[:2000]) + scans.zip(data[2000:]), tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(as_stored(volume), scans.voxels())


def test_a_single_frame_is_a_volume(scans, tmp_path):
    volume = read(scans.nifti(change=sizes(5, 16, 15, 12, 1, 1)), tmp_path / "scan.nii")
    np.testing.assert_array_equal(as_stored(volume), scans.voxels())


def test_slope_and_intercept(scans, tmp_path):
    volume = read(scans.nifti(scl_slope=0.5, scl_inter=-1024), tmp_path / "scan.nii")
    np.testing.assert_array_equal(as_stored(volume), scans.voxels() * 0.5 - 1024)
    np.testing.assert_array_equal(as_stored(volume), nib.load(tmp_path / "scan.nii").get_fdata())
    for slope in (0, np.nan):
        volume = read(scans.nifti(scl_slope=slope, scl_inter=5), tmp_path / "scan.nii")
        np.testing.assert_array_equal(as_stored(volume), scans.voxels())


def test_assumed_orientation(scans, tmp_path):
    path = tmp_path / "scan.nii"
    path.write_bytes(scans.nifti(change=codes))
    volume = read_volume(path, assume_orientation="LPS")
    np.testing.assert_array_equal(as_stored(volume), scans.voxels())
    np.testing.assert_allclose(volume.spacing, (2.5, 0.9, 0.8), rtol=1e-6)
    flipped = read_volume(path, assume_orientation="ras")
    np.testing.assert_array_equal(as_stored(flipped), scans.voxels()[::-1, ::-1])
    turned = read_volume(path, assume_orientation="PIR")
    assert axis_codes(turned.source.affine) == "PIR"
    assert turned.shape == (15, 16, 12)
    for letters in ("", "L", "LLS", "LPX", "LPSS", "LRS"):
        with pytest.raises(p.NoOrientationError, match="three letters"):
            read_volume(path, assume_orientation=letters)


def test_an_assumed_orientation_never_overrules_the_header(scans, tmp_path):
    volume = read(scans.nifti(), tmp_path / "scan.nii", assume_orientation="RAS")
    np.testing.assert_array_equal(as_stored(volume), scans.voxels())


def test_nan_may_be_replaced(scans, tmp_path):
    voxels = scans.voxels(np.float32)
    voxels[1, 2, 3], voxels[4, 5, 6] = np.nan, np.inf
    volume = as_stored(read(scans.nifti(voxels), tmp_path / "scan.nii", nan_to=-1024))
    assert volume[1, 2, 3] == volume[4, 5, 6] == -1024
    assert np.isfinite(volume).all()
    with pytest.raises(p.NonFiniteVoxelsError, match="2 of 2,880"):
        read_volume(tmp_path / "scan.nii")
    for unusable in (np.nan, -np.inf, 1e39):
        with pytest.raises(ConfigError, match="nan_to"):
            read_volume(tmp_path / "scan.nii", nan_to=unusable)


@pytest.mark.parametrize("absent", ["qform_code", "sform_code"])
def test_one_of_the_two_affines_is_enough(scans, tmp_path, absent):
    volume = read(scans.nifti(**{absent: 0}), tmp_path / "scan.nii")
    np.testing.assert_allclose(volume.source.affine, scans.affine, atol=1e-5)


def test_float_noise_between_the_affines(scans, tmp_path):
    """A tilt of 0.01 degrees in LPS: the quaternion's real part is lost in float32."""
    tilt = np.radians(0.01)
    affine = scans.affine.copy()
    affine[:3, :3] = [[-1, tilt, 0], [-tilt, -1, 0], [0, 0, 1]] @ np.diag([0.8, 0.9, 2.5])

    def both(header):
        header.set_sform(affine, 1)
        header.set_qform(affine, 1)

    volume = read(scans.nifti(change=both), tmp_path / "scan.nii")
    assert 0 < np.abs(nib.load(tmp_path / "scan.nii").get_qform() - volume.source.affine).max() < 1e-2
    np.testing.assert_allclose(volume.source.affine, affine, atol=1e-5)


def test_a_missing_handedness_means_one(scans, tmp_path):
    volume = read(scans.nifti(sform_code=0, change=field("pixdim", 0, 0)), tmp_path / "scan.nii")
    np.testing.assert_allclose(volume.source.affine, scans.affine, atol=1e-5)


def test_extensions_are_skipped(scans, tmp_path):
    data = scans.nifti(vox_offset=368)
    extended = (
        data[:348] + b"\1\0\0\0" + (16).to_bytes(4, "little") + (6).to_bytes(4, "little") + b"Jane Doe" + data[352:]
    )
    np.testing.assert_array_equal(as_stored(read(extended, tmp_path / "scan.nii")), scans.voxels())


def test_gzip_module_agrees(scans, tmp_path):
    path = tmp_path / "scan.nii.gz"
    volume = read(scans.zip(scans.nifti()), path)
    assert gzip.decompress(path.read_bytes())[352:] == as_stored(volume).astype("<i2").tobytes(order="F")
