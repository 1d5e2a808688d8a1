"""Every damaged or odd file is refused by its own name, quickly, in one sentence; odd but sound files are read."""

import gzip
import resource
import struct
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medvol.core.errors import ScanError
from medvol.core.imaging import problems
from medvol.core.imaging.check import check_scan
from medvol.core.imaging.reading import read_volume

SHAPE = (16, 16, 12)


def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)


def nifti(path: Path, data=None, affine=None, edit=None, kind=nib.Nifti1Image) -> Path:
    """Write a sound NIfTI file, then edit bytes of it."""
    image = kind(voxels() if data is None else data, np.diag([0.8, 0.8, 2.5, 1]) if affine is None else affine)
    raw = bytearray(image.to_bytes())
    if edit:
        raw = edit(raw) or raw
    path.write_bytes(gzip.compress(bytes(raw), mtime=0) if path.name.endswith(".gz") else bytes(raw))
    return path


def field(offset: int, form: str, *values):
    """Overwrite a header field."""

    def edit(raw):
        struct.pack_into(form, raw, offset, *values)

    return edit


def both(*edits):
    def edit(raw):
        for one in edits:
            one(raw)

    return edit


def sform(*rows):
    return both(field(254, "<h", 1), field(252, "<h", 0), *(field(280 + 16 * i, "<4f", *r) for i, r in enumerate(rows)))


