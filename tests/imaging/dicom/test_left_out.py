"""Whatever lies in a folder or an archive and is not used is named; label maps beside scans are not asked."""

import json
import logging
import os
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from medvol.cli import main
from medvol.core.errors import ScanError
from medvol.imaging.folders import find_scans, is_batch, look_into
from medvol.imaging.left_out import is_clutter
from medvol.imaging.reading import read_volume
from medvol.imaging.writing import write_map, write_mask

BOX = '<think>here</think><answer>[{"slice": 2, "bbox_2d_list": [[200, 250, 800, 750]]}]</answer>'


def told(path: Path, caplog) -> str:
    """What reading a folder warns of."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read_volume(path)
    return caplog.text


@pytest.mark.parametrize("kind", ["meta", "implicit", "explicit"])
def test_slices_without_a_preamble_are_slices(make_series, tmp_path, kind):
    """The last three of 24; 21 would be a volume too."""
    series = make_series(count=24)
    folder = series.write(tmp_path / "scan")
    for k in (21, 22, 23):
        path = folder / f"IM{k:03d}"
        if kind == "meta":
            path.write_bytes(path.read_bytes()[132:])
        else:
            buffer = DicomBytesIO()
            buffer.is_little_endian, buffer.is_implicit_VR = True, kind == "implicit"
            write_dataset(buffer, series.slices[k])
            path.write_bytes(buffer.getvalue())
    volume = read_volume(folder)
    assert volume.shape[0] == 24
    assert volume.source.header.left_out == ()
    assert read_volume(make_series(count=24).write(tmp_path / "whole")).volume_id == volume.volume_id


def test_everything_else_is_named(make_series, tmp_path, caplog):
    series = make_series()
    folder = series.write(tmp_path / "scan")
    report = make_series(count=1)
    for keyword in ("Rows", "Columns", "PixelData"):
        del report.slices[0][keyword]
    for name, modality in (("report", "SR"), ("contours", "RTSTRUCT"), ("odd", "XX")):
        report.each(Modality=modality).write(folder, lambda k, name=name: name)
    make_series(count=1).each(Modality="SEG").write(folder / "deep" / "er", "seg{}.dcm".format)
    make_series(count=3, study=series.study, number=9).write(folder / "nine")
    scout = make_series(count=1, study=series.study).each(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    scout.each(SeriesInstanceUID=series.uid).write(folder, "scout{}".format)
    (folder / "notes.pdf").write_text("x" * 500)
    (folder / "IM006").write_bytes(b"")
    (folder / "mask.nii.gz").write_text("x" * 500)
    (folder / ".hidden").write_text("x")
    (folder / "line\nbreak\x1b[2J").write_text("x")
    os.symlink(folder / "nowhere", folder / "broken")
    os.symlink(tmp_path, folder / "round")
    for clutter in ("DICOMDIR", ".DS_Store", "Thumbs.db", "README.txt", "LICENSE", "._IM000"):
        (folder / clutter).write_text("x" * 500)
    volume = read_volume(folder)
    assert volume.shape[0] == 6
    assert {(entry.name, entry.reason) for entry in volume.source.header.left_out} == {
        ("report", "is a report"),
        ("contours", "is contours for radiotherapy"),
        ("odd", "is DICOM without an image"),
        ("deep/er/seg0.dcm", "is a segmentation object"),
        ("series 9 (CT, 3 slices of 10 x 8)", "is another series; set series to choose it"),
        ("scout0", "is a scout view"),
        ("notes.pdf", "is no DICOM"),
        ("IM006", "is empty"),
        ("mask.nii.gz", "is no DICOM, but can be named itself"),
        (".hidden", "is no DICOM"),
        ("line\nbreak\x1b[2J", "is no DICOM"),
        ("broken", "is a link to nothing"),
        ("round", "is a link to a folder, which is not followed"),
    }
    text = told(folder, caplog)
    assert "11 not used" in text
    assert "2 not used: scout0 is a scout view; series 9" in text
    assert "line\\nbreak\\x1b[2J is no DICOM" in text
    # A series that was named: the others were not wanted.
    assert {entry.name for entry in read_volume(folder, series="9").source.header.left_out}.isdisjoint({"scout0"})


def test_a_long_list_is_cut(make_series, tmp_path, caplog):
    folder = make_series().write(tmp_path / "scan")
    for k in range(40):
        (folder / f"note{k:02d}").write_text("x")
    text = told(folder, caplog)
    assert "40 not used: note00 is no DICOM" in text
    assert "and 28 more" in text
    assert "note12" not in text


def test_a_slice_cut_short_is_refused(make_series, tmp_path):
    """At the end of the series, where one slice less is a volume too; a mere start is named."""
    folder = make_series().write(tmp_path / "scan")
    data = (folder / "IM005").read_bytes()
    for keep in (400, len(data) // 2, len(data) - 1):
        (folder / "IM005").write_bytes(data[:keep])
        with pytest.raises(ScanError, match=r"cannot be parsed|ends before its image"):
            read_volume(folder)
    (folder / "IM005").write_bytes(data[:100])
    assert [entry.name for entry in read_volume(folder).source.header.left_out] == ["IM005"]


def make_pair(folder: Path, make_series, name: str, mask: str, filled: bool = True) -> None:
    volume = read_volume(make_series().write(folder.parent / f"{folder.name}-dicom"))
    folder.mkdir(exist_ok=True)
    image = nib.Nifti1Image(volume.voxels.transpose(2, 1, 0), volume.affine)
    nib.save(image, folder / name)
    voxels = np.zeros(volume.shape, bool)
    voxels[2:4, 2:5, 3:8] = filled
    write_mask(folder / mask, voxels, read_volume(folder / name))


@pytest.mark.parametrize(
    "mask", ["ct_label.nii.gz", "mask.nii.gz", "labels.nii", "p1-seg.nrrd", "liver.nii.gz", "tumour.mha"]
)
def test_a_label_map_beside_its_scan_is_not_asked(make_series, tmp_path, mask, caplog):
    make_pair(tmp_path / "p", make_series, "ct.nii.gz", mask)
    with caplog.at_level(logging.WARNING):
        assert find_scans(tmp_path / "p") == [tmp_path / "p" / "ct.nii.gz"]
    assert f"1 not used: {mask} is a label map; name the file itself" in caplog.text


def test_an_empty_mask_is_known_by_its_name(make_series, tmp_path):
    make_pair(tmp_path / "p", make_series, "ct.nii.gz", "ct_mask.nii.gz", filled=False)
    assert find_scans(tmp_path / "p") == [tmp_path / "p" / "ct.nii.gz"]


def test_scans_that_look_like_labels_are_not_lost(make_series, tmp_path, caplog):
    """A lone mask; masks by themselves; a scan whose name has a word of a label map."""
    make_pair(tmp_path / "p", make_series, "ct_seg_protocol.nii.gz", "other.nii.gz")
    (tmp_path / "p" / "other.nii.gz").unlink()
    make_pair(tmp_path / "q", make_series, "ct.nii.gz", "a_mask.nii.gz")
    (tmp_path / "q" / "ct.nii.gz").rename(tmp_path / "p" / "ct.nii.gz")
    assert [path.name for path in find_scans(tmp_path / "p")] == ["ct.nii.gz", "ct_seg_protocol.nii.gz"]
    with caplog.at_level(logging.WARNING):
        assert [path.name for path in find_scans(tmp_path / "q")] == ["a_mask.nii.gz"]
    assert "a_mask.nii.gz looks like a label map, but is taken for a scan" in caplog.text


def test_a_map_of_the_agreement_of_answers_is_no_scan(make_series, tmp_path):
    """medvol writes it beside the mask: shares from 0 to 1."""
    make_pair(tmp_path / "p", make_series, "ct.nii.gz", "ct_mask.nii.gz")
    volume = read_volume(tmp_path / "p" / "ct.nii.gz")
    shares = np.linspace(0, 1, volume.voxels.size, dtype=np.float32).reshape(volume.shape)
    write_map(tmp_path / "p" / "ct_the-spleen_0123456789ab.agreement.nii.gz", shares, volume)
    assert [path.name for path in find_scans(tmp_path / "p")] == ["ct.nii.gz"]


@pytest.mark.parametrize("deep", [False, True], ids=["beside the slices", "above them"])
def test_a_label_map_beside_dicom(make_series, tmp_path, deep, capsys, caplog):
    """The folder is the scan, the map is named; named itself it is answered."""
    folder = tmp_path / "p"
    volume = read_volume(make_series().write(folder / "slices" if deep else folder))
    write_mask(folder / "label.nii.gz", volume.voxels > -600, volume)
    assert find_scans(folder) == [folder]
    assert not is_batch(folder)
    choice = ["--policy", "ScriptedPolicy", "--policy.answers", json.dumps([BOX]), "--propagator", "ExtrudePropagator"]
    with caplog.at_level(logging.WARNING):
        assert main(["segment", str(folder), "the liver", "--out", str(tmp_path / "out"), *choice]) == 0
    assert "1 not used: label.nii.gz is no DICOM, but can be named itself" in caplog.text
    assert main(["segment", str(folder / "label.nii.gz"), "the liver", "--out", str(tmp_path / "two"), *choice]) == 0
    assert list((tmp_path / "two").glob("label*.json"))


def test_a_scan_beside_dicom_is_a_second_scan(make_series, tmp_path):
    folder = make_series().write(tmp_path / "p")
    image = nib.Nifti1Image(np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32), np.eye(4))
    nib.save(image, folder / "mr.nii.gz")
    assert find_scans(folder) == [folder, folder / "mr.nii.gz"]
    assert is_batch(folder)


def test_a_segmentation_object_beside_a_scan_is_no_scan(make_series, tmp_path):
    make_pair(tmp_path / "p", make_series, "ct.nii.gz", "liver.nii.gz")
    make_series(count=1).each(Modality="SEG").write(tmp_path / "p", "liver{}.dcm".format)
    contents = look_into(tmp_path / "p")
    assert [path.name for path in contents.scans] == ["ct.nii.gz"]
    assert {entry.name for entry in contents.left_out} == {"liver.nii.gz", "liver0.dcm"}


def test_what_lies_beside_scans_is_named(make_series, tmp_path):
    folder = tmp_path / "p"
    make_pair(folder, make_series, "ct.nii.gz", "liver.nii.gz")
    make_series().write(folder / "dicom")
    (folder / "more").mkdir()
    (folder / "ct.nii.gz").rename(folder / "more" / "ct2.nii.gz")
    make_pair(folder, make_series, "ct.nii.gz", "liver.nii.gz")
    (folder / "empty").mkdir()
    (folder / "table.csv").write_text("a,b")
    (folder / ".old.nii.gz").write_text("x")
    contents = look_into(folder)
    assert [path.name for path in contents.scans] == ["ct.nii.gz"]
    assert {entry.name for entry in contents.left_out} == {"liver.nii.gz", "table.csv", "dicom", "more", ".old.nii.gz"}


def test_clutter():
    assert is_clutter("__MACOSX/a/._IM0")
    assert is_clutter("a/b/Thumbs.db")
    assert is_clutter("NOTICE.txt")
    assert not is_clutter("readme_ct.nii.gz")
    assert not is_clutter("IM0001")


def test_rescaling_is_never_guessed(make_series, tmp_path):
    """Of an MR: in some slices only, or not made of numbers."""
    series = make_series(modality="MR")
    del series.slices[2].RescaleSlope, series.slices[2].RescaleIntercept
    with pytest.raises(ScanError, match="others have none"):
        read_volume(series.write(tmp_path / "some"))
    folder = make_series(modality="MR").write(tmp_path / "words")
    for path in folder.iterdir():
        data = path.read_bytes()
        place = data.index(b"\x28\x00\x53\x10DS")
        path.write_bytes(data[: place + 8] + b"x " + data[place + 10 :])
    with pytest.raises(ScanError, match="is no number"):
        read_volume(folder)


def pack(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_names_what_it_leaves_out(make_series, tmp_path):
    """Two slices of one name, another archive, a link, and clutter."""
    folder = make_series().write(tmp_path / "scan")
    members = [("same" if k < 2 else path.name, path.read_bytes()) for k, path in enumerate(sorted(folder.iterdir()))]
    inner = pack(tmp_path / "inner.zip", members)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(pack(tmp_path / "outer.zip", [*members, ("../../in.zip", inner.read_bytes())]), "a") as file:
        file.writestr(link, "/etc/passwd")
        file.writestr("__MACOSX/._IM000", "x")
    volume = read_volume(tmp_path / "outer.zip")
    assert volume.volume_id == read_volume(folder).volume_id
    assert [(entry.name, entry.reason) for entry in volume.source.header.left_out] == [
        ("link", "is a link, which is not followed in an archive"),
        ("../../in.zip", "is no DICOM, but can be named itself"),
    ]


def many(tmp_path: Path) -> Path:
    return pack(tmp_path / "a.zip", [(f"{k}", bytes(10 * 2**20)) for k in range(8)])


def shared_bytes(tmp_path: Path) -> Path:
    """Entries of the table that point to one and the same body."""
    path = pack(tmp_path / "a.zip", [("a", bytes(2**16))])
    data = path.read_bytes()
    table, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    tail = bytearray(data[end:])
    tail[8:12] = (3).to_bytes(2, "little") * 2
    tail[12:16] = (3 * (end - table)).to_bytes(4, "little")
    path.write_bytes(data[:table] + 3 * data[table:end] + bytes(tail))
    return path


def other_method(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a", b"x" * 5000)
    return tmp_path / "a.zip"


def long_table(tmp_path: Path) -> Path:
    path = pack(tmp_path / "a.zip", [("a" * 60_000, b"")])
    data = path.read_bytes()
    table, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    tail = bytearray(data[end:])
    tail[8:12] = (150).to_bytes(2, "little") * 2
    tail[12:16] = (150 * (end - table)).to_bytes(4, "little")
    path.write_bytes(data[:table] + 150 * data[table:end] + bytes(tail))
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (many, "in all; no scan does"),
        (shared_bytes, "share the same bytes"),
        (other_method, "not packed with deflate"),
        (long_table, "more files than a scan has"),
    ],
)
def test_archives_that_are_refused_before_they_are_unpacked(tmp_path, make, words):
    with pytest.raises(ScanError, match=words):
        read_volume(make(tmp_path))


def test_a_header_of_a_million_elements_in_an_archive(make_series, tmp_path):
    path = next(make_series(count=1).write(tmp_path / "scan").iterdir())
    data = path.read_bytes()
    place = data.index(b"\x10\x00\x10\x00PN")
    elements = b"\x09\x00\x01\x10LO\x00\x00" * 700_000
    archive = pack(tmp_path / "a.zip", [("a", data[:place] + elements + data[place:])])
    assert archive.stat().st_size < 100_000
    with pytest.raises(ScanError, match="far more elements"):
        read_volume(archive)
    item = b"\xfe\xff\x00\xe0\x08\x00\x00\x00\x08\x00\x60\x00CS\x00\x00"
    groups = b"\x00\x52\x30\x92SQ\x00\x00" + (60_000 * len(item)).to_bytes(4, "little") + 60_000 * item
    place = data.index(b"\xe0\x7f\x10\x00")
    archive = pack(tmp_path / "a.zip", [("a", data[:place] + groups + data[place:])])
    with pytest.raises(ScanError, match="far more elements"):
        read_volume(archive)
    (tmp_path / "scan" / path.name).write_bytes(data[:place] + groups + data[place:])
    with pytest.raises(ScanError, match="at a length that no scan needs"):
        read_volume(tmp_path / "scan")


def test_pixels_that_the_files_cannot_hold(make_series, tmp_path):
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    folder = tmp_path / "scan"
    folder.mkdir()
    for k, dataset in enumerate(make_series(count=2).each(Rows=9000, Columns=9000).slices):
        dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
        dataset["PixelData"].is_undefined_length = True
        make_series.write_instance(dataset, folder / str(k), JPEG2000Lossless)
    with pytest.raises(ScanError, match="bytes of pixels in"):
        read_volume(folder)
    assert dcmread(folder / "0").Rows == 9000
