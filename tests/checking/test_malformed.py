"""Sixty files with something wrong beyond what the reading gate sees: label maps, copies, tables, several at once.

The gate's own 240 damaged files go through ``check_scan`` in ``tests/imaging/test_gate.py``.
"""

import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_bytes import Scans

from medvol.checking.findings import millilitres
from medvol.checking.folders import check_files
from medvol.checking.label_maps import find_scan
from medvol.checking.scans import check_scan
from medvol.checking.splits import check_splits
from medvol.datasets.nifti import NiftiDataset
from medvol.imaging.file_names import stem
from medvol.imaging.folders import find_all_scans
from medvol.imaging.label_values import label_values

SCANS = Scans()
NAMES = '{"1": "left kidney", "2": "right kidney", "3": "liver"}'


def labels(dtype=np.uint8):
    """Stored axes run to left, back and head: large i is the patient's left."""
    values = np.zeros(Scans.shape, dtype)
    values[10:14, 3:9, 2:8] = 1
    values[2:5, 3:9, 2:8] = 2
    values[6:9, 10:13, 5:10] = 3
    return values


def with_value(value, dtype=np.int16):
    changed = labels(dtype)
    changed[0, 0, 0] = value
    return changed


def moved(mm):
    """Header edit: the whole grid ``mm`` further to the right."""

    def change(header):
        affine = SCANS.affine.copy()
        affine[0, 3] += mm
        header.set_sform(affine, 1)
        header.set_qform(affine, 1)

    return change


def coarser(header):
    affine = SCANS.affine @ np.diag([1.01, 1, 1, 1])
    header["pixdim"][1] *= 1.01
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)


def swapped():
    return np.array([0, 2, 1, 3], np.uint8)[labels()]


LABEL_MAPS = {
    "a slice less": (lambda: SCANS.nifti(labels()[..., :-1].copy()), {"other_shape"}),
    "a row more": (lambda: SCANS.nifti(np.pad(labels(), ((0, 0), (0, 1), (0, 0)))), {"other_shape"}),
    "axes in another order": (
        lambda: SCANS.nifti(labels().transpose(2, 1, 0).copy()),
        {"other_shape", "swapped_sides"},
    ),
    "1 mm beside": (lambda: SCANS.nifti(labels(), change=moved(1.0)), {"other_grid"}),
    "20 cm beside": (lambda: SCANS.nifti(labels(), change=moved(200.0)), {"other_grid"}),
    "a hundredth coarser": (lambda: SCANS.nifti(labels(), change=coarser), {"other_grid"}),
    "a negative label": (lambda: SCANS.nifti(with_value(-1)), {"negative_label"}),
    "a very negative label": (lambda: SCANS.nifti(with_value(-32768)), {"negative_label"}),
    "half a label": (lambda: SCANS.nifti(with_value(1.5, np.float32)), {"fractions"}),
    "labels interpolated": (lambda: SCANS.nifti((labels() * 0.7).astype(np.float32)), {"fractions"}),
    "labels as probabilities": (lambda: SCANS.nifti((labels() > 0) * np.float32(0.93)), {"fractions"}),
    "labels scaled in the header": (lambda: SCANS.nifti(labels(), scl_slope=0.5, scl_inter=0), {"fractions"}),
    "an unnamed label": (lambda: SCANS.nifti(with_value(9)), {"unnamed_label"}),
    "an unnamed label of a thousand": (lambda: SCANS.nifti(with_value(1000)), {"unnamed_label"}),
    "no label at all": (lambda: SCANS.nifti(np.zeros(Scans.shape, np.uint8)), {"empty_labels"}),
    "sides swapped": (lambda: SCANS.nifti(swapped()), {"swapped_sides"}),
    "a scan": (lambda: SCANS.nifti(SCANS.voxels()[::-1].copy()), {"many_labels"}),
    "NaN labels": (lambda: SCANS.nifti(with_value(np.nan, np.float32)), {"non_finite"}),
    "half of it": (lambda: SCANS.nifti(labels())[:1500], {"truncated"}),
    "no bytes": (lambda: b"", {"empty"}),
    "text": (lambda: b"this is no label map, " * 20, {"bad_magic"}),
    "no orientation": (lambda: SCANS.nifti(labels(), qform_code=0, sform_code=0), {"no_orientation"}),
    "negative and beside": (
        lambda: SCANS.nifti(with_value(-1), change=moved(9.0)),
        {"negative_label", "other_grid"},
    ),
    "unnamed, negative and swapped": (
        lambda: SCANS.nifti(np.where(with_value(-7) == -7, -7, swapped() + 8 * (labels() == 3)).astype(np.int16)),
        {"negative_label", "unnamed_label", "swapped_sides"},
    ),
}


