"""Synthetic series: each comes out right, voxel by voxel in the world, or is refused by its own name."""

import logging
import sys
import zipfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import compress
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, RLELossless, generate_uid

from medvol.checking.findings import Finding
from medvol.checking.scans import check_scan
from medvol.core.errors import ConfigError, MissingExtraError, ScanError
from medvol.imaging.geometry import axis_codes, voxel_to_world
from medvol.imaging.reading import read_volume


def name_of(value: object) -> str:
    """Name of a test's parameter."""
    return str(getattr(value, "__name__", value))


def refusal(path: Path) -> Finding:
    """The one finding of a scan that is refused."""
    report = check_scan(path)
    assert report.fingerprint is None
    (finding,) = report.findings
    return finding


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "scan"


def check_voxels(volume, Series, count=6):
    """Every voxel lies where its intensity says."""
    assert axis_codes(volume.affine) == "LPS"
    assert count in volume.shape
    z, y, x = np.indices(volume.shape)
    world = voxel_to_world(volume.affine, np.stack([x, y, z], -1).reshape(-1, 3)) * [-1, -1, 1]
    assert np.array_equal(volume.voxels.ravel(), Series.intensity(world))


def test_a_plain_series(make_series, folder):
    volume = read_volume(make_series().write(folder))
    check_voxels(volume, make_series)
    assert volume.modality == "CT"
    assert volume.spacing == (3.0, 1.5, 2.0)
    # Corner voxel: LPS (-40, -30, 100) is RAS (40, 30, 100).
    assert volume.source.affine[:3, 3].tolist() == [40, 30, 100]


@pytest.mark.parametrize(
    "names", ["{:03d}".format, lambda k: f"{99 - k}.dcm", lambda k: f"{(k * 5) % 6}"], ids=["up", "down", "mixed"]
)
def test_file_names_do_not_matter(make_series, folder, names):
    check_voxels(read_volume(make_series().write(folder, names)), make_series)


def test_instance_numbers_do_not_matter(make_series, folder):
    series = make_series()
    for k, dataset in enumerate(series.slices):
        dataset.InstanceNumber = 100 - k
    check_voxels(read_volume(series.write(folder)), make_series)


def test_slope_and_intercept_of_each_slice(make_series, folder):
    series = make_series()
    for k, dataset in enumerate(series.slices):
        values = series.intensities(dataset)
        dataset.RescaleSlope, dataset.RescaleIntercept = (0.5, 0.25, 1, 0.125, 1, 0.5)[k], -1000 - k
        series.set_intensities(dataset, values)
    check_voxels(read_volume(series.write(folder)), make_series)


@pytest.mark.parametrize(("signed", "intercept"), [(1, 0), (1, -24), (0, -2000), (1, 500)])
def test_signed_and_unsigned(make_series, folder, signed, intercept):
    series = make_series()
    for dataset in series.slices:
        values = series.intensities(dataset)
        dataset.PixelRepresentation, dataset.RescaleIntercept = signed, intercept
        series.set_intensities(dataset, values)
    check_voxels(read_volume(series.write(folder)), make_series)


def test_signed_in_twelve_bits_with_rubbish_above(make_series, folder):
    """Bits above those stored may hold an old overlay."""
    series = make_series()
    for dataset in series.slices:
        values = series.intensities(dataset)
        dataset.PixelRepresentation, dataset.RescaleIntercept = 1, 0
        dataset.BitsStored, dataset.HighBit = 12, 11
        stored = np.rint(values).astype(np.int16)
        dataset.PixelData = ((stored & 0x0FFF) | 0x1000).astype("<u2").tobytes()
    check_voxels(read_volume(series.write(folder)), make_series)


def test_a_ct_is_in_hounsfield_units_however_it_is_displayed(make_series, folder):
    check_voxels(read_volume(make_series().each(PhotometricInterpretation="MONOCHROME1").write(folder)), make_series)


def test_an_mr_with_bright_small_values_is_turned_over(make_series, folder):
    series = make_series(modality="MR").each(BitsStored=12, HighBit=11)
    for dataset in series.slices:
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.PhotometricInterpretation = "MONOCHROME1"
        shown = np.arange(80).reshape(8, 10) * 10
        dataset.PixelData = (4095 - shown).astype("<u2").tobytes()
    volume = read_volume(series.write(folder))
    assert volume.modality == "MR"
    assert np.array_equal(volume.voxels[3], np.arange(80).reshape(8, 10) * 10)


