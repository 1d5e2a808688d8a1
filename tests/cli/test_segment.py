"""``medvol segment``: one query, a folder, jobs, and an edited record."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medvol.cli import main
from medvol.cli.segment_options import parse_options

TOY = ("--policy", "ToyPolicy", "--propagator", "ToyPropagator")


def file_of(out: Path, start: str, ending: str = "json") -> Path:
    """The one file whose name starts so; twelve digits follow."""
    (path,) = out.glob(f"{start}_{'[0-9a-f]' * 12}.{ending}")
    return path


def segment(*arguments: object) -> int:
    return main(["segment", *map(str, arguments)])


def test_one_query(scan: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert segment(scan, "the cube", *TOY, "--out", out) == 0
    assert set(out.iterdir()) == {file_of(out, "ct_the-cube", end) for end in ("nii.gz", "json", "png")}
    mask = nib.load(file_of(out, "ct_the-cube", "nii.gz"))
    # Key slice 2 and one slice on either side, the middle half of both axes.
    expected = np.zeros((8, 8, 4), bool)
    expected[2:6, 2:6, 1:4] = True
    assert np.array_equal(np.asarray(mask.dataobj) > 0, expected)
    assert np.array_equal(mask.affine, nib.load(scan).affine)
    text = capsys.readouterr().out
    # 4 x 4 x 3 voxels of 2 x 2 x 5 mm; the ends of 4 x 4 pixels: see test_measurements
    assert "the cube: slice 2, 1 box, 48 voxels, 0.96 ml, mean 0, 10.0 x 10.0 mm" in text
    assert str(file_of(out, "ct_the-cube", "png")) in text


def test_a_rerun_skips_and_overwrite_does_not(
    scan: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment(scan, "the cube", *TOY, "--out", out) == 0
    before = file_of(out, "ct_the-cube").stat().st_mtime_ns
    capsys.readouterr()
    assert segment(scan, "the cube", *TOY, "--out", out) == 0
    text = capsys.readouterr().out
    assert "answered before" in text
    assert f"mask     {file_of(out, 'ct_the-cube', 'nii.gz')}" in text
    assert f"overlay  {file_of(out, 'ct_the-cube', 'png')}" in text
    assert file_of(out, "ct_the-cube").stat().st_mtime_ns == before
    assert segment(scan, "the cube", *TOY, "--out", out, "--overwrite") == 0
    assert file_of(out, "ct_the-cube").stat().st_mtime_ns > before


def test_an_edited_record_is_propagated_without_a_policy(
    scan: Path, toy: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    assert segment(scan, "the cube", *TOY, "--out", out) == 0
    record = file_of(out, "ct_the-cube")
    content = json.loads(record.read_text())
    content["evidence"]["key_slice"] = 0
    content["evidence"]["boxes_px"] = [[0, 0, 8, 8]]
    record.write_text(json.dumps(content))
    arguments = ("--evidence", record, "--propagator", "ToyPropagator", "--propagator.depth", 0, "--out", out)
    assert segment(*arguments) == 0
    assert int(np.asarray(nib.load(out / f"{record.stem}_edited.nii.gz").dataobj).sum()) == 64
    assert json.loads((out / f"{record.stem}_edited.json").read_text())["edited"] is True
    assert "--overwrite" in refused("segment", *arguments)
    assert segment(*arguments, "--overwrite") == 0


def test_a_record_is_followed_by_the_propagator_that_made_it(
    scan: Path, toy: Path, tmp_path: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment(scan, "the cube", *TOY, "--propagator.depth", 0, "--out", out) == 0
    record = file_of(out, "ct_the-cube")
    edit(record, key_slice=1)
    capsys.readouterr()
    assert segment("--evidence", record, "--out", out / "again") == 0
    assert "a mask was made with --propagator.depth 0, and new ones are made without" in capsys.readouterr().out
    # The middle half of both axes, on three slices, as the toy's default depth is 1.
    assert int(np.asarray(nib.load(out / "again" / f"{record.stem}_edited.nii.gz").dataobj).sum()) == 16 * 3
    written = json.loads((out / "again" / f"{record.stem}_edited.json").read_text())
    assert written["propagator"]["name"] == "ToyPropagator"
    content = json.loads(record.read_text())
    content["propagator"]["name"] = "Elsewhere\x1b[2J"
    record.write_text(json.dumps(content))
    said = refused("segment", "--evidence", record, "--out", out / "third")
    assert "was made by 'Elsewhere\\x1b[2J', which is not installed here" in said
    assert "--propagator" in said
    assert not (out / "third").exists()
    content["propagator"] = {}
    record.write_text(json.dumps(content))
    assert segment("--evidence", record, "--out", out / "fourth") == 0
    written = json.loads((out / "fourth" / f"{record.stem}_edited.json").read_text())
    assert written["propagator"]["name"] == "RegionPropagator"


def edit(record: Path, **changes: object) -> None:
    content = json.loads(record.read_text())
    content["evidence"].update(changes)
    record.write_text(json.dumps(content))


def test_an_edit_that_is_not_read_is_refused(
    scan: Path, toy: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    assert segment(scan, "the cube", *TOY, "--out", out) == 0
    record = file_of(out, "ct_the-cube")
    again = ("segment", "--evidence", record, "--propagator", "ToyPropagator", "--out", out / "again")
    told, whole = json.loads(record.read_text())["evidence"], record.read_text()
    for name, value in {
        "boxes_norm": [[0, 0, 1000, 1000]],
        "stored_slice": {"axis": 2, "index": 0},
        "box_corners_mm": [],
        "absent": True,
        "slice_centre_mm": [told["slice_centre_mm"][0] + 1, *told["slice_centre_mm"][1:]],
    }.items():
        edit(record, **{name: value})
        assert f"evidence.{name} was changed" in refused(*again)
        record.write_text(whole)
    edit(record, keyslice=0)
    assert "unknown key 'keyslice'" in (said := refused(*again))
    assert said.strip().endswith("did you mean 'key_slice'?")
    record.write_text(whole.replace('"key_slice": 2', '"key_slice": 2, "key_slice": 0'))
    assert "it has 'key_slice' twice; keep one" in refused(*again)
    assert not (out / "again").exists()
    record.write_text(whole)
    assert segment(*again[1:]) == 0


def test_a_record_that_was_edited_by_hand_is_told_when_it_is_found_again(
    scan: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment(scan, "the cube", *TOY, "--out", out) == 0
    record = file_of(out, "ct_the-cube")
    edit(record, key_slice=0)
    capsys.readouterr()
    assert segment(scan, "the cube", *TOY, "--out", out, "--html") == 0
    assert f"slice or boxes were changed since the mask was made; medvol segment --evidence {record}" in (
        capsys.readouterr().out
    )
    assert (
        "Slice or boxes were changed in the record since the mask was made" in record.with_suffix(".html").read_text()
    )


def test_a_record_is_followed_as_the_scan_was_read_for_it(scan: Path, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert segment(scan, "the cube", *TOY, "--out", out, "--modality", "MR") == 0
    record = file_of(out, "ct_the-cube")
    assert segment("--evidence", record, "--propagator", "ToyPropagator", "--out", out) == 0
    assert json.loads((out / f"{record.stem}_edited.json").read_text())["scan"]["modality"] == "MR"


def test_a_record_is_followed_with_the_settings_that_its_scan_needs(
    scan: Path, toy: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """A scan with NaN, whose header does not say which way its axes point: it is read with both settings or not."""
    image = nib.load(scan)
    voxels = np.asarray(image.dataobj, np.float32)
    voxels[0, 0, 0] = np.nan
    bare = nib.Nifti1Image(voxels, None)
    bare.header.set_zooms((2.0, 2.0, 5.0))
    bare.header["qform_code"] = bare.header["sform_code"] = 0
    nib.save(bare, scan)
    out = tmp_path / "out"
    assert segment(scan, "the cube", *TOY, "--out", out, "--nan_to", -1024, "--assume_orientation", "LPS") == 0
    record = file_of(out, "ct_the-cube")
    edit(record, key_slice=0)
    assert segment("--evidence", record, "--out", out) == 0
    told = json.loads((out / f"{record.stem}_edited.json").read_text())["scan"]["read_with"]
    assert told == {"nan_to": -1024.0, "assume_orientation": "LPS", "modality": "CT"}
    content = json.loads(record.read_text())
    content["scan"]["read_with"]["nan_to"] = "air"
    record.write_text(json.dumps(content))
    assert "scan.read_with.nan_to is 'air'" in refused("segment", "--evidence", record, "--out", out, "--overwrite")


@pytest.mark.parametrize("content", [b"", b"no mask", "half"], ids=["empty", "no mask", "half"])
@pytest.mark.parametrize("batch", [False, True], ids=["one", "a folder"])
def test_an_answer_whose_mask_is_damaged_is_made_again(
    scan: Path, toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | str, batch: bool
) -> None:
    out, where = tmp_path / "out", scan.parent if batch else scan
    assert segment(where, "the cube", *TOY, "--out", out) == 0
    mask = file_of(out, "ct_the-cube", "nii.gz")
    whole = mask.read_bytes()
    mask.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    os.utime(scan)  # so that a batch reads it again
    assert segment(where, "the cube", *TOY, "--out", out) == 0
    assert np.asarray(nib.load(mask).dataobj).sum() == 48
    assert content == b"" or "the question is asked again" in caplog.text


@pytest.mark.parametrize("batch", [False, True], ids=["one", "a folder"])
def test_a_mask_of_another_scan_is_not_replaced(
    scan: Path,
    toy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    batch: bool,
) -> None:
    out, where = tmp_path / "out", scan.parent if batch else scan
    assert segment(where, "the cube", *TOY, "--out", out) == 0
    mask = file_of(out, "ct_the-cube", "nii.gz")
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.eye(4)), mask)
    before = mask.read_bytes()
    os.utime(scan)
    assert segment(where, "the cube", *TOY, "--out", out) == (1 if batch else 2)
    assert "they must agree; move it away, or add --overwrite" in capsys.readouterr().err + caplog.text
    assert mask.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("overwite: true", "unknown key 'overwite'; did you mean 'overwrite'?"),
        ("zzz: 1", "unknown key 'zzz'; its settings"),
    ],
)
def test_a_key_of_a_file_of_options_that_is_none(
    scan: Path, toy: Path, tmp_path: Path, refused: Callable[..., str], line: str, said: str
) -> None:
    options = tmp_path / "options.yaml"
    options.write_text(f"policy: ToyPolicy\n{line}\n")
    assert said in refused("segment", scan, "the cube", "--config", options, "--out", tmp_path / "out")


def test_the_budget_of_a_scan(scan: Path, toy: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    asked = ("segment", scan, "the cube", *TOY, "--out", tmp_path / "out", "--max_bytes")
    assert "the budget is 1,023: crop it, or raise max_bytes" in refused(*asked, 1023)  # 8 x 8 x 4 voxels of four bytes
    assert segment(*asked[1:], 1024) == 0


@pytest.mark.parametrize(
    "option", [("--samples", 3), ("--strict",), ("--samples", 3, "--agreement_map"), ("--device", "cpu")]
)
def test_a_record_is_asked_nothing(option: tuple, refused: Callable[..., str]) -> None:
    assert f"{option[0]} is about the answers of a policy" in refused("segment", "--evidence", "a.json", *option)


def test_the_device_of_the_policy(scan: Path, toy: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    out = tmp_path / "out"
    asked = ("segment", scan, "the cube", "--policy", "bundled:best", "--out", out, "--device")
    assert "cannot compute on the device 'cuda:99'" in refused(*asked, "cuda:99")
    assert "device is 'gpu'; choose auto, cpu, cuda" in refused(*asked, "gpu")
    assert not out.exists()
    assert segment(scan, "the cube", *TOY, "--out", out, "--device", "cpu") == 0


def test_a_map_of_the_agreement(
    scan: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    out = tmp_path / "out"
    assert "add --samples 8" in refused("segment", str(scan), "the cube", *TOY, "--agreement_map")
    assert not out.exists()
    assert segment(scan, "the cube", *TOY, "--out", out, "--samples", 3, "--agreement_map") == 0
    path = file_of(out, "ct_the-cube", "agreement.nii.gz")
    assert str(path) in capsys.readouterr().out.replace("\n", "")
    mask = nib.load(file_of(out, "ct_the-cube", "nii.gz"))
    assert np.array_equal(np.asarray(nib.load(path).dataobj) == 1, np.asarray(mask.dataobj) > 0)
    again = (scan, "the cube", *TOY, "--out", out, "--samples", 3, "--agreement_map")
    assert segment(*again) == 0
    assert "answered before" in capsys.readouterr().out
    path.unlink()
    assert segment(*again) == 0
    assert path.exists()


def test_a_folder_goes_on_after_a_bad_scan(
    scan: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan.with_name("bad.nii.gz").write_bytes(b"no scan")
    out = tmp_path / "out"
    assert segment(scan.parent, "the cube", *TOY, "--out", out) == 1
    assert file_of(out, "ct_the-cube", "nii.gz").is_file()
    assert "1 done, 0 skipped, 1 failed" in capsys.readouterr().out
    scan.with_name("bad.nii.gz").unlink()
    assert segment(scan.parent, "the cube", *TOY, "--out", out) == 0
    assert "0 done, 1 skipped, 0 failed" in capsys.readouterr().out


def test_jobs(scan: Path, toy: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps([{"scan": "scans/ct.nii.gz", "queries": ["the cube", "the other cube"]}]))
    assert segment("--jobs", jobs, *TOY, "--out", tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2


def test_options_from_a_file(scan: Path, toy: Path, tmp_path: Path) -> None:
    config = tmp_path / "seg.yaml"
    config.write_text(
        "policy: {class_path: ToyPolicy, init_args: {answer: '<answer>[]</answer>'}}\n"
        "propagator: {class_path: ToyPropagator, init_args: {depth: 0}}\n"
        f"out: {tmp_path / 'out'}\n"
    )
    assert segment(scan, "the cube", "--config", config) == 0
    assert not np.asarray(nib.load(file_of(tmp_path / "out", "ct_the-cube", "nii.gz")).dataobj).any()


@pytest.mark.parametrize("query", ["null", "true", "5", "a: b", "[x", "{a: b}", "# x", "ToyPolicy"])
def test_a_query_is_text_whatever_it_looks_like(query: str, scan: Path, toy: Path, tmp_path: Path) -> None:
    assert segment(scan, query, *TOY, "--out", tmp_path / "out") == 0
    (record,) = (tmp_path / "out").glob("*.json")
    assert json.loads(record.read_text())["query"] == query


def test_an_answer_that_cannot_be_read_fails_the_case(
    scan: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(scan, "the cube", *TOY, "--policy.answer", "no idea", "--out", tmp_path / "out") == 1
    assert "no_answer" in capsys.readouterr().err
    (kept,) = (tmp_path / "out").iterdir()
    assert kept == file_of(tmp_path / "out", "ct_the-cube", "failed.json")
    content = json.loads(kept.read_text())
    assert (content["failure"], content["completion"], content["query"]) == ("no_answer", "no idea", "the cube")


def test_a_model_folder_names_the_policy(scan: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    text = refused("segment", scan, "the cube", "--policy", folder)
    assert str(folder) in text
    assert "config.json" in text


@pytest.mark.parametrize(
    "words",
    [
        ["-cOPTIONS"],
        ["-c=OPTIONS"],
        ["-c", "OPTIONS"],
        ["--config=OPTIONS"],
        ["--config", '{"propagator": "ExtrudePropagator"}'],
        ["--propagator=ExtrudePropagator"],
        ["--propagator.class_path", "ExtrudePropagator"],
        ["--propagator", '{"class_path": "ExtrudePropagator"}'],
    ],
    ids=str,
)
def test_a_propagator_that_is_named_in_any_way_is_taken(words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("propagator: ExtrudePropagator")
    options, _ = parse_options("segment", [word.replace("OPTIONS", str(file)) for word in words])
    assert options.propagator.class_path.endswith("ExtrudePropagator")


def test_of_a_propagator_that_is_not_named_nothing_is_said(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("samples: 3")
    for words in ([], ["scan.nii", "the spleen", "--config", str(file)]):
        assert parse_options("segment", words)[0].propagator is None
    options, _ = parse_options("segment", ["--propagator.growth_mm", "3"])
    assert options.propagator.class_path.endswith("RegionPropagator"), "a setting alone is one of the usual propagator"
