"""Names of scan files: endings in any case, and what is left without them."""

from pathlib import Path

import pytest

from medvol.imaging.file_names import DICOM, NIFTI, SCANS, WHOLE_SCANS, ends_in, is_archive, is_scan, stem

STEMS = {
    "ct.nii.gz": "ct",
    "ct.NII.GZ": "ct",
    "ct.nii": "ct",
    "a.b.nrrd": "a.b",
    "ct.nhdr": "ct",
    "ct.mha": "ct",
    "ct.mhd": "ct",
    "ct.dcm": "ct",
    "ct.IMA": "ct",
    "study.zip": "study",
    "ct.nii.nrrd": "ct.nii",
    "ct.gz": "ct.gz",
    "folder": "folder",
    "p1/ct.nii.gz": "p1/ct",
    ".nii": "",
}


@pytest.mark.parametrize("name", STEMS)
def test_a_stem_is_the_name_without_its_ending(name):
    assert stem(name) == STEMS[name]


def test_every_ending_is_taken_off():
    assert {stem(f"scan{ending}") for ending in (*SCANS, *DICOM)} == {"scan"}
    assert set(WHOLE_SCANS) < set(SCANS)


def test_scans_are_told_by_their_names():
    assert [name for name in STEMS if is_scan(Path(name))] == [
        *("ct.nii.gz", "ct.NII.GZ", "ct.nii", "a.b.nrrd", "ct.nhdr", "ct.mha", "ct.mhd", "ct.nii.nrrd", "p1/ct.nii.gz")
    ]
    assert ends_in(Path("a/B.NII"), NIFTI)
    assert not ends_in(Path("a.nii/b"), NIFTI)
    assert [name for name in STEMS if is_archive(Path(name))] == ["study.zip"]