@pytest.mark.parametrize(
    "orientation",
    [(r, 0, 0, 0, c, 0) for r in (1, -1) for c in (1, -1)]
    + [(0, r, 0, c, 0, 0) for r in (1, -1) for c in (1, -1)]
    + [(1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)],
)
def test_row_and_column_directions(make_series, folder, orientation):
    check_voxels(read_volume(make_series(orientation=orientation).write(folder)), make_series)


def test_rounded_positions(make_series, folder):
    """Positions rounded to a tenth of a millimetre lie on an even grid still."""
    series = make_series(count=7, step=0.625)
    for dataset in series.slices:
        dataset.ImagePositionPatient = [round(float(value), 1) for value in dataset.ImagePositionPatient]
    volume = read_volume(series.write(folder))
    assert volume.shape == (7, 8, 10)
    assert volume.spacing[0] == pytest.approx(0.625, abs=0.02)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed(make_series, folder, syntax):
    pytest.importorskip("openjpeg")
    series = make_series(shape=(64, 80))
    folder.mkdir()
    for k, dataset in enumerate(series.slices):
        path = series.write_instance(dataset, folder / f"{k}")
        packed = dcmread(path)
        compress(packed, syntax)
        packed.save_as(path)
    check_voxels(read_volume(folder), make_series)


def test_an_archive_with_subfolders_and_hostile_names(make_series, folder, tmp_path):
    series = make_series().write(folder)
    archive = tmp_path / "study.zip"
    names = ["../../escape", "/absolute", "C:\\drive", "a/b/c", "a/é", "plain"]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("readme.txt", "no DICOM" * 50)
        for name, path in zip(names, sorted(series.iterdir()), strict=True):
            file.write(path, name)
    before = sorted(tmp_path.rglob("*"))
    check_voxels(read_volume(archive), make_series)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_localizer_among_the_slices_is_left_aside(make_series, folder):
    """And does not decide that its series is no axial one."""
    series = make_series()
    scout = make_series(count=1, orientation=(0, 1, 0, 0, 0, -1), study=series.study)
    scout.each(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesInstanceUID=series.uid)
    scout.write(folder, "A scout {}".format)
    check_voxels(read_volume(series.write(folder)), make_series)
    make_series(count=5, study=series.study, number=9).write(folder / "other")
    check_voxels(read_volume(folder), make_series)


def test_the_largest_axial_volume_is_chosen(make_series, folder, caplog):
    """Of a thin stack with a gap, a coronal one, a thick one, a scout, and a report."""
    study = generate_uid()
    gap = make_series(count=14, study=study, number=1)
    del gap.slices[4]
    gap.write(folder / "gap")
    make_series(count=10, orientation=(1, 0, 0, 0, 0, -1), study=study, number=2).write(folder / "coronal")
    scout = make_series(count=9, study=study, number=4)
    scout.each(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]).write(folder / "scout")
    make_series(count=3, study=study, number=5).write(folder / "small")
    report = make_series(count=1, study=study, number=6)
    for name in ("Rows", "Columns", "PixelData"):
        del report.slices[0][name]
    report.each(Modality="SR").write(folder / "report")
    make_series(study=study).write(folder / "thick")
    with caplog.at_level(logging.WARNING):
        check_voxels(read_volume(folder), make_series)
    assert "series 1 (CT, 13 slices of 10 x 8) is larger, but is passed over: 1 slice(s) are missing" in caplog.text


@pytest.mark.parametrize("key", ["uid", "number", "description"])
def test_a_series_by_name(make_series, folder, key):
    study = generate_uid()
    wanted = make_series(study=study)
    make_series(count=20, study=study, number=8).write(folder / "other")
    wanted.write(folder / "wanted")
    name = {"uid": wanted.uid, "number": "3", "description": "Series 3"}[key]
    volume = read_volume(folder, series=name)
    check_voxels(volume, make_series)
    assert volume.source.series == name
    if key == "number":
        assert read_volume(folder, series=3).volume_id == volume.volume_id