def cut_file(share: float):
    def make(path):
        nifti(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        return path

    return make


def flip_bits(path):
    nifti(path)
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 0xFF  # inside the stored checksum
    path.write_bytes(raw)
    return path


def flip_voxel_bits(path):
    """A damaged deflate stream in the middle."""
    nifti(path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0x55
    path.write_bytes(raw)
    return path


def inflates_hugely(path):
    """A small file that declares little and inflates to half a gigabyte."""
    raw = nib.Nifti1Image(voxels(), np.eye(4)).to_bytes()
    path.write_bytes(gzip.compress(raw + bytes(500_000_000), 9, mtime=0))
    return path


def nrrd(path: Path, edit=lambda text: text, data: bytes | None = None, compress=False) -> Path:
    text = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 16 16 12\n"
        "space directions: (0.8,0,0) (0,0.8,0) (0,0,2.5)\nkinds: domain domain domain\nendian: little\n"
        f"encoding: {'gzip' if compress else 'raw'}\nspace origin: (0,0,0)\n\n"
    )
    body = voxels().tobytes() if data is None else data
    path.write_bytes(edit(text).encode() + (gzip.compress(body, mtime=0) if compress and data is None else body))
    return path


def mha(path: Path, edit=lambda text: text, data: bytes | None = None) -> Path:
    text = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 0.8 0.8 2.5\nDimSize = 16 16 12\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(edit(text).encode() + (voxels().tobytes() if data is None else data))
    return path


def swap(old: str, new: str):
    return lambda text: text.replace(old, new)


P = problems
SHEAR = ((0.8, 0.2, 0, 0), (0, 0.8, 0, 0), (0, 0, 2.5, 0))
SINGULAR = ((0.8, 0.8, 0, 0), (0, 0, 0, 0), (0, 0, 2.5, 0))
MALFORMED = {
    "absent": ("x.nii.gz", lambda p: p, P.MissingScanError),
    "a name too long": ("x" * 300 + ".nii", lambda p: p, P.UnreadableScanError),
    "a folder": ("x.nii", lambda p: p.mkdir() or p, P.UnknownFormatError),
    "another suffix": ("x.png", lambda p: p.write_bytes(b"png") and p, P.UnknownFormatError),
    "empty": ("x.nii.gz", lambda p: p.touch() or p, P.EmptyFileError),
    "empty nrrd": ("x.nrrd", lambda p: p.touch() or p, P.EmptyFileError),
    "text": ("x.nii", lambda p: p.write_bytes(b"hello world, this is no scan" * 40) and p, P.BadMagicError),
    "three bytes": ("x.nii", lambda p: p.write_bytes(b"abc") and p, P.ShortHeaderError),
    "short header": ("x.nii", cut_file(0.03), P.ShortHeaderError),
    "short nifti-2 header": (
        "x.nii",
        lambda p: p.write_bytes(nifti(p, kind=nib.Nifti2Image).read_bytes()[:400]) and p,
        P.ShortHeaderError,
    ),
    "truncated": ("x.nii", cut_file(0.8), P.TruncatedScanError),
    "ends after the header": (
        "x.nii",
        lambda p: p.write_bytes(nifti(p).read_bytes()[:350]) and p,
        P.TruncatedScanError,
    ),
    "truncated then gzipped": ("x.nii.gz", lambda p: nifti(p, edit=lambda r: r[:-500]), P.TruncatedScanError),
    "half a gzip stream": ("x.nii.gz", cut_file(0.5), P.CorruptStreamError),
    "gzip without its end": ("x.nii.gz", cut_file(0.999), P.CorruptStreamError),
    "bad checksum": ("x.nii.gz", flip_bits, P.CorruptStreamError),
    "damaged stream": ("x.nii.gz", flip_voxel_bits, P.CorruptStreamError),
    "bytes too many": ("x.nii", lambda p: nifti(p, edit=lambda r: r + b"more"), P.OverlongScanError),
    "inflates hugely": ("x.nii.gz", inflates_hugely, P.OverlongScanError),
    "bad magic": ("x.nii", lambda p: nifti(p, edit=field(344, "4s", b"nope")), P.BadMagicError),
    "header of a pair": ("x.nii", lambda p: nifti(p, edit=field(344, "4s", b"ni1\x00")), P.BadMagicError),
    "bad header size": ("x.nii", lambda p: nifti(p, edit=field(0, "<i", 12345)), P.BadMagicError),
    "pixdim 0": ("x.nii", lambda p: nifti(p, edit=field(84, "<f", 0.0)), P.BadSpacingError),
    "pixdim NaN": ("x.nii", lambda p: nifti(p, edit=field(80, "<f", float("nan"))), P.BadSpacingError),
    "pixdim negative": ("x.nii", lambda p: nifti(p, edit=field(88, "<f", -2.5)), P.BadSpacingError),
    "pixdim infinite": ("x.nii", lambda p: nifti(p, edit=field(88, "<f", float("inf"))), P.BadSpacingError),
    "singular sform": ("x.nii", lambda p: nifti(p, edit=sform(*SINGULAR)), P.SingularAffineError),
    "sform of zeros": ("x.nii", lambda p: nifti(p, edit=sform(*[(0, 0, 0, 0)] * 3)), P.SingularAffineError),
    "sform with NaN": (
        "x.nii",
        lambda p: nifti(p, edit=sform((float("nan"), 0, 0, 0), *SHEAR[1:])),
        P.SingularAffineError,
    ),
    "parallel axes": (
        "x.nii",
        lambda p: nifti(p, edit=sform((0.8, 0.8, 0, 0), (0.1, 0.1, 0, 0), (0, 0, 2.5, 0))),
        P.SingularAffineError,
    ),
    "sheared sform": ("x.nii", lambda p: nifti(p, edit=sform(*SHEAR)), P.ShearedAffineError),
    "qform unlike sform": (
        "x.nii",
        lambda p: nifti(p, edit=both(field(252, "<h", 1), field(80, "<3f", 1.0, 1.0, 1.0), field(254, "<h", 1))),
        P.ConflictingAffinesError,
    ),
    "no orientation": (
        "x.nii",
        lambda p: nifti(p, edit=both(field(252, "<h", 0), field(254, "<h", 0))),
        P.NoOrientationError,
    ),
    "sform code 99": ("x.nii", lambda p: nifti(p, edit=field(254, "<h", 99)), P.BadHeaderError),
    "quaternion too long": (
        "x.nii",
        lambda p: nifti(p, edit=both(field(254, "<h", 0), field(252, "<h", 1), field(256, "<3f", 3.0, 3.0, 3.0))),
        P.BadHeaderError,
    ),
    "voxels before the header": ("x.nii", lambda p: nifti(p, edit=field(108, "<f", 10.0)), P.BadHeaderError),
    "voxels nowhere": ("x.nii", lambda p: nifti(p, edit=field(108, "<f", float("nan"))), P.BadHeaderError),
    "voxels far away": ("x.nii", lambda p: nifti(p, edit=field(108, "<f", 1e12)), P.BadHeaderError),
    "scaled by an infinite shift": (
        "x.nii",
        lambda p: nifti(p, edit=field(112, "<2f", 2.0, float("inf"))),
        P.BadHeaderError,
    ),
    "NaN voxels": ("x.nii", lambda p: nifti(p, np.full(SHAPE, np.nan, np.float32)), P.NonFiniteVoxelsError),
    "one infinite voxel": (
        "x.nii",
        lambda p: nifti(p, np.where(np.arange(16 * 16 * 12).reshape(SHAPE) == 7, np.inf, 0).astype(np.float32)),
        P.NonFiniteVoxelsError,
    ),
    "a series": ("x.nii", lambda p: nifti(p, np.zeros((8, 8, 4, 5), np.int16)), P.TimeSeriesError),
    "a 5D series": ("x.nii", lambda p: nifti(p, np.zeros((8, 8, 4, 1, 3), np.int16)), P.TimeSeriesError),
    "one slice without depth": ("x.nii", lambda p: nifti(p, np.zeros((8, 8), np.int16)), P.BadDimensionsError),
    "negative dimension": ("x.nii", lambda p: nifti(p, edit=field(42, "<h", -5)), P.BadDimensionsError),
    "no dimensions": ("x.nii", lambda p: nifti(p, edit=field(40, "<h", 0)), P.BadDimensionsError),
    "nine dimensions": ("x.nii", lambda p: nifti(p, edit=field(40, "<h", 9)), P.BadDimensionsError),
    "an axis of nothing": ("x.nii", lambda p: nifti(p, edit=field(46, "<h", 0)), P.BadDimensionsError),
    "RGB": (
        "x.nii",
        lambda p: nifti(p, np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))),
        P.ColourScanError,
    ),
    "complex": ("x.nii", lambda p: nifti(p, np.zeros(SHAPE, np.complex64)), P.ColourScanError),
    "unknown datatype": ("x.nii", lambda p: nifti(p, edit=field(70, "<h", 77)), P.UnknownDatatypeError),
    "bit datatype": ("x.nii", lambda p: nifti(p, edit=field(70, "<h", 1)), P.UnknownDatatypeError),
    "declares 4000 cubed": ("x.nii", lambda p: nifti(p, edit=field(42, "<3h", 4000, 4000, 4000)), P.TooLargeError),
    "declares 4000 cubed, gzipped": (
        "x.nii.gz",
        lambda p: nifti(p, edit=field(42, "<3h", 4000, 4000, 4000)),
        P.TooLargeError,
    ),
    "nrrd, wrong magic": ("x.nrrd", lambda p: p.write_bytes(b"NOTNRRD\n\n") and p, P.BadMagicError),
    "nrrd, header only": ("x.nrrd", lambda p: p.write_bytes(b"NRRD0004\ntype: short\n") and p, P.ShortHeaderError),
    "nrrd, truncated": ("x.nrrd", lambda p: nrrd(p, data=voxels().tobytes()[:-100]), P.TruncatedScanError),
    "nrrd, bytes too many": ("x.nrrd", lambda p: nrrd(p, data=voxels().tobytes() + b"xx"), P.OverlongScanError),
    "nrrd, half a gzip stream": (
        "x.nrrd",
        lambda p: nrrd(p, data=gzip.compress(voxels().tobytes())[:2000], compress=True),
        P.CorruptStreamError,
    ),
    "nrrd, not gzip at all": ("x.nrrd", lambda p: nrrd(p, data=b"plain" * 900, compress=True), P.CorruptStreamError),
    "nrrd, detached data gone": (
        "x.nhdr",
        lambda p: nrrd(p, swap("\n\n", "\ndata file: gone.raw\n\n"), data=b""),
        P.TruncatedScanError,
    ),
    "nrrd, four axes": (
        "x.nrrd",
        lambda p: nrrd(p, lambda t: t.replace("dimension: 3", "dimension: 4").replace("16 16 12", "16 16 12 5")),
        P.TimeSeriesError,
    ),
    "nrrd, vector": (
        "x.nrrd",
        lambda p: nrrd(
            p,
            lambda t: (
                t.replace("16 16 12", "3 16 16 4")
                .replace("kinds: domain", "kinds: vector domain")
                .replace("dimension: 3", "dimension: 4")
            ),
        ),
        P.ColourScanError,
    ),
    "nrrd, sizes of words": ("x.nrrd", lambda p: nrrd(p, swap("16 16 12", "a b c")), P.BadHeaderError),
    "nrrd, unknown type": ("x.nrrd", lambda p: nrrd(p, swap("type: short", "type: block")), P.UnknownDatatypeError),
    "nrrd, unknown encoding": ("x.nrrd", lambda p: nrrd(p, swap("encoding: raw", "encoding: hex")), P.BadHeaderError),
    "nrrd, no geometry": (
        "x.nrrd",
        lambda p: nrrd(p, swap("space directions: (0.8,0,0) (0,0.8,0) (0,0,2.5)\n", "")),
        P.NoOrientationError,
    ),
    "nrrd, huge": ("x.nrrd", lambda p: nrrd(p, swap("16 16 12", "40000 40000 40000")), P.TooLargeError),
    "mha, not one": ("x.mha", lambda p: p.write_bytes(b"junk" * 100) and p, P.BadMagicError),
    "mha, header only": ("x.mha", lambda p: p.write_bytes(b"NDims = 3\nDimSize = 1 1 1\n") and p, P.ShortHeaderError),
    "mha, truncated": ("x.mha", lambda p: mha(p, data=voxels().tobytes()[:-1]), P.TruncatedScanError),
    "mha, spacing 0": (
        "x.mha",
        lambda p: mha(p, swap("0.8 0.8 2.5", "0.8 0 2.5")),
        (P.BadSpacingError, P.BadHeaderError),
    ),
    "mha, colour": (
        "x.mha",
        lambda p: mha(p, swap("ElementType", "ElementNumberOfChannels = 3\nElementType")),
        P.ColourScanError,
    ),
    "mha, huge": ("x.mha", lambda p: mha(p, swap("16 16 12", "90000 90000 90000")), P.TooLargeError),
    "mhd, data gone": ("x.mhd", lambda p: mha(p, swap("LOCAL", "gone.raw"), data=b""), P.TruncatedScanError),
    "mha, two axes": (
        "x.mha",
        lambda p: mha(p, lambda t: t.replace("NDims = 3", "NDims = 2").replace("16 16 12", "16 192")),
        P.BadDimensionsError,
    ),
}


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.replace(" ", "-"))
def test_a_malformed_file_is_refused_by_name(case, tmp_path):
    name, make, error = MALFORMED[case]
    path = make(tmp_path / name)
    before, clock = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ScanError) as refusal:
        read_volume(path)
    assert time.process_time() - clock < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    assert isinstance(refusal.value, error), type(refusal.value)
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert len(message) - len(str(path)) < 240
    report = check_scan(path)
    assert not report.usable
    assert report.problem == refusal.value.code


