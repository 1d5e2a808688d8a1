"""Evidence records: what they say, and what is accepted when a person has edited them."""

import hashlib
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.core.errors import MedvolError, OutputError, RecordError
from medvol.core.types import Volume
from medvol.imaging.geometry import make_volume
from medvol.imaging.reading import read_volume
from medvol.imaging.volume_hash import hash_volume
from medvol.inference import segmentation
from medvol.inference.box_positions import box_corners_mm, stored_slice
from medvol.inference.records import read_record
from medvol.inference.repropagation import repropagate
from medvol.inference.segmentation import save_segmentation
from medvol.propagators.extrude import ExtrudePropagator


@pytest.fixture
def paths(segmenter, volume, tmp_path: Path) -> dict[str, Path]:
    return segmenter.segment(volume, "the block").save(tmp_path / "out", "answer")


@pytest.fixture
def content(paths) -> dict:
    return json.loads(paths["record"].read_text())


def test_three_files_and_nothing_else(paths):
    assert sorted(path.name for path in paths["record"].parent.iterdir()) == [
        "answer.json",
        "answer.nii.gz",
        "answer.png",
    ]


def test_mask_lies_on_the_grid_of_the_scan(paths, scan):
    mask, image = nib.load(paths["mask"]), nib.load(scan)
    assert mask.affine.tobytes() == image.affine.tobytes()
    stored = np.asarray(mask.dataobj)
    # the scan runs to the right, front and feet, so all three axes are flipped with respect to LPS
    filled = np.argwhere(stored)
    assert filled.min(axis=0).tolist() == [10, 12, 7]
    assert filled.max(axis=0).tolist() == [29, 23, 9]
    assert stored.sum() == 720


def test_record_says_where_the_anchor_is(content, scan):
    evidence = content["evidence"]
    assert evidence["key_slice"] == 3
    assert evidence["stored_slice"] == {"axis": 2, "index": 8}
    assert evidence["boxes_px"] == [[10.0, 6.0, 30.0, 18.0]]
    assert evidence["boxes_norm"] == [[250, 200, 750, 600]]
    # stored slice 8 lies at 400 - 4 * 8 mm; its centre pixel is (19.5, 14.5)
    assert evidence["slice_centre_mm"] == [-20 + 1.5 * 19.5, -30 + 2 * 14.5, 368.0]
    # LPS columns 10..29 are stored columns 29..10, their outer edges 29.5 and 9.5; LPS rows 6..17 are stored 23..12
    x = [-20 + 1.5 * edge for edge in (29.5, 9.5)]
    y = [-30 + 2.0 * edge for edge in (23.5, 11.5)]
    corners = [[x[0], y[0], 368], [x[1], y[0], 368], [x[1], y[1], 368], [x[0], y[1], 368]]
    np.testing.assert_allclose(evidence["box_corners_mm"], [corners], atol=1e-3)


def test_record_says_what_made_it(content, scan, volume):
    assert content["query"] == "the block"
    assert content["schema"] == "medvol-evidence/1"
    assert content["policy"]["name"] == "ScriptedPolicy"
    assert content["propagator"] == {
        "name": "ExtrudePropagator",
        "distribution": f"medvol-r1 {version('medvol-r1')}",
        "half_depth_mm": 25.0,
        "half_depth_slices": 1,
    }
    assert content["sampling"]["temperature"] == 0.0
    assert content["completion"].startswith("<think>bright</think>")
    # 20 x 12 pixels of 1.5 x 2 mm: from the middle of a pixel's outer edge to that of the one farthest away
    longest = max(np.hypot(20 * 1.5, 11 * 2), np.hypot(19 * 1.5, 12 * 2))
    assert content["mask"]["longest_diameter_mm"] == pytest.approx(longest, rel=1e-5)
    assert {name: content["mask"][name] for name in ("file", "voxels", "volume_ml", "intensity_unit")} == {
        "file": "answer.nii.gz",
        "voxels": 720,
        "volume_ml": round(720 * 1.5 * 2 * 4 / 1000, 3),
        "intensity_unit": None,
    }
    # LPS slices 2..4 are stored slices 9..7, rows 6..17 are 23..12, columns 10..29 are 29..10: all in the block of 80
    assert content["mask"]["mean_intensity"] == 80.0
    assert content["not_written"] == {}
    assert content["scan"]["path"] == str(scan)
    assert content["scan"]["affine_stored"] == nib.load(scan).affine.tolist()
    assert content["scan"]["affine_ras"] == volume.affine.tolist()


def test_same_answer_gives_the_same_bytes(segmenter, volume, tmp_path: Path):
    digests = []
    for folder in ("a", "b"):
        paths = segmenter.segment(volume, "the block").save(tmp_path / folder)
        digests.append({kind: hashlib.sha256(path.read_bytes()).hexdigest() for kind, path in paths.items()})
    assert digests[0] == digests[1]