@pytest.mark.parametrize("name", LABEL_MAPS)
@pytest.mark.parametrize("zipped", [False, True], ids=["nii", "gz"])
def test_label_maps(name, zipped, tmp_path):
    make, expected = LABEL_MAPS[name]
    (tmp_path / "a_image.nii").write_bytes(SCANS.nifti())
    data = make()
    path = tmp_path / f"a_label.nii{'.gz' * zipped}"
    path.write_bytes(SCANS.zip(data) if zipped and data else data)
    (tmp_path / "labels.json").write_text(NAMES)
    start = time.process_time()
    report = check_files(find_all_scans(tmp_path))
    assert time.process_time() - start < 2
    found = [finding for finding in report.findings if finding.name != "unseen_target"]  # not every map shows all names
    assert {finding.name for finding in found} == expected
    assert {finding.place for finding in found} == {str(path)}
    assert bool(report.errors) == (expected != {"empty_labels"})


def test_a_name_whose_label_no_map_holds_is_told_once(tmp_path):
    """30 is a slip for 3: neither map holds it, though both hold other labels of the file."""
    for name in "ab":
        (tmp_path / f"{name}_image.nii").write_bytes(SCANS.nifti())
        (tmp_path / f"{name}_label.nii").write_bytes(SCANS.nifti(np.where(labels() == 3, 0, labels()).astype(np.uint8)))
    (tmp_path / "labels.json").write_text(NAMES.replace('"3"', '"30"'))
    report = check_files(find_all_scans(tmp_path))
    told = [(finding.place, finding.detail) for finding in report.findings if finding.name == "unseen_target"]
    assert told == [
        (str(tmp_path / "labels.json"), "no label map that was read holds the label 30 ('liver')"),
    ]


def test_a_sound_pair_has_a_fingerprint_and_no_findings(tmp_path):
    (tmp_path / "a_image.nii").write_bytes(SCANS.nifti())
    (tmp_path / "a_label.nii").write_bytes(SCANS.nifti(labels()))
    (tmp_path / "labels.json").write_text(NAMES)
    report = check_files(find_all_scans(tmp_path))
    assert report.findings == ()
    scan, found = report.fingerprints
    assert (scan.kind, scan.shape, scan.orientation) == ("scan", (12, 15, 16), "LPS")
    assert scan.percentiles[0] == SCANS.voxels().min()
    assert scan.percentiles[2] == pytest.approx(np.median(SCANS.voxels()))
    voxel_ml = 0.8 * 0.9 * 2.5 / 1000
    sizes = {"left kidney": 4 * 6 * 6, "right kidney": 3 * 6 * 6, "liver": 3 * 3 * 5}
    assert found.label_ml == pytest.approx({name: count * voxel_ml for name, count in sizes.items()})
    assert json.loads(json.dumps(report.to_dict()))["usable"] is True


@pytest.mark.parametrize(
    ("scan", "label"),
    [
        ("image.nii", "label.nii.gz"),
        ("a_image.nii", "a_mask.nii"),
        ("volume-7.nii.gz", "labels-7.nii.gz"),
        ("imaging.nii.gz", "segmentation.nii.gz"),
        ("ct.nii", "ct_seg.nii"),
        ("P1.nii", "P1-Mask.nrrd"),
        ("scan_3.mha", "Label_3.nii"),
    ],
)
def test_a_label_map_finds_its_scan(scan, label):
    paths = {stem(name): Path(name) for name in (scan, label, "other.nii")}
    found = find_scan(Path(label), paths)
    assert found == Path(scan)
    assert find_scan(Path(scan), paths) is None


FILES = {
    "no orientation and NaN": (
        lambda: SCANS.nifti(with_value(np.nan, np.float32), qform_code=0, sform_code=0),
        "s.nii",
        ["no_orientation", "non_finite"],
    ),
    "every voxel the same": (lambda: SCANS.nifti(np.full(Scans.shape, 7, np.int16)), "s.nii", ["constant"]),
    "0 to 255": (
        lambda: SCANS.nifti(np.random.default_rng(0).permutation(2880).reshape(Scans.shape).astype(np.uint8)),
        "s.nii",
        ["windowed"],
    ),
    "gzipped under a plain name": (lambda: SCANS.zip(SCANS.nifti()), "s.nii", ["misnamed"]),
    "plain under a gzipped name": (lambda: SCANS.nifti(), "s.nii.gz", ["misnamed"]),
    "constant and misnamed": (
        lambda: SCANS.nifti(np.zeros(Scans.shape, np.int16)),
        "s.nii.gz",
        ["constant", "misnamed"],
    ),
    "NaN in NRRD": (lambda: SCANS.nrrd(np.full(2880, np.nan, "<f4").tobytes(), type="float"), "s.nrrd", ["non_finite"]),
    "NaN in MetaImage": (
        lambda: SCANS.meta(np.full(2880, np.nan, "<f4").tobytes(), ElementType="MET_FLOAT"),
        "s.mha",
        ["non_finite"],
    ),
    "no orientation in NRRD": (lambda: SCANS.nrrd(space=None), "s.nrrd", ["no_orientation"]),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name, tmp_path):
    make, file, expected = FILES[name]
    (tmp_path / file).write_bytes(make())
    found = [finding.name for finding in check_scan(tmp_path / file).findings]
    assert found[: len(expected)] == expected
    assert set(found) - set(expected) <= {"constant"}


