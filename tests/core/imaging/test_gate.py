"""Every damaged file is refused by its own name, in one sentence, at once and without much memory."""

import gzip
import logging
import os
import time
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medvol.core.checking.catalogue import PROBLEMS
from medvol.core.checking.reports import Finding
from medvol.core.checking.scans import check_scan
from medvol.core.errors import ConfigError, ScanError
from medvol.core.imaging import problems as p
from medvol.core.imaging.dicom.problems import NoDicomError
from medvol.core.imaging.geometry import axis_codes
from medvol.core.imaging.reading import read_volume

MEGABYTE = 1024**2


def sform(matrix):
    """Header edit: the sform alone, with these columns."""

    def change(header):
        header["qform_code"] = 0
        header["sform_code"] = 1
        for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
            header[name][:3] = matrix[row]

    return change


def field(name, index, value):
    def change(header):
        header[name][index] = value

    return change


def codes(header):
    header["qform_code"] = header["sform_code"] = 0


def sizes(*values, kind=None):
    def change(header):
        header["dim"][: len(values)] = values
        if kind is not None:
            header["datatype"] = kind

    return change


def quaternion(header):
    header["sform_code"] = 0
    header["quatern_b"] = header["quatern_c"] = 0.9


def handedness(header):
    header["sform_code"] = 0
    header["pixdim"][0] = 7


def flipped_qform(header):
    header.set_qform(np.diag([0.8, 0.9, 2.5, 1]), 1)


def shifted_qform(header):
    header["qoffset_x"] += 3


def coarser_qform(header):
    spacing = header["pixdim"].copy()
    header.set_qform(np.diag([-1, -1, 1, 1.0]), 1)
    header["pixdim"] = spacing
    header["sform_code"] = 1
    header["srow_x"][0] = -1.3


def with_value(value, dtype=np.float32):
    def make(scans):
        voxels = scans.voxels(dtype)
        voxels[3, 4, 5] = value
        return scans.nifti(voxels)

    return make