def test_there_are_enough_malformed_files_and_every_problem_has_one():
    assert len(MALFORMED) >= 60
    expected = {e for _, _, error in MALFORMED.values() for e in (error if isinstance(error, tuple) else (error,))}
    named = {v for v in vars(problems).values() if isinstance(v, type) and issubclass(v, problems.RefusedScanError)}
    assert named - expected == {problems.RefusedScanError}
    assert len({error.code for error in named}) == len(named)


def test_a_small_budget_is_kept(tmp_path):
    path = nifti(tmp_path / "x.nii.gz")
    in_memory = 16 * 16 * 12 * 4  # voxels become float32
    read_volume(path, max_bytes=in_memory)
    with pytest.raises(problems.TooLargeError, match="12,287"):
        read_volume(path, max_bytes=in_memory - 1)


def test_odd_but_sound_files_are_read(tmp_path, caplog):
    plain = read_volume(nifti(tmp_path / "x.nii"))
    assert (plain.voxels == voxels()[::-1, ::-1].transpose(2, 1, 0)).all()
    nifti(tmp_path / "y.nii").rename(tmp_path / "y.nii.gz")
    assert (read_volume(tmp_path / "y.nii.gz").voxels == plain.voxels).all()
    assert "not gzipped" in caplog.text
    single = read_volume(nifti(tmp_path / "single.nii", voxels()[..., None]))
    assert (single.voxels == plain.voxels).all()
    second = read_volume(nifti(tmp_path / "two.nii.gz", kind=nib.Nifti2Image))
    assert (second.voxels == plain.voxels).all()
    scaled = read_volume(nifti(tmp_path / "scaled.nii", edit=field(112, "<2f", 0.5, -1024.0)))
    np.testing.assert_allclose(scaled.voxels, plain.voxels * 0.5 - 1024)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64", "int64"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_number_type_is_read(dtype, order, tmp_path):
    data = np.abs(voxels() % 200).astype(dtype)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(order))
    image = nib.Nifti1Image(data, np.eye(4), header, dtype=np.dtype(dtype))
    (tmp_path / "x.nii").write_bytes(image.to_bytes())
    volume = read_volume(tmp_path / "x.nii")
    np.testing.assert_array_equal(volume.voxels, data[::-1, ::-1].transpose(2, 1, 0).astype(np.float32))