def test_absent_answer_is_recorded(segmenter, volume, tmp_path: Path):
    paths = segmenter.segment(volume, "the tail").save(tmp_path)
    record = read_record(paths["record"])
    assert record.evidence.absent
    assert json.loads(paths["record"].read_text())["mask"]["voxels"] == 0
    assert not repropagate(volume, record, ExtrudePropagator()).mask.any()


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_mask_keeps_the_format_of_the_scan(segmenter, tmp_path: Path, suffix):
    image = sitk.GetImageFromArray(np.zeros((12, 30, 40), np.int16))
    image.SetSpacing((0.7, 0.7, 3.0))
    image.SetOrigin((5.0, -6.0, 7.0))
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, str(path))
    paths = segmenter.segment(read_volume(path), "the block").save(tmp_path / "out")
    mask = sitk.ReadImage(str(paths["mask"]))
    assert paths["mask"].name == f"segmentation{suffix}"
    assert mask.GetOrigin() == image.GetOrigin()
    assert sitk.GetArrayFromImage(mask).sum() == 720


def test_hash_sees_voxels_and_geometry_but_not_the_file(volume, scan, tmp_path: Path):
    copy = tmp_path / "copy.nii"
    nib.save(nib.load(scan), copy)
    assert hash_volume(read_volume(copy)) == hash_volume(volume)
    assert hash_volume(replace(volume, voxels=np.roll(volume.voxels, 1))) != hash_volume(volume)
    assert hash_volume(replace(volume, affine=volume.affine + np.eye(4) * 1e-6)) != hash_volume(volume)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "nul\0"])
def test_name_that_is_no_file_name_is_refused(segmenter, volume, tmp_path: Path, name):
    with pytest.raises(RecordError, match="file"):
        segmenter.segment(volume, "the block").save(tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("failing", ["write_mask", "to_json"])
def test_failure_leaves_the_earlier_files_whole(segmenter, volume, paths, monkeypatch, failing):
    folder = paths["record"].parent
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(segmentation, failing, fail)
    with pytest.raises(OSError, match="no space"):
        save_segmentation(segmenter.segment(volume, "the tail"), folder, "answer")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("no font"), MemoryError()])
def test_a_picture_that_cannot_be_made_costs_neither_mask_nor_record(segmenter, volume, paths, monkeypatch, error):
    def fail(segmentation):
        raise error

    monkeypatch.setattr(segmentation, "render_overlay", fail)
    with pytest.raises(OutputError, match="overlay") as caught:
        save_segmentation(segmenter.segment(volume, "the tail"), paths["record"].parent, "answer")
    assert set(caught.value.paths) == {"mask", "record"}
    assert sorted(path.name for path in paths["record"].parent.iterdir()) == ["answer.json", "answer.nii.gz"]
    content = json.loads(paths["record"].read_text())
    assert content["query"] == "the tail"
    assert content["overlay"] == {"file": None}
    assert set(content["not_written"]) == {"overlay"}
    assert not np.asarray(nib.load(paths["mask"]).dataobj).any(), "the mask is the new one too"


def test_a_folder_in_the_place_of_the_picture_costs_neither_mask_nor_record(segmenter, volume, paths):
    paths["overlay"].unlink()
    (paths["overlay"] / "mine").mkdir(parents=True)
    with pytest.raises(OutputError, match="overlay: Is a directory"):
        save_segmentation(segmenter.segment(volume, "the tail"), paths["record"].parent, "answer")
    assert read_record(paths["record"]).query == "the tail"
    assert not np.asarray(nib.load(paths["mask"]).dataobj).any(), "the mask is the new one too"
    assert (paths["overlay"] / "mine").is_dir()


def test_a_folder_in_the_place_of_the_mask_leaves_the_earlier_files(segmenter, volume, paths):
    paths["mask"].unlink()
    paths["mask"].mkdir()
    folder = paths["record"].parent
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(IsADirectoryError) as caught:
        save_segmentation(segmenter.segment(volume, "the tail"), folder, "answer")
    assert caught.value.filename == str(paths["mask"])
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_an_answer_never_replaces_its_scan(segmenter, volume, scan):
    content = scan.read_bytes()
    with pytest.raises(RecordError, match="would replace a scan"):
        save_segmentation(segmenter.segment(volume, "the block"), scan.parent, "case")
    assert scan.read_bytes() == content
    assert list(scan.parent.iterdir()) == [scan]


@pytest.mark.parametrize("value", ["../case.nii.gz", "/etc/passwd", "a/b.nii.gz", "..", "a\\b", "C:x", "a\0b"])
def test_a_record_names_no_mask_elsewhere(paths, content, value):
    content["mask"]["file"] = value
    paths["record"].write_text(json.dumps(content))
    with pytest.raises(RecordError, match=r"mask\.file is .*beside the record"):
        read_record(paths["record"])


def test_record_is_renamed_last(segmenter, volume, tmp_path: Path, monkeypatch):
    order = []
    rename = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: order.append(Path(to).name) or rename(self, to))
    save_segmentation(segmenter.segment(volume, "the block"), tmp_path / "out", "answer")
    assert order[-3:] == ["answer.nii.gz", "answer.png", "answer.json"]