HEADERS = {
    "pixdim 0": (field("pixdim", 3, 0), p.BadSpacingError),
    "pixdim NaN": (field("pixdim", 1, np.nan), p.BadSpacingError),
    "pixdim infinite": (field("pixdim", 2, np.inf), p.BadSpacingError),
    "pixdim of light years": (field("pixdim", 1, 1e19), p.BadSpacingError),
    "origin beyond the moon": (field("srow_x", 3, 1e12), p.SingularAffineError),
    "pixdim negative": (field("pixdim", 1, -0.8), p.BadSpacingError),
    "micrometres": (lambda header: header.set_xyzt_units("micron"), p.BadSpacingError),
    "metres": (lambda header: header.set_xyzt_units("meter"), p.BadSpacingError),
    "sform all zero": (sform(np.zeros((3, 3))), p.SingularAffineError),
    "sform without a column": (sform(np.diag([0.8, 0.9, 0])), p.SingularAffineError),
    "sform with two equal columns": (sform([[0.8, 0.8, 0], [0, 0, 0], [0, 0, 2.5]]), p.SingularAffineError),
    "sform NaN": (sform(np.diag([0.8, np.nan, 2.5])), p.SingularAffineError),
    "sform infinite": (sform(np.diag([0.8, np.inf, 2.5])), p.SingularAffineError),
    "origin NaN": (field("srow_z", 3, np.nan), p.SingularAffineError),
    "gantry tilt": (sform([[0.8, 0, 0], [0, 0.9, 0.6], [0, 0, 2.43]]), p.ShearedAffineError),
    "slightly sheared": (sform([[0.8, 0.01, 0], [0, 0.9, 0], [0, 0, 2.5]]), p.ShearedAffineError),
    "qform flips left and right": (flipped_qform, p.ConflictingAffinesError),
    "qform shifted": (shifted_qform, p.ConflictingAffinesError),
    "qform of other spacing": (coarser_qform, p.ConflictingAffinesError),
    "pixdim unlike sform": (sform(np.diag([0.5, 0.9, 2.5])), p.ConflictingAffinesError),
    "both codes 0": (codes, p.NoOrientationError),
    "sform code 9": (lambda header: header.__setitem__("sform_code", 9), p.BadHeaderError),
    "qfac 7": (handedness, p.BadHeaderError),
    "quaternion longer than one": (quaternion, p.BadHeaderError),
    "no dimensions": (field("dim", 0, 0), p.BadDimensionsError),
    "nine dimensions": (field("dim", 0, 9), p.BadDimensionsError),
    "two dimensions": (field("dim", 0, 2), p.BadDimensionsError),
    "an axis of size 0": (field("dim", 2, 0), p.BadDimensionsError),
    "an axis of negative size": (field("dim", 3, -12), p.BadDimensionsError),
    "a time series": (sizes(4, 16, 15, 3, 4), p.TimeSeriesError),
    "a vector field": (sizes(5, 16, 15, 4, 1, 3), p.TimeSeriesError),
    "RGB": (lambda header: header.__setitem__("datatype", 128), p.ColourScanError),
    "RGBA": (lambda header: header.__setitem__("datatype", 2304), p.ColourScanError),
    "complex": (lambda header: header.__setitem__("datatype", 32), p.ColourScanError),
    "bits": (lambda header: header.__setitem__("datatype", 1), p.UnknownDatatypeError),
    "float128": (lambda header: header.__setitem__("datatype", 1536), p.UnknownDatatypeError),
    "datatype 9999": (lambda header: header.__setitem__("datatype", 9999), p.UnknownDatatypeError),
    "datatype 0": (lambda header: header.__setitem__("datatype", 0), p.UnknownDatatypeError),
    "other magic": (lambda header: header.__setitem__("magic", b"abc"), p.BadMagicError),
    "half of a pair": (lambda header: header.__setitem__("magic", b"ni1"), p.BadMagicError),
    "other header size": (lambda header: header.__setitem__("sizeof_hdr", 347), p.BadMagicError),
    "voxels inside the header": (lambda header: header.__setitem__("vox_offset", 100), p.BadHeaderError),
    "voxels at NaN": (lambda header: header.__setitem__("vox_offset", np.nan), p.BadHeaderError),
    "voxels far away": (lambda header: header.__setitem__("vox_offset", 1e12), p.BadHeaderError),
    "voxels at half a byte": (lambda header: header.__setitem__("vox_offset", 352.5), p.BadHeaderError),
    "voxels after the end": (lambda header: header.__setitem__("vox_offset", 40_000), p.TruncatedScanError),
    "4000 cubed": (sizes(3, 4000, 4000, 4000), p.TooLargeError),
    "3.4 GB declared": (sizes(3, 1200, 1200, 1180), p.TooLargeError),
    "32767 cubed of doubles": (sizes(3, 32767, 32767, 32767, kind=64), p.TooLargeError),
    "1 GB declared": (sizes(3, 512, 512, 2048), p.TruncatedScanError),
    "one slice too many": (sizes(3, 16, 15, 13), p.TruncatedScanError),
    "one slice too few": (sizes(3, 16, 15, 11), p.OverlongScanError),
    "infinite slope": (lambda header: header.__setitem__("scl_slope", np.inf), p.BadHeaderError),
    "slope without intercept": (
        lambda h: (h.__setitem__("scl_slope", 2), h.__setitem__("scl_inter", np.nan)),
        p.BadHeaderError,
    ),
}
CONTENTS = {
    "NaN voxel": (with_value(np.nan), p.NonFiniteVoxelsError),
    "infinite voxel": (with_value(-np.inf), p.NonFiniteVoxelsError),
    "voxel that a sum cannot hold": (with_value(-3e38), p.NonFiniteVoxelsError),
    "voxel beyond float32": (with_value(1e300, np.float64), p.NonFiniteVoxelsError),
    "three bytes": (lambda scans: scans.nifti()[:3], p.ShortHeaderError),
    "half a header": (lambda scans: scans.nifti()[:200], p.ShortHeaderError),
    "header alone": (lambda scans: scans.nifti()[:348], p.TruncatedScanError),
    "half the voxels": (lambda scans: scans.nifti()[:3000], p.TruncatedScanError),
    "last byte lost": (lambda scans: scans.nifti()[:-1], p.TruncatedScanError),
    "one byte more": (lambda scans: scans.nifti() + b"\0", p.OverlongScanError),
    "text": (lambda scans: b"these are no voxels, " * 40, p.BadMagicError),
    "zeros": (lambda scans: bytes(4000), p.BadMagicError),
    "NIfTI-2, sizes that overflow": (
        lambda scans: scans.nifti(kind=nib.Nifti2Image, change=sizes(3, 2**32, 2**16, 2**16)),
        p.TooLargeError,
    ),
    "NIfTI-2, frames that overflow": (
        lambda scans: scans.nifti(kind=nib.Nifti2Image, change=sizes(5, 16, 15, 12, 2**32, 2**32)),
        p.TimeSeriesError,
    ),
    "NIfTI-2, line ends converted": (
        lambda scans: scans.nifti(kind=nib.Nifti2Image, eol_check=tuple(b"\n\n\x1a\n")),
        p.BadMagicError,
    ),
    "NIfTI-2, half a header": (lambda scans: scans.nifti(kind=nib.Nifti2Image)[:400], p.ShortHeaderError),
    "NIfTI-2, pixdim NaN": (
        lambda scans: scans.nifti(kind=nib.Nifti2Image, change=field("pixdim", 1, np.nan)),
        p.BadSpacingError,
    ),
}