def test_an_assumed_orientation_is_followed(tmp_path):
    path = nifti(tmp_path / "x.nii", edit=both(field(252, "<h", 0), field(254, "<h", 0)))
    lps = read_volume(path, assume_orientation="LPS")
    np.testing.assert_array_equal(lps.voxels, voxels().transpose(2, 1, 0))
    assert lps.spacing == pytest.approx((2.5, 0.8, 0.8))
    ras = read_volume(path, assume_orientation="RAS")
    np.testing.assert_array_equal(ras.voxels, voxels()[::-1, ::-1].transpose(2, 1, 0))
    pli = read_volume(path, assume_orientation="pli")
    np.testing.assert_array_equal(pli.voxels, voxels().transpose(2, 0, 1)[::-1])
    for wrong in ("LLS", "XYZ", "LP", ""):
        with pytest.raises(problems.NoOrientationError, match="three letters"):
            read_volume(path, assume_orientation=wrong)


def test_rounding_between_qform_and_sform_is_forgiven(tmp_path):
    image = nib.Nifti1Image(voxels(), np.diag([0.8, 0.8, 2.5, 1]))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine + 1e-4, 1)
    (tmp_path / "x.nii").write_bytes(image.to_bytes())
    read_volume(tmp_path / "x.nii")


def test_nan_voxels_take_a_value_on_request(tmp_path):
    data = voxels().astype(np.float32)
    data[0, 0, 0] = np.nan
    volume = read_volume(nifti(tmp_path / "x.nii", data), nan_to=-1024)
    assert volume.voxels[0, -1, -1] == -1024
    assert np.isfinite(volume.voxels).all()