def test_every_orientation_says_the_right_stored_slice():
    """The stored slice shows the voxels of the LPS slice, whichever axis and direction it has."""
    for permutation in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        for flip in (1, -1):
            affine = np.zeros((4, 4))
            for axis, world in enumerate(permutation):
                affine[world, axis] = (axis + 1.0) * flip
            affine[3, 3] = 1
            stored = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
            volume = _volume_of(stored, affine)
            for z in range(volume.shape[0]):
                axis, index = stored_slice(volume, z)
                assert np.array_equal(
                    np.sort(np.take(stored, index, axis), axis=None), np.sort(volume.voxels[z], axis=None)
                )


def _volume_of(stored, affine) -> Volume:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii"
        nib.save(nib.Nifti1Image(stored, affine), path)
        return read_volume(path)


def test_corners_of_a_whole_slice_bound_the_scan():
    volume = make_volume(np.zeros((3, 4, 5), np.float32), (2.0, 1.0, 3.0))
    corners = box_corners_mm(volume, 1, np.array([[0.0, 0.0, 5.0, 4.0]]))[0]
    assert np.ptp(corners, axis=0).tolist() == [15.0, 4.0, 0.0]


BAD = [
    ("schema", "medvol-evidence/9", "schema"),
    ("query", "", "query"),
    ("query", 3, "query"),
    ("completion", None, "completion"),
    ("edited", "yes", "edited"),
    ("policy", [], "policy"),
    ("propagator", "MedSAM2", "propagator"),
    ("sampling", 1, "sampling"),
    ("scan.path", 3, "scan.path"),
    ("scan.sha256", "", "scan.sha256"),
    ("mask.file", None, "mask.file"),
    ("evidence.rationale", 1, "evidence.rationale"),
    ("evidence.key_slice", -1, "evidence.key_slice"),
    ("evidence.key_slice", 1.5, "evidence.key_slice"),
    ("evidence.key_slice", True, "evidence.key_slice"),
    ("evidence.key_slice", "3", "evidence.key_slice"),
    ("evidence.key_slice", None, "boxes_px"),
    ("evidence.boxes_px", [], "boxes_px"),
    ("evidence.boxes_px", {}, "boxes_px"),
    ("evidence.boxes_px", [[1, 2, 3, 4]] * 65, "boxes_px"),
    ("evidence.boxes_px", [[1, 2, 3]], r"boxes_px\[0\]"),
    ("evidence.boxes_px", [[1, 2, 3, 4], [5, 6, 5, 8]], r"boxes_px\[1\]"),
    ("evidence.boxes_px", [[4, 2, 3, 4]], r"boxes_px\[0\]"),
    ("evidence.boxes_px", [[-1, 2, 3, 4]], r"boxes_px\[0\]"),
    ("evidence.boxes_px", [[1, 2, float("nan"), 4]], "NaN is not JSON"),
    ("evidence.boxes_px", [[1, 2, float("inf"), 4]], "Infinity is not JSON"),
    ("evidence.boxes_px", [[1, 2, 10**400, 4]], r"boxes_px\[0\]"),
    ("evidence.boxes_px", [[True, 2, 3, 4]], r"boxes_px\[0\]"),
    ("evidence.boxes_px", [["1", 2, 3, 4]], r"boxes_px\[0\]"),
]


@pytest.mark.parametrize(("field", "value", "named"), BAD)
def test_bad_field_is_named(paths, content, field, value, named):
    *parents, key = field.split(".")
    place = content
    for parent in parents:
        place = place[parent]
    place[key] = value
    paths["record"].write_text(json.dumps(content))
    with pytest.raises(RecordError, match=named) as caught:
        read_record(paths["record"])
    assert str(paths["record"]) in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("field", ["schema", "query", "evidence", "evidence.boxes_px", "scan.sha256", "mask", "edited"])
def test_missing_field_is_named(paths, content, field):
    *parents, key = field.split(".")
    place = content
    for parent in parents:
        place = place[parent]
    del place[key]
    paths["record"].write_text(json.dumps(content))
    with pytest.raises(RecordError, match=field):
        read_record(paths["record"])


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000, "\ufeff{}", '{"schema": 1e999}'])
def test_file_that_is_no_record_is_refused(tmp_path: Path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"record\.json"):
        read_record(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    field=st.sampled_from(
        ["schema", "query", "evidence", "evidence.key_slice", "evidence.boxes_px", "mask", "scan", "policy", "edited"]
    ),
    value=json_values,
)
def test_any_value_is_read_or_refused(tmp_path_factory, field, value):
    path = tmp_path_factory.mktemp("fuzz") / "record.json"
    content = {
        "schema": "medvol-evidence/1",
        "query": "q",
        "evidence": {"key_slice": 1, "boxes_px": [[1, 2, 3, 4]], "rationale": ""},
        "edited": False,
        "completion": "",
        "mask": {"file": "m"},
        "scan": {"path": None, "sha256": "00"},
        "policy": {},
        "propagator": {},
        "sampling": {},
    }
    *parents, key = field.split(".")
    place = content
    for parent in parents:
        place = place[parent]
    place[key] = value
    path.write_text(json.dumps(content))
    try:
        record = read_record(path)
    except MedvolError:
        return
    assert record.evidence.boxes.shape[1:] == (4,)
    assert np.isfinite(record.evidence.boxes).all()