def bomb(scans):
    """A header that declares little before 400 MB of zeros; 400 KB on disk."""
    return scans.zip(scans.nifti() + bytes(400 * MEGABYTE))


def deep_bomb(scans):
    """1 GB declared and possible, by its ratio, but not there."""
    header = scans.nifti(change=sizes(3, 512, 512, 2048))[:352]
    return scans.zip(header + bytes(MEGABYTE) + np.random.default_rng(0).bytes(2 * MEGABYTE))


STREAMS = {
    "gzip cut in half": (lambda scans: scans.zip(scans.nifti())[:3000], p.CorruptStreamError),
    "gzip without its trailer": (lambda scans: scans.zip(scans.nifti())[:-8], p.CorruptStreamError),
    "gzip with half a trailer": (lambda scans: scans.zip(scans.nifti())[:-3], p.CorruptStreamError),
    "gzip with a wrong CRC": (lambda scans: scans.flip(scans.zip(scans.nifti()), -6), p.CorruptStreamError),
    "gzip with a wrong length": (lambda scans: scans.zip_claiming(scans.nifti(), 99), p.CorruptStreamError),
    "gzip with a flipped bit": (lambda scans: scans.flip(scans.zip(scans.nifti()), 4000), p.CorruptStreamError),
    "gzip followed by text": (lambda scans: scans.zip(scans.nifti()) + b"text", p.CorruptStreamError),
    "gzip magic alone": (lambda scans: b"\x1f\x8b", p.CorruptStreamError),
    "gzip of another method": (lambda scans: b"\x1f\x8b\x07" + scans.zip(scans.nifti())[3:], p.CorruptStreamError),
    "gzip of nothing": (lambda scans: scans.zip(b""), p.ShortHeaderError),
    "bomb behind a small header": (bomb, p.OverlongScanError),
    "1 GB declared over 3 MB": (deep_bomb, p.TruncatedScanError),
}
KINDS = "vector domain domain domain"
NRRDS = {
    "another magic": (lambda s: b"NRRX" + s.nrrd()[4:], p.BadMagicError),
    "header cut": (lambda s: s.nrrd()[:60], p.ShortHeaderError),
    "no encoding": (lambda s: s.nrrd(encoding=None), p.BadHeaderError),
    "bzip2": (lambda s: s.nrrd(encoding="bzip2"), p.BadHeaderError),
    "text encoding": (lambda s: s.nrrd(encoding="ascii"), p.BadHeaderError),
    "no space": (lambda s: s.nrrd(space=None), p.NoOrientationError),
    "an unknown space": (lambda s: s.nrrd(space="scanner-xyz"), p.NoOrientationError),
    "no directions": (lambda s: s.nrrd(space_directions=None), p.NoOrientationError),
    "a direction of none": (lambda s: s.nrrd(space_directions="none (0,1,0) (0,0,1)"), p.NoOrientationError),
    "a direction of no length": (lambda s: s.nrrd(space_directions="(1,0,0) (0,0,0) (0,0,1)"), p.BadSpacingError),
    "a direction of letters": (lambda s: s.nrrd(space_directions="(a,0,0) (0,1,0) (0,0,1)"), p.BadHeaderError),
    "directions in a plane": (lambda s: s.nrrd(space_directions="(1,0,0) (1,1,0) (0,1,0)"), p.SingularAffineError),
    "sheared": (lambda s: s.nrrd(space_directions="(1,0,0) (0.1,1,0) (0,0,1)"), p.ShearedAffineError),
    "micrometres": (lambda s: s.nrrd(space_units='"um" "um" "um"'), p.BadSpacingError),
    "no sizes": (lambda s: s.nrrd(sizes=None), p.BadHeaderError),
    "sizes of letters": (lambda s: s.nrrd(sizes="16 x 12"), p.BadHeaderError),
    "a size of 5000 digits": (lambda s: s.nrrd(sizes=f"16 15 {'9' * 5000}"), p.BadHeaderError),
    "two sizes of three": (lambda s: s.nrrd(sizes="16 15"), p.BadHeaderError),
    "two axes": (lambda s: s.nrrd(dimension="2", sizes="16 180"), p.BadDimensionsError),
    "an axis of size 0": (lambda s: s.nrrd(sizes="16 0 12"), p.BadDimensionsError),
    "an axis of negative size": (lambda s: s.nrrd(sizes="16 -15 12"), p.BadDimensionsError),
    "sizes named twice": (lambda s: s.nrrd(content="x\nsizes: 4 4 4"), p.BadHeaderError),
    "a time series": (lambda s: s.nrrd(dimension="4", sizes="16 15 4 3", kinds=None), p.TimeSeriesError),
    "vectors": (lambda s: s.nrrd(dimension="4", sizes="3 16 15 4", kinds=KINDS), p.ColourScanError),
    "blocks": (lambda s: s.nrrd(type="block"), p.UnknownDatatypeError),
    "no byte order": (lambda s: s.nrrd(endian=None), p.BadHeaderError),
    "bytes to skip": (lambda s: s.nrrd(byte_skip="16"), p.BadHeaderError),
    "4000 cubed": (lambda s: s.nrrd(sizes="4000 4000 4000"), p.TooLargeError),
    "1 GB declared": (lambda s: s.nrrd(sizes="512 512 2048"), p.TruncatedScanError),
    "half the voxels": (lambda s: s.nrrd()[:-2000], p.TruncatedScanError),
    "one byte more": (lambda s: s.nrrd() + b"\n", p.OverlongScanError),
    "gzip cut": (lambda s: s.nrrd(s.zip(s.raw())[:-100], encoding="gzip"), p.CorruptStreamError),
    "gzip with a wrong CRC": (lambda s: s.nrrd(s.flip(s.zip(s.raw()), -6), encoding="gzip"), p.CorruptStreamError),
    "gzip followed by text": (lambda s: s.nrrd(s.zip(s.raw()) + b"text", encoding="gzip"), p.CorruptStreamError),
    "no gzip": (lambda s: s.nrrd(encoding="gzip"), p.CorruptStreamError),
    "gzip of too little": (lambda s: s.nrrd(s.zip(s.raw()[:-9]), encoding="gzip"), p.TruncatedScanError),
    "bomb": (lambda s: s.nrrd(s.zip(bytes(400 * MEGABYTE)), encoding="gzip"), p.OverlongScanError),
    "NaN voxel": (lambda s: s.nrrd(np.full(2880, np.nan, "<f4").tobytes(), type="float"), p.NonFiniteVoxelsError),
    "voxels in a file that is absent": (lambda s: s.nrrd(b"", data_file="gone.raw"), p.TruncatedScanError),
    "voxels in a file of impossible name": (lambda s: s.nrrd(b"", data_file="x" * 5000), p.TruncatedScanError),
    "voxels outside the folder": (lambda s: s.nrrd(b"", data_file="../gone.raw"), p.BadHeaderError),
    "voxels at an absolute path": (lambda s: s.nrrd(b"", data_file="/etc/hostname"), p.BadHeaderError),
}
METAS = {
    "text": (lambda s: b"these are no voxels, " * 40, p.BadMagicError),
    "header cut": (lambda s: s.meta()[:100], p.ShortHeaderError),
    "no data file": (lambda s: s.meta(ElementDataFile=None), p.ShortHeaderError),
    "three channels": (lambda s: s.meta(ElementNumberOfChannels="3"), p.ColourScanError),
    "channels of letters": (lambda s: s.meta(ElementNumberOfChannels="x"), p.ColourScanError),
    "spacing 0": (lambda s: s.meta(ElementSpacing="0.8 0 2.5"), p.BadSpacingError),
    "spacing negative": (lambda s: s.meta(ElementSpacing="0.8 -1 2.5"), p.BadSpacingError),
    "spacing NaN": (lambda s: s.meta(ElementSpacing="nan 1 1"), p.BadSpacingError),
    "no spacing": (lambda s: s.meta(ElementSpacing=None), p.BadSpacingError),
    "micrometres": (lambda s: s.meta(DistanceUnits="um"), p.BadSpacingError),
    "no matrix": (lambda s: s.meta(TransformMatrix=None), p.NoOrientationError),
    "a singular matrix": (lambda s: s.meta(TransformMatrix="1 0 0 1 0 0 0 0 1"), p.SingularAffineError),
    "a matrix of NaN": (lambda s: s.meta(TransformMatrix="nan 0 0 0 1 0 0 0 1"), p.SingularAffineError),
    "a sheared matrix": (lambda s: s.meta(TransformMatrix="1 0 0 0.1 1 0 0 0 1"), p.ShearedAffineError),
    "a matrix that scales": (lambda s: s.meta(TransformMatrix="2 0 0 0 1 0 0 0 1"), p.ConflictingAffinesError),
    "an unknown type": (lambda s: s.meta(ElementType="MET_STRING"), p.UnknownDatatypeError),
    "two axes": (lambda s: s.meta(NDims="2", DimSize="16 180"), p.BadDimensionsError),
    "a time series": (lambda s: s.meta(NDims="4", DimSize="16 15 4 3"), p.TimeSeriesError),
    "another number of sizes": (lambda s: s.meta(NDims="11"), p.BadHeaderError),
    "sizes of letters": (lambda s: s.meta(DimSize="16 15 x"), p.BadHeaderError),
    "sizes named twice": (lambda s: s.meta(Offset="0 0 0\nDimSize = 4 4 4"), p.BadHeaderError),
    "text encoding": (lambda s: s.meta(BinaryData="False"), p.BadHeaderError),
    "a header to skip": (lambda s: s.meta(HeaderSize="-1"), p.BadHeaderError),
    "intensities scaled": (lambda s: s.meta(ElementToIntensityFunctionSlope="2"), p.BadHeaderError),
    "compressed perhaps": (lambda s: s.meta(CompressedData="perhaps"), p.BadHeaderError),
    "4000 cubed": (lambda s: s.meta(DimSize="4000 4000 4000"), p.TooLargeError),
    "half the voxels": (lambda s: s.meta()[:-2000], p.TruncatedScanError),
    "one byte more": (lambda s: s.meta() + b"\n", p.OverlongScanError),
    "stream cut": (lambda s: s.meta(zlib.compress(s.raw())[:-100], CompressedData="True"), p.CorruptStreamError),
    "stream damaged": (
        lambda s: s.meta(s.flip(zlib.compress(s.raw()), 2000), CompressedData="True"),
        p.CorruptStreamError,
    ),
    "bomb": (
        lambda s: s.meta(zlib.compress(bytes(400 * MEGABYTE)), CompressedData="True"),
        p.OverlongScanError,
    ),
    "infinite voxel": (
        lambda s: s.meta(np.full(2880, np.inf, "<f4").tobytes(), ElementType="MET_FLOAT"),
        p.NonFiniteVoxelsError,
    ),
    "voxels in a file that is absent": (lambda s: s.meta(b"", ElementDataFile="gone.raw"), p.TruncatedScanError),
    "voxels in a list": (lambda s: s.meta(b"a.raw\nb.raw\n", ElementDataFile="LIST"), p.TruncatedScanError),
    "voxels outside the folder": (lambda s: s.meta(b"", ElementDataFile="/dev/zero"), p.BadHeaderError),
}