def test_detached_and_compressed_files_are_read(tmp_path):
    # NRRD names the fastest axis first, so these bytes are an array (12, 16, 16) as they come.
    expected = np.frombuffer(voxels().tobytes(), np.int16).reshape(12, 16, 16)
    assert (read_volume(nrrd(tmp_path / "a.nrrd")).voxels == expected).all()
    assert (read_volume(nrrd(tmp_path / "b.nrrd", compress=True)).voxels == expected).all()
    (tmp_path / "d.raw").write_bytes(voxels().tobytes())
    detached = nrrd(tmp_path / "d.nhdr", swap("\n\n", "\ndata file: d.raw\n\n"), data=b"")
    assert (read_volume(detached).voxels == expected).all()
    for name in ("c.mha", "c.mhd"):
        sitk.WriteImage(sitk.GetImageFromArray(expected), str(tmp_path / name), useCompression=True)
        assert (read_volume(tmp_path / name).voxels == expected).all()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_mutated_files_raise_nothing_else(suffix, tmp_path):
    source = tmp_path / f"good{suffix}"
    if suffix.startswith(".nii"):
        nifti(source)
    else:
        (nrrd if suffix == ".nrrd" else mha)(source)
    good, rng = source.read_bytes(), np.random.default_rng(1)
    reference = read_volume(source)
    accepted = 0
    path = tmp_path / f"bad{suffix}"
    for _ in range(150):
        raw = bytearray(good)
        for position in rng.integers(0, min(len(raw), 352), rng.integers(1, 6)):
            raw[position] = rng.integers(0, 256)
        path.write_bytes(raw[: rng.integers(1, len(raw))] if rng.random() < 0.2 else raw)
        try:
            volume = read_volume(path, max_bytes=10_000_000)
        except ScanError:
            continue
        accepted += 1
        assert np.isfinite(volume.voxels).all()
        assert volume.voxels.ndim == reference.voxels.ndim
    assert accepted < 150
