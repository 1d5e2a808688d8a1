"""Tables as newcomers write them: each fault is one finding, with the row that a spreadsheet shows."""

import codecs
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.checking.splits import check_splits
from medvol.core.errors import DatasetError
from medvol.datasets.nifti import NiftiDataset
from medvol.datasets.nifti_table import read_table
from medvol.datasets.sheet import read_sheet

SHAPE = (16, 12, 8)
AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two scans (RAS) with label maps: 2 the right kidney, 3 the left, 5 one voxel, 7 most of the scan."""
    folder = tmp_path_factory.mktemp("scans")
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 2:] = 7
    labels[2:5, 3:9, 1:7], labels[11:14, 3:9, 1:7], labels[7, 0, 2] = 3, 2, 5
    for number, name in enumerate(("a", "b")):
        voxels = np.random.default_rng(number).integers(-1000, 300, SHAPE).astype(np.int16)
        save(folder / f"{name}.nii.gz", voxels)
        save(folder / f"{name}_label.nii.gz", labels)
    save(folder / "empty.nii.gz", np.zeros(SHAPE, np.uint8))
    save(folder / "other.nii.gz", labels[::2])
    return folder


def save(path, array):
    image = nib.Nifti1Image(array, AFFINE)
    image.set_qform(AFFINE, 1)
    nib.save(image, path)


GOOD = "a.nii.gz,a_label.nii.gz,2,right kidney"
HEAD = "image,mask,label,target"


def check(root, text, name="t.csv"):
    """Findings without their split, as (name, place after the file, detail)."""
    table = root / name
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    report = check_splits({"table": NiftiDataset(str(root), str(table))}, compare=False)
    strip = f"table: {table}"
    return [(f.name, f.place.removeprefix(strip).lstrip(": "), f.detail) for f in report.findings]


ROWS = {
    "label_not_in_the_mask": ("b.nii.gz,b_label.nii.gz,9,spleen", "bad_case", "label 9 of 'spleen' is not in"),
    "swapped": ("b_label.nii.gz,b.nii.gz,2,spleen", "bad_case", "image and mask are not swapped"),
    "one_file": ("b.nii.gz,b.nii.gz,2,spleen", "bad_row", "the file of the image"),
    "empty_mask": ("b.nii.gz,empty.nii.gz,,spleen", "bad_case", "which holds 0 alone"),
    "other_grid": (
        "b.nii.gz,other.nii.gz,2,spleen",
        "bad_case",
        "has shape (8, 12, 8) (Z, Y, X), its scan",
    ),
    "no_such_file": ("sub/b.nii.gz,b_label.nii.gz,2,spleen", "bad_row", "there is no such file"),
    "backslash": ("sub\\b.nii.gz,b_label.nii.gz,2,spleen", "bad_row", "with / between folders"),
    "label_by_name": ("b.nii.gz,b_label.nii.gz,spleen,spleen", "bad_row", "label is 'spleen'; write values above 0"),
    "float_label": ("b.nii.gz,b_label.nii.gz,2.0,spleen", "bad_row", "label is '2.0'; write it as 2"),
    "decimal_comma": ('b.nii.gz,b_label.nii.gz,"2,0",spleen', "bad_row", "label is '2,0'; write it as 2"),
    "one_voxel": ("b.nii.gz,b_label.nii.gz,5,spleen", "small_target", "'spleen' has 1 voxel"),
    "most_of_the_scan": ("b.nii.gz,b_label.nii.gz,7,spleen", "large_target", "'spleen' takes 69% of the scan"),
    "repeated": (GOOD, "repeated_row", "in the scan of row 2 again; delete one of them"),
    "contradicted": ("a.nii.gz,a_label.nii.gz,3,right kidney", "repeated_row", "one of them is wrong"),
    "renamed": ("a.nii.gz,a_label.nii.gz,2,spleen", "other_name", "row 2 says 'right kidney'"),
    "swapped_sides": ("a.nii.gz,a_label.nii.gz,7,left kidney", "swapped_sides", "names are swapped"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_row_among_good_ones(root, name):
    row, code, detail = ROWS[name]
    head, good = (HEAD, GOOD)
    if name == "swapped_sides":
        good = "a.nii.gz,a_label.nii.gz,3,right kidney"
        row = "a.nii.gz,a_label.nii.gz,2,left kidney"
    found = [one for one in check(root, f"{head}\n{good}\n\n{row}\n") if one[0] != "labels_as_scan"]
    assert [(one[0], one[1]) for one in found] == [(code, "row 4")]
    assert detail in found[0][2]


def test_a_sound_table_has_no_finding(root):
    rows = [GOOD, " b.nii.gz , b_label.nii.gz , 2;3 , kidneys ", "b.nii.gz,,,", ",,,"]
    assert check(root, "\n".join([HEAD, *rows[:2], rows[3]])) == []
    assert [one[:2] for one in check(root, "\n".join([HEAD, *rows]))] == [("bad_row", "row 4")]


def test_a_label_of_another_target_is_told_by_the_other_rows(root):
    rows = [f"{scan}.nii.gz,{scan}_label.nii.gz,{label},{name}" for scan in "ab" for label, name in KIDNEYS]
    more = [f"{row},again {number}" for number in range(2) for row in rows]
    text = "\n".join([f"{HEAD},query", *more, "b.nii.gz,b_label.nii.gz,3,right kidney,which one?"])
    found = [one for one in check(root, text) if one[0] == "other_name"]
    assert [one[1] for one in found] == ["row 10"]
    assert "its label 3 is 'left kidney' in 4 rows, and 'right kidney' is label 2 in 4" in found[0][2]


KIDNEYS = ((2, "right kidney"), (3, "left kidney"))


def test_a_label_that_rows_only_say_to_be_absent_is_named(root):
    """22 is a slip for 2: the right kidney is there, and the row would teach that it is not."""
    rows = ["image,mask,label,target,absent", "a.nii.gz,a_label.nii.gz,2,kidney_right,no"]
    rows += ["b.nii.gz,b_label.nii.gz,22,kidney_right,yes", "a.nii.gz,a_label.nii.gz,22,pelvic kidney,yes"]
    (root / "absent.csv").write_text("\n".join(rows))
    problems = NiftiDataset(str(root), str(root / "absent.csv")).find_problems()
    assert [(name, Path(place).name) for name, place, _ in problems] == [("unseen_target", "absent.csv: row 3")]
    assert problems[0][2] == (
        "no row asks for the label 22 where it is shown, so nothing tells that it is that of 'right kidney'; check the "
        "number"
    )


def test_columns_that_nothing_reads_are_named(root):
    found = check(root, f"{HEAD},verdict,comment\n{GOOD},corrected,fine\n")
    assert found == [("unread_column", "", "nothing reads the column 'verdict', 'comment'")]
    for head, near in (("Image,target", "image"), ("image,patient_id", "patient"), ("image,querry", "query")):
        found = check(root, f"{head}\na.nii.gz,b\n")
        assert [one[0] for one in found] == ["bad_layout"]
        assert f"did you mean '{near}'?" in found[0][2]
    assert "two columns are called 'mask'" in check(root, "image,mask,mask\na,b,c\n")[0][2]


def test_a_wrong_root_is_one_finding(root, tmp_path):
    table = root / "t.csv"
    table.write_text(f"{HEAD}\n{GOOD}\n" + "b.nii.gz,b_label.nii.gz,2,spleen\n" * 3)
    report = check_splits({"table": NiftiDataset(str(tmp_path), str(table))}, compare=False)
    assert [finding.name for finding in report.findings] == ["bad_layout"]
    assert "none of the 4 images is in" in report.findings[0].detail
    assert f"set root to {str(root)!r}" in report.findings[0].detail


FORMS = {
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "bars": lambda text: text.replace(",", "|").encode(),
    "blanks": lambda text: text.replace(",", ", ").encode(),
    "windows": lambda text: text.replace("\n", "\r\n").encode(),
    "old_mac": lambda text: text.replace("\n", "\r").encode(),
    "mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf16": lambda text: text.encode("utf-16"),
    "utf16_be": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "empty_lines": lambda text: ("\n\n" + text.replace("\n", "\n\n")).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_one_table(root, form):
    text = 'image,mask,label,query\na.nii.gz,a_label.nii.gz,2,"die Niere, rechts\nim Bild: größer"\n'
    (root / "f.csv").write_bytes(FORMS[form](text))
    (row,) = read_table(root / "f.csv", root)
    separator = {"semicolons": ";", "tabs": "\t", "bars": "|", "blanks": ", "}.get(form, ",")
    gap = "\n\n" if form == "empty_lines" else "\n"
    assert row.query == f"die Niere{separator} rechts{gap}im Bild: größer"
    assert (row.labels, row.number) == ((2,), 5 if form == "empty_lines" else 2)


UNREADABLE = {
    "latin": ("image,target\na,M\u00fcller\n".encode("latin-1"), "not UTF-8 text (byte 0xfc in line 2)"),
    "utf16_without_mark": ("image,target\na,b\n".encode("utf-16-le"), "seems to be UTF-16 without its mark"),
    "workbook": (b"PK\x03\x04" + bytes(100), "this is a workbook"),
    "two_delimiters": (b"image,target\na.nii.gz;liver\n", "row 2: its cells are separated by semicolons"),
    "open_quote": (b'image,target\na,b\n"a,b\na,b\n', "row 3: a quote is opened and not closed"),
    "too_many": (b"image,target\na,b\na,b,c\n", "row 3: not as many cells as the header has (3, not 2)"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_table_that_cannot_be_read_says_why(root, name):
    data, message = UNREADABLE[name]
    (row,) = check(root, data)
    assert row[0] == "bad_layout"
    assert message in row[2] or message in f"{row[1]}: {row[2]}"


def test_rows_of_json_are_numbered_by_index(root):
    image = {"image": "a.nii.gz", "mask": "a_label.nii.gz", "target": "liver"}
    text = json.dumps([{**image, "label": 2}, {**image, "label": 3.0}, {**image, "label": 9, "query": "x"}])
    found = check(root, text, "t.json")
    assert [(one[0], one[1]) for one in found] == [("bad_row", "[1]")]
    assert found[0][2] == "label is '3.0'; write it as 3"
    found = check(root, json.dumps([{**image, "label": 2}, {**image, "label": 9, "query": "x"}]), "t.json")
    assert [(one[0], one[1]) for one in found] == [("bad_case", "[1]")]


def test_the_data_set_and_the_check_call_a_row_alike(root):
    table = root / "t.csv"
    table.write_text(f"{HEAD}\n{GOOD}\nb.nii.gz,b_label.nii.gz,9,spleen\n")
    dataset = NiftiDataset(str(root), str(table))
    with pytest.raises(DatasetError) as caught:
        dataset[1]
    (finding,) = check_splits({"x": dataset}, compare=False).findings
    assert f"x: {caught.value}" == f"{finding.place}: {finding.detail}"
    assert dataset.case_source(1) == f"{table}: row 3"


CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(',;\t|"\n'), max_size=12)


@given(st.lists(st.tuples(CELL, CELL), max_size=6), st.sampled_from([",", ";", "\t", "|"]))
def test_what_a_spreadsheet_writes_is_read(tmp_path_factory, rows, delimiter):
    """Every cell comes back, blanks around it apart; numbers count the rows that were written."""
    import csv

    path = Path(tmp_path_factory.getbasetemp()) / "sheet.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("image", "query"), *rows])
    found = {row.number: tuple(row.cells.values()) for row in read_sheet(path, "image")}
    stripped = {n: (first.strip(), second.strip()) for n, (first, second) in enumerate(rows, start=2)}
    assert found == {number: cells for number, cells in stripped.items() if any(cells)}