def test_a_multi_frame_file(make_series, folder):
    highdicom = pytest.importorskip("highdicom")
    series = make_series().each(
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], KVP=120, AcquisitionDate="20240101", AcquisitionTime="120000",
        ContentDate="20240101", ContentTime="120000", PatientPosition="HFS", Laterality="",
    )  # fmt: skip
    files = [dcmread(path) for path in sorted(series.write(folder / "slices").iterdir(), reverse=True)]
    enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        files, series_instance_uid=generate_uid(), series_number=9,
        sop_instance_uid=generate_uid(), instance_number=1,
    )  # fmt: skip
    (folder / "frames").mkdir()
    enhanced.save_as(folder / "frames" / "enhanced.dcm")
    check_voxels(read_volume(folder / "frames" / "enhanced.dcm"), make_series)
    check_voxels(read_volume(folder / "frames"), make_series)


def shifted(series, axis, amount):
    for k, dataset in enumerate(series.slices):
        position = list(dataset.ImagePositionPatient)
        position[axis] += amount * k
        dataset.ImagePositionPatient = position


def missing(series):
    del series.slices[2:4]


def duplicate(series):
    series.slices.append(series.slices[2])


def acquisitions(series):
    for dataset in list(series.slices):
        copy = deepcopy(dataset)
        copy.SOPInstanceUID, copy.AcquisitionNumber = generate_uid(), 2
        series.slices.append(copy)


def tilt(series):
    shifted(series, 1, 0.8)


def uneven(series):
    series.slices[3].ImagePositionPatient[2] += 1.0


def orientation(series):
    series.slices[3].ImageOrientationPatient = [1, 0, 0, 0, 0.96, 0.28]


def fan(series):
    """Each slice is tilted by 0.5 degrees about its rows against the one before; the cosine of that is 0.99996."""
    for k, dataset in enumerate(series.slices):
        angle = np.radians(0.5 * k)
        dataset.ImageOrientationPatient = [1, 0, 0, 0, float(np.cos(angle)), float(np.sin(angle))]


def high_bits(series):
    series.each(BitsStored=12, HighBit=15)


def table(series):
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType, lut.LUTData = [4, 0, 16], "US", b"\0" * 8
    series.each(ModalityLUTSequence=[lut])


def skewed(series):
    series.each(ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0])


def frames(series):
    series.slices[3].FrameOfReferenceUID = generate_uid()


def sizes(series):
    series.slices[0].Rows, series.slices[0].Columns = 10, 8


def pixels(series):
    series.slices[0].PixelSpacing = [1.6, 2.0]


def no_position(series):
    del series.slices[1].ImagePositionPatient


def no_spacing(series):
    for dataset in series.slices:
        del dataset.PixelSpacing


def no_units(series):
    for dataset in series.slices:
        del dataset.RescaleIntercept


def zero_slope(series):
    series.slices[2].RescaleSlope = 0


def scout(series):
    series.each(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])


def one(series):
    del series.slices[1:]


def colour(series):
    series.each(PhotometricInterpretation="PALETTE COLOR")


def short(series):
    series.slices[2].PixelData = series.slices[2].PixelData[:80]


def bare(series):
    del series.slices[2].PixelData


def plan(series):
    for dataset in series.slices:
        del dataset.Rows


def segmentation(series):
    series.each(Modality="SEG")


REFUSED = {
    "missing_slices": [missing],
    "duplicate_instances": [duplicate],
    "several_acquisitions": [acquisitions],
    "gantry_tilt": [tilt],
    "inconsistent_spacing": [uneven],
    "mixed_orientation": [orientation, fan, frames],
    "mixed_sizes": [sizes, pixels],
    "missing_geometry": [no_position, no_spacing, skewed],
    "bad_rescale": [no_units, zero_slope],
    "localizer": [scout],
    "too_few_slices": [one],
    "colour": [colour],
    "bad_instance": [short, bare, high_bits, table],
    "no_image_series": [plan, segmentation],
}


@pytest.mark.parametrize(
    ("code", "spoil"),
    [(code, spoil) for code, spoils in REFUSED.items() for spoil in spoils],
    ids=name_of,
)
def test_refused(make_series, folder, code, spoil):
    series = make_series()
    spoil(series)
    series.write(folder)
    report = refusal(folder)
    assert report.name == code
    assert not report.detail[0].isupper()
    assert "IM0" not in report.detail
    with pytest.raises(ScanError) as raised:
        read_volume(folder)
    assert raised.value.code == code
    assert "\n" not in str(raised.value)