def all_cases():
    for name, (change, error) in HEADERS.items():
        make = lambda scans, change=change: scans.nifti(change=change)  # noqa: E731
        yield pytest.param(make, "scan.nii", error, id=f"nii: {name}")
        yield pytest.param(lambda scans, make=make: scans.zip(make(scans)), "scan.nii.gz", error, id=f"gz: {name}")
    for name, (make, error) in CONTENTS.items():
        yield pytest.param(make, "scan.nii", error, id=f"nii: {name}")
        yield pytest.param(lambda scans, make=make: scans.zip(make(scans)), "scan.nii.gz", error, id=f"gz: {name}")
    for cases, name in ((STREAMS, "scan.nii.gz"), (NRRDS, "scan.nrrd"), (METAS, "scan.mha")):
        for case, (make, error) in cases.items():
            yield pytest.param(make, name, error, id=f"{name[5:]}: {case}")
    for name in ("scan.nii", "scan.nii.gz", "scan.nrrd", "scan.mha"):
        yield pytest.param(lambda scans: b"", name, p.EmptyFileError, id=f"{name[5:]}: empty")
    yield pytest.param(lambda scans: scans.nifti(), "scan.dcm", NoDicomError, id="named scan.dcm")
    for name in ("scan.img", "scan.hdr", "scan.png", "scan", "scan.nii.bz2"):
        yield pytest.param(lambda scans: scans.nifti(), name, p.UnknownFormatError, id=f"named {name}")