ROW = {"image": "a_image.nii", "mask": "a_label.nii", "label": "3", "target": "liver"}
ROWS = {
    "no image": {"image": ""},
    "an image that is gone": {"image": "b.nii"},
    "a mask that is gone": {"mask": "b.nii"},
    "a mask of impossible name": {"mask": "x" * 5000},
    "label 0": {"label": "0"},
    "a label of letters": {"label": "liver"},
    "labels with a comma": {"label": "1,2"},
    "an unknown modality": {"modality": "PET"},
    "nothing asked": {"target": ""},
    "a target without a name": {"target": "_"},
}


def table(folder, rows):
    (folder / "a_image.nii").write_bytes(SCANS.nifti())
    (folder / "a_label.nii").write_bytes(SCANS.nifti(labels()))
    (folder / "t.json").write_text(json.dumps(rows))
    return NiftiDataset(str(folder), str(folder / "t.json"))


def test_every_bad_row_of_a_table_is_named(tmp_path):
    dataset = table(tmp_path, [ROW, *({**ROW, **change} for change in ROWS.values())])
    report = check_splits({"train": dataset}, compare=False, seconds=None)
    assert [finding.name for finding in report.findings] == ["bad_row"] * len(ROWS)
    for number, finding in enumerate(report.findings, start=1):
        assert finding.place == f"train: {tmp_path / 't.json'}[{number}]"
        assert not finding.detail.startswith("/")


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row(name, tmp_path):
    report = check_splits({"train": table(tmp_path, [{**ROW, **ROWS[name]}, ROW])}, compare=False, seconds=None)
    assert [finding.problem.code for finding in report.findings] == ["MV502"]


TABLES = {
    "not JSON": "[{",
    "no rows": "[]",
    "an object": "{}",
    "misspelt": '[{"image": "a", "lable": 1}]',
    "bytes": "\xff",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_bad_table(name, tmp_path):
    dataset = table(tmp_path, [ROW])
    (tmp_path / "t.json").write_bytes(TABLES[name].encode("latin-1"))
    report = check_splits({"train": dataset}, compare=False, seconds=None)
    assert [finding.name for finding in report.findings] == ["bad_layout"]


CASES = {
    "a label that is not there": ({"label": "77"}, ["bad_case"]),
    "no mask": ({"mask": ""}, ["no_target"]),
    "a damaged scan": ({"image": "cut.nii"}, ["truncated"]),
    "a damaged mask": ({"mask": "cut.nii"}, ["truncated"]),
    "a mask of another shape": ({"mask": "small.nii"}, ["bad_case"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_case(name, tmp_path):
    change, expected = CASES[name]
    (tmp_path / "cut.nii").write_bytes(SCANS.nifti()[:-7])
    (tmp_path / "small.nii").write_bytes(SCANS.nifti(labels()[:-1].copy()))
    report = check_splits({"train": table(tmp_path, [{**ROW, **change}])}, compare=False, seconds=None)
    assert [finding.name for finding in report.findings] == expected


def test_there_are_sixty_of_them():
    assert 2 * len(LABEL_MAPS) + len(FILES) + len(ROWS) + len(TABLES) + len(CASES) >= 60


def test_bad_names_of_labels_are_named_once(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}_image.nii").write_bytes(SCANS.nifti(np.roll(SCANS.voxels(), ord(name), axis=0)))
        (tmp_path / f"{name}_label.nii").write_bytes(SCANS.nifti(labels()))
    for text in ("[]", "{", '{"x": "liver"}', '{"1": 7}'):
        (tmp_path / "labels.json").write_text(text)
        findings = check_files(find_all_scans(tmp_path)).findings
        assert [finding.problem.code for finding in findings] == ["MV501"]
        assert findings[0].place == str(tmp_path / "labels.json")


def test_copies_are_named_whatever_they_are_called(tmp_path):
    from medvol.datasets.phantom_anatomy import draw_phantom

    phantom = draw_phantom(np.random.default_rng(3), (16, 48, 48))
    affine = np.diag([-1, -1, 1, 1.0]) @ np.diag([*phantom.spacing[::-1], 1])
    voxels = phantom.voxels.transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes())
    nib.save(
        nib.Nifti1Image(voxels[::-1], affine @ np.array([[-1, 0, 0, 47], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
        tmp_path / "c.nii.gz",
    )
    found = {(f.name, Path(f.place).name) for f in check_files(find_all_scans(tmp_path)).findings}
    assert found == {("same_file", "b.nii.gz"), ("same_scan", "c.nii.gz")}


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 ml"), (0.0456, "0.0456 ml"), (12.34, "12.3 ml"), (999.6, "1000 ml"), (1980.4, "1980 ml")]
)
def test_volumes_are_written_for_people(size, text):
    assert millilitres(size) == text


def test_what_a_label_map_is():
    assert label_values(labels().astype(np.float32)) == {0: 2880 - 144 - 108 - 45, 1: 144, 2: 108, 3: 45}
    assert label_values(SCANS.voxels().astype(np.float32)) is None
    assert label_values(SCANS.voxels().clip(0, 255).astype(np.float32)) is None
    assert label_values(labels() * np.float32(0.5)) is None