def test_missing_slices_are_counted(make_series, folder):
    series = make_series(count=9)
    del series.slices[5:7], series.slices[2]
    with pytest.raises(ScanError, match=r"3 slice\(s\) are missing, the first after 103\.00 mm"):
        read_volume(series.write(folder))


def test_two_series_of_one_size(make_series, folder):
    study = generate_uid()
    for number in (3, 4):
        make_series(study=study, number=number).each(SeriesDescription="Jane Doe thorax").write(folder / str(number))
    with pytest.raises(ScanError, match=r"series 3 \(CT, 6 slices of 10 x 8\); series 4 .*; set series") as raised:
        read_volume(folder)
    assert raised.value.code == "several_series"
    assert "Jane" not in str(raised.value)
    assert refusal(folder).name == "several_series"
    with pytest.raises(ScanError, match="2 series answer"):
        read_volume(folder, series="jane doe thorax")
    with pytest.raises(ScanError, match="no series answers to series='9'") as raised:
        read_volume(folder, series="9")
    assert raised.value.code == "no_such_series"
    check_voxels(read_volume(folder, series="4"), make_series)


def test_two_patients(make_series, folder):
    first, second = make_series(count=9), make_series()
    first.write(folder / "a")
    second.write(folder / "b")
    with pytest.raises(ScanError, match="several studies") as raised:
        read_volume(folder)
    for series in (first, second):  # both have the number 3, so only these tell them apart
        assert f", UID {series.uid})" in str(raised.value)
    check_voxels(read_volume(folder, series=second.uid), make_series)


def test_one_file_of_a_series(make_series, folder):
    make_series().write(folder)
    with pytest.raises(ScanError, match="it is one file of DICOM; name the folder that holds its series"):
        read_volume(next(folder.iterdir()))


def test_series_of_a_single_file(tmp_path):
    with pytest.raises(ConfigError, match="leave it out"):
        read_volume(tmp_path / "ct.nii.gz", series="3")


@pytest.mark.parametrize(
    ("name", "code"), [("empty", "no_dicom"), ("text.dcm", "no_dicom"), ("none", "missing"), ("x.dcm", "missing")]
)
def test_no_dicom(tmp_path, name, code):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    (tmp_path / "text.dcm").write_text("x" * 400)
    assert refusal(tmp_path / name).name == {"none": "missing"}.get(name, code)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, "1.2.840.10008.1.2.4.201", "1.2.3.4"])
def test_an_encoding_without_a_decoder(make_series, folder, syntax, monkeypatch):
    from pydicom.encaps import encapsulate

    series = make_series()
    folder.mkdir()
    for k, dataset in enumerate(series.slices):
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xc3" + bytes(60)])
        dataset["PixelData"].is_undefined_length = True
        series.write_instance(dataset, folder / f"{k}", syntax)
    assert refusal(folder).name in ("undecodable_pixels", "bad_instance")


def test_a_deflated_bomb_is_not_inflated(make_series, folder):
    series = make_series(count=2)
    folder.mkdir()
    for k, dataset in enumerate(series.slices):
        dataset.add_new(0x00420011, "OB", bytes(10_000_000))
        series.write_instance(dataset, folder / f"{k}", DeflatedExplicitVRLittleEndian)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000
    report = refusal(folder)
    assert report.name == "undecodable_pixels"
    assert "deflated" in report.detail


def test_a_compressed_image_larger_than_its_header(make_series, folder):
    pytest.importorskip("openjpeg")
    series = make_series(count=2, shape=(64, 80))
    folder.mkdir()
    for k, dataset in enumerate(series.slices):
        path = series.write_instance(dataset, folder / f"{k}")
        packed = dcmread(path)
        compress(packed, JPEG2000Lossless)
        data = bytearray(packed.PixelData)
        place = data.index(b"\xff\x4f\xff\x51") + 8
        data[place : place + 8] = np.array([60000, 60000], ">u4").tobytes()
        packed.PixelData = bytes(data)
        packed.save_as(path)
    report = refusal(folder)
    assert report.name == "bad_instance"
    assert "60000" in report.detail


def zip_of(path: Path, change: bytes = b"", **settings) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", bytes(128) + b"DICM" + change)
    return path