CASES = list(all_cases())


def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


@pytest.fixture
def growth():
    """Megabytes by which this process grew at most since the test began."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return lambda: 0.0
    before = memory("VmRSS")
    return lambda: memory("VmHWM") - before


def test_there_are_enough_cases():
    assert len(CASES) >= 45
    assert len({case.id for case in CASES}) == len(CASES)


def test_every_refusal_has_its_case():
    named = {error for error in vars(p).values() if isinstance(error, type) and issubclass(error, p.RefusedScanError)}
    tested = {case.values[2] for case in CASES} - {NoDicomError} | {
        p.MissingScanError,
        p.UnreadableScanError,
        p.RefusedScanError,
    }
    assert named == tested
    assert len({error.code for error in named}) == len(named)
    assert all(
        f"|-- {error.__name__} " in p.__doc__ or f"`-- {error.__name__} " in p.__doc__
        for error in named - {p.RefusedScanError}
    )


@pytest.mark.parametrize(("make", "name", "error"), CASES)
def test_refused(make, name, error, scans, tmp_path, request):
    path = tmp_path / name
    path.write_bytes(make(scans))
    growth = request.getfixturevalue("growth")
    start = time.process_time()
    with pytest.raises(ScanError) as caught:
        read_volume(path)
    report = check_scan(path)
    assert time.process_time() - start < 2
    assert growth() < 300
    assert type(caught.value) is error
    check_sentence(caught.value, path)
    assert report.findings[0] == Finding(error.code, str(path), caught.value.detail)
    assert PROBLEMS[error.code].code.startswith("MV")
    assert not report.usable


def check_sentence(error, path):
    text = str(error)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(error.detail) < 300
    assert len(error.detail.split()) > 3
    assert not text.endswith(".")


def test_nothing_at_the_path(tmp_path):
    names = ("gone.nii", "no/folder.nrrd", "file/scan.nii", "a\0b.nii")
    for path in (tmp_path / name for name in names):
        (tmp_path / "file").write_bytes(b"x")
        with pytest.raises(p.MissingScanError) as caught:
            read_volume(path)
        check_sentence(caught.value, path)


def test_a_folder_and_a_pipe_are_no_scans(tmp_path):
    (tmp_path / "folder.nii").mkdir()
    os.mkfifo(tmp_path / "pipe.nii")
    for name, error in (("folder.nii", NoDicomError), ("pipe.nii", p.UnknownFormatError)):
        with pytest.raises(error) as caught:
            read_volume(tmp_path / name)
        check_sentence(caught.value, tmp_path / name)


def test_a_name_that_the_system_refuses(tmp_path):
    with pytest.raises(p.UnreadableScanError) as caught:
        read_volume(tmp_path / f"{'x' * 500}.nii")
    assert "File name too long" in str(caught.value)


def test_budget_is_judged_from_the_header_as_float32(scans, tmp_path):
    path = tmp_path / "scan.nii"
    path.write_bytes(scans.nifti())
    needed = 16 * 15 * 12 * 4
    assert read_volume(path, max_bytes=needed).shape == (12, 15, 16)
    with pytest.raises(p.TooLargeError, match="11,520 bytes; the budget is 11,519"):
        read_volume(path, max_bytes=needed - 1)


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