def test_archives_that_are_refused(tmp_path, make_series):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file, file.open("a", "w") as member:
        for _ in range(100):
            member.write(bytes(2**20))
    assert bomb.stat().st_size < 200_000
    torn = tmp_path / "torn.zip"
    torn.write_bytes(bomb.read_bytes()[:-30])
    (tmp_path / "text.zip").write_text("no archive")
    locked = bytearray(zip_of(tmp_path / "locked.zip").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(signature) + flags] |= 1
    (tmp_path / "locked.zip").write_bytes(bytes(locked))
    for name, words in {"bomb": "declares", "torn": "unpacked", "text": "unpacked", "locked": "password"}.items():
        report = refusal(tmp_path / f"{name}.zip")
        assert report.name == "bad_archive"
        assert words in report.detail


def test_members_without_a_name(make_series, folder, tmp_path):
    archive = tmp_path / "study.zip"
    series = make_series().write(folder)
    with zipfile.ZipFile(archive, "w") as file:
        for k, path in enumerate(sorted(series.iterdir())):
            info = zipfile.ZipInfo(path.name)
            info.filename = path.name if k else ""
            file.writestr(info, path.read_bytes())
    check_voxels(read_volume(archive), make_series)


def test_a_damaged_member(make_series, folder, tmp_path):
    archive = tmp_path / "study.zip"
    series = make_series().write(folder)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in series.iterdir():
            file.write(path, path.name)
    data = bytearray(archive.read_bytes())
    data[data.index(b"DICM") + 1500] ^= 1
    archive.write_bytes(bytes(data))
    assert refusal(archive).name == "bad_archive"


def test_frames_that_are_not_described(make_series, folder):
    """An old multi-frame file: no frame says where it lies. A huge number of frames costs nothing."""
    series = make_series(count=1).each(NumberOfFrames=2**31 - 1)
    assert refusal(series.write(folder)).name == "missing_geometry"


def test_without_pydicom(make_series, folder, monkeypatch):
    make_series().write(folder)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"medvol-r1\[dicom\]"):
        read_volume(folder)


def test_declared_sizes_are_judged_before_pixels_are_read(make_series, folder):
    series = make_series().each(Rows=60000, Columns=60000)
    report = refusal(series.write(folder))
    assert report.name == "too_large"


@pytest.mark.parametrize("seed", range(12))
def test_damaged_headers_end_in_a_named_refusal(make_series, folder, seed):
    """Twenty files with bytes changed at random: a volume or a refusal, nothing else."""
    rng = np.random.default_rng(seed)
    series = make_series(count=2)
    series.write(folder)
    good = (folder / "IM001").read_bytes()
    for _ in range(20):
        data = bytearray(good)
        for place in rng.integers(132, len(data) - 160, 4):
            data[place] = rng.integers(256)
        (folder / "IM001").write_bytes(bytes(data))
        report = check_scan(folder)
        assert (report.fingerprint is None) == bool(report.findings)
        assert all("\n" not in finding.detail for finding in report.findings)


@pytest.mark.real
def test_real_ct_lies_on_its_label(shared_data):
    """Twenty slices in JPEG 2000, of which a NIfTI label map on the same grid exists."""
    import nibabel as nib
    import SimpleITK as sitk

    from medvol.imaging.reading import read_mask

    folder = shared_data / "totalseg_ct_dicom"
    volume = read_volume(folder / "dicom")
    label = nib.load(folder / "label.nii.gz")
    assert volume.modality == "CT"
    assert np.array_equal(volume.source.affine, label.affine)
    assert volume.source.shape == label.shape
    spleen = read_mask(folder / "label.nii.gz", volume, [1])
    assert spleen.sum() == 130634
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "dicom")))
    assert np.array_equal(volume.voxels, sitk.GetArrayFromImage(reader.Execute()))


@pytest.mark.real
def test_real_ct_lies_on_its_nrrd(shared_data):
    """Three slices from top to bottom, beside a segmentation object that is no image."""
    from medvol.imaging.reading import read_mask

    folder = shared_data / "dcmqi_ct_seg"
    volume = read_volume(folder)
    assert (volume.shape, volume.modality) == ((3, 512, 512), "CT")
    liver = read_mask(folder / "liver_seg.nrrd", volume)
    assert liver.sum() == 107098
    assert 0 < volume.voxels[liver].mean() < 100
