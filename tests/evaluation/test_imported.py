"""Masks of other systems: their layouts on made files, matching, grids, and archives of strangers."""

import dataclasses
import io
import json
import pickle
import tracemalloc
import weakref
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from surface_distance import metrics as peer

from medvol.core.errors import DatasetError, GeometryError, ScanError
from medvol.core.roles import CaseDataset
from medvol.core.types import Case, Query, Volume
from medvol.datasets.kits23 import CLASSES, TARGETS_OF_CLASSES, KiTS23Dataset
from medvol.datasets.settings import QuestionSettings
from medvol.evaluation.archive import write_evaluation
from medvol.evaluation.imported import scoring
from medvol.evaluation.imported.layouts import find_masks
from medvol.evaluation.imported.matching import MaskIndex
from medvol.evaluation.imported.reading import read_labels_on
from medvol.evaluation.imported.scoring import score_masks
from medvol.evaluation.kept_masks import KeptMasks
from medvol.evaluation.settings import EvaluationSettings
from medvol.imaging import reading
from medvol.imaging.geometry import lps_affine
from medvol.imaging.reading import read_volume
from medvol.inference.predictions import as_job
from tests.fixtures import releases

SHAPE = (6, 10, 12)
SPACING = (4.0, 1.0, 1.5)
TARGETS = {"liver": 1, "left kidney": 2, "right kidney": 3}


def draw_labels(scan):
    """Three blocks, moved by one voxel in the second scan."""
    labels = np.zeros(SHAPE, np.uint8)
    for value in TARGETS.values():
        labels[1:4, 2 + scan : 6 + scan, 3 * value : 3 * value + 2] = value
    return labels


class Scans(CaseDataset):
    """Files of scans, asked for three targets each."""

    def __init__(self, files, patients=None):
        self.files, self.patients = list(files), patients
        self.asked = [(scan, target) for scan in range(len(self.files)) for target in TARGETS]

    def __len__(self):
        return len(self.asked)

    def __getitem__(self, index):
        scan, target = self.asked[index]
        volume = Volume(np.zeros(SHAPE, np.float32), lps_affine(SPACING), "CT", f"volume-{scan}")
        query = Query(f"Where is the {target}?", target, "explicit")
        return Case(f"case-{index}", volume, query, draw_labels(scan) == TARGETS[target], self.patient_id(index))

    def volume_key(self, index):
        return f"volume-{self.asked[index][0]}"

    def patient_id(self, index):
        scan = self.asked[index][0]
        return self.patients[scan] if self.patients else f"p{scan}"

    def scan_file(self, index):
        return self.files[self.asked[index][0]]


@pytest.fixture
def scans(tmp_path):
    return Scans([tmp_path / "scans" / f"s{i}_0000.nii.gz" for i in (0, 1)])


def save(path, array):
    """Save (Z, Y, X) in LPS as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_stored(path, array.transpose(2, 1, 0).astype(np.uint8), lps_affine(SPACING))


def save_stored(path, stored, affine):
    image = nib.Nifti1Image(np.ascontiguousarray(stored), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def write_nnunet(folder):
    for scan in (0, 1):
        save(folder / f"s{scan}.nii.gz", draw_labels(scan))
    labels = {"background": 0, "Liver": 1, "kidney_left": 2, "kidney_right": 3, "both": [2, 3]}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def write_totalsegmentator(folder):
    names = {"liver": 1, "kidney_left": 2, "kidney_right": 3}
    for scan in (0, 1):
        for name, value in names.items():
            save(folder / f"s{scan}" / f"{name}.nii.gz", draw_labels(scan) == value)


def write_prompts(folder):
    """As VoxTell names them: signs and spaces of a prompt become ``_``."""
    for scan in (0, 1):
        save(folder / f"s{scan}_Where_is_the_liver_.nii.gz", draw_labels(scan) == 1)
        save(folder / f"s{scan}_left_kidney.nii.gz", draw_labels(scan) == 2)
        save(folder / f"case-{3 * scan + 2}.nii.gz", draw_labels(scan) == 3)


def write_prompt_folders(folder):
    """As SAT does: a folder a sample."""
    for scan in (0, 1):
        for name, value in TARGETS.items():
            save(folder / "data" / f"seg_s{scan}" / f"{name}.nii.gz", draw_labels(scan) == value)


def write_challenge(folder):
    folder.mkdir()
    for scan in (0, 1):
        np.savez_compressed(folder / f"s{scan}.npz", segs=draw_labels(scan))
    labels = {"0": "background", "1": "liver", "2": "left kidney", "3": "right kidney"}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def score(folder, dataset, layout=None, names=None, resample=False, settings=None, run=None):
    index = MaskIndex(find_masks(folder, layout)[1], dataset, names)
    kept = KeptMasks(run or folder, 1.0 if run else 0.0)
    scores = score_masks(dataset, index, settings or EvaluationSettings(), kept, resample)
    if run:
        write_evaluation(run, scores, {}, masks=kept)
    return scores, index


WRITERS = {
    "nnunet": write_nnunet,
    "totalsegmentator": write_totalsegmentator,
    "prompts": write_prompts,
    "challenge": write_challenge,
}


@pytest.mark.parametrize("layout", WRITERS)
def test_a_layout_is_found_by_what_the_folder_holds(layout, scans, tmp_path):
    folder = tmp_path / "masks"
    WRITERS[layout](folder)
    assert find_masks(folder)[0] == layout
    scores, index = score(folder, scans)
    assert [(one.dsc, one.nsd, one.hd95_mm, one.failure) for one in scores] == [(1.0, 1.0, 0.0, None)] * 6
    assert [one.parsed for one in scores] == [one.key_slice_score for one in scores] == [None] * 6
    region = [f"{folder / name}: both" for name in ("s0.nii.gz", "s1.nii.gz")]
    assert index.unused == (region if layout == "nnunet" else [])


@pytest.mark.parametrize(("stand", "folder"), [("out", "."), ("out/deeper", ".."), (".", "out/deeper/..")])
def test_the_names_of_labels_are_found_above_however_the_folder_is_written(stand, folder, scans, tmp_path, monkeypatch):
    write_nnunet(tmp_path / "out")
    (tmp_path / "out" / "deeper").mkdir()
    (tmp_path / "out" / "dataset.json").rename(tmp_path / "dataset.json")
    monkeypatch.chdir(tmp_path / stand)
    assert find_masks(Path(folder))[0] == "nnunet"


def test_a_folder_a_sample_of_prompts(scans, tmp_path):
    write_prompt_folders(tmp_path / "masks")
    scores, _ = score(tmp_path / "masks", scans, "prompts")
    assert [one.dsc for one in scores] == [1.0] * 6


@pytest.mark.parametrize("digest", ["", "_0123456789ab"], ids=["test", "predict"])
@pytest.mark.parametrize("case_id", ["s0:liver/1", "a" * 200, "s0.seg"])
def test_a_mask_that_test_or_predict_wrote_is_found_by_any_id(case_id, digest, scans, tmp_path):
    """``predict`` puts a record beside it."""

    class Named(Scans):
        def __getitem__(self, index):
            return dataclasses.replace(super().__getitem__(index), case_id=f"{case_id}{index}")

    dataset = Named(scans.files)
    for index in range(len(dataset)):
        case = dataset[index]
        name = f"{as_job(case, tmp_path).name}{digest}"
        save(tmp_path / "masks" / f"{name}.nii.gz", case.target)
        if digest:
            (tmp_path / "masks" / f"{name}.json").write_text("{}")
    scores, index = score(tmp_path / "masks", dataset)
    assert [one.dsc for one in scores] == [1.0] * 6
    assert index.unused == []


def test_a_name_that_ends_in_digits_is_no_digest_without_a_record(scans, tmp_path):
    """A case may be called so, and its mask is not that of another case, whose mask is missing."""
    folder = tmp_path / "masks"
    for index in range(len(scans)):
        name = "case-0_0123456789ab" if index == 0 else f"case-{index}"
        save(folder / f"{name}.nii.gz", scans[index].target)
    scores, index = score(folder, scans)
    assert [one.dsc for one in scores] == [0.0, *[1.0] * 5]
    assert index.unused == [str(folder / "case-0_0123456789ab.nii.gz")]


def test_a_missing_mask_is_a_failure_of_0_and_an_unused_one_is_named(scans, tmp_path):
    folder = tmp_path / "masks"
    write_totalsegmentator(folder)
    (folder / "s1" / "liver.nii.gz").rename(folder / "s1" / "heart.nii.gz")
    save(folder / "s9" / "liver.nii.gz", draw_labels(0))
    scores, index = score(folder, scans)
    missed = scores[3]
    assert (missed.failure, missed.dsc, missed.nsd, missed.answered_absent) == ("missing_mask", 0.0, 0.0, False)
    assert missed.detail == "there is no mask of 'liver' for its scan"
    assert [one.dsc for one in scores].count(1.0) == 5
    assert index.unused == [str(folder / "s1" / "heart.nii.gz"), str(folder / "s9" / "liver.nii.gz")]


def test_names_may_unite_parts_and_all_of_them_are_needed(scans, tmp_path):
    write_totalsegmentator(tmp_path / "masks")
    scores, _ = score(tmp_path / "masks", scans, names={"liver": ["kidney_left", "kidney_right"]})
    assert scores[0].mask_ml == pytest.approx(scores[1].mask_ml + scores[2].mask_ml)
    scores, _ = score(tmp_path / "masks", scans, names={"Liver": ["kidney_left", "lung"]})
    assert (scores[0].failure, scores[0].detail) == ("missing_mask", "there is no mask of 'lung' for its scan")


def test_an_empty_mask_says_that_the_target_is_absent(scans, tmp_path):
    folder = tmp_path / "masks"
    write_totalsegmentator(folder)
    save(folder / "s0" / "liver.nii.gz", np.zeros(SHAPE))
    scores, _ = score(folder, scans)
    assert (scores[0].failure, scores[0].dsc, scores[0].answered_absent) == (None, 0.0, True)


@pytest.mark.parametrize(("empty", "earned"), [(True, 1.0), (False, 0.0)])
def test_of_an_absent_target_an_empty_mask_is_right_and_a_missing_one_is_not(scans, tmp_path, empty, earned):
    class Absent(Scans):
        def __getitem__(self, index):
            case = super().__getitem__(index)
            query = Query(case.query.text, case.query.target, "absent")
            return Case(case.case_id, case.volume, query, np.zeros(SHAPE, bool), case.patient_id)

    folder = tmp_path / "masks"
    write_totalsegmentator(folder)
    save(folder / "s0" / "liver.nii.gz", np.zeros(SHAPE) if empty else draw_labels(0))
    (folder / "s1" / "liver.nii.gz").unlink()
    scores, _ = score(folder, Absent(scans.files))
    assert (scores[0].dsc, scores[0].nsd) == (earned, earned)
    assert (scores[3].failure, scores[3].dsc) == ("missing_mask", 0.0)


def test_two_files_for_one_question_are_refused(scans, tmp_path):
    folder = tmp_path / "masks"
    write_totalsegmentator(folder)
    save(folder / "s0" / "Liver.nii", draw_labels(0))
    with pytest.raises(DatasetError, match=r"case 'case-0' is answered by .*Liver\.nii and by .*liver\.nii\.gz"):
        score(folder, scans)


def test_a_name_of_two_scans_is_refused(tmp_path):
    dataset = Scans([tmp_path / "a" / "ct.nii.gz", tmp_path / "b" / "ct.nii.gz"])
    save(tmp_path / "masks" / "ct" / "liver.nii.gz", draw_labels(0))
    with pytest.raises(DatasetError, match="may belong to volume-0 or to volume-1"):
        score(tmp_path / "masks", dataset)
    save(tmp_path / "named" / "a" / "liver.nii.gz", draw_labels(0) == 1)
    assert score(tmp_path / "named", dataset)[0][0].dsc == 1.0


def test_scans_are_told_by_names_that_are_theirs_alone(tmp_path):
    """Files that are all called ``ct`` are told by their folders, by which their masks are found too."""
    dataset = Scans([tmp_path / "a" / "ct.nii.gz", tmp_path / "b" / "ct.nii.gz"])
    save(tmp_path / "masks" / "c" / "liver.nii.gz", draw_labels(0))
    assert MaskIndex(find_masks(tmp_path / "masks")[1], dataset).scans == "a, b"


def test_a_data_set_that_breaks_its_promises_is_named(scans, tmp_path):
    write_totalsegmentator(tmp_path / "masks")
    scans.scan_file = lambda index: "s0.nii.gz"
    with pytest.raises(DatasetError, match=r"gave the file 's0.nii.gz' for case 0; it is a Path or None"):
        score(tmp_path / "masks", scans)


def test_a_file_that_two_scans_could_own_is_refused(tmp_path):
    """``s_left_kidney``: the left kidney of ``s``, or a kidney of ``s_left``."""
    dataset = Scans([tmp_path / "s.nii.gz", tmp_path / "s_left.nii.gz"])
    save(tmp_path / "masks" / "s_left_kidney.nii.gz", draw_labels(0))
    with pytest.raises(DatasetError, match=r"s_left_kidney.nii.gz may belong to volume-0 or to volume-1"):
        score(tmp_path / "masks", dataset, names={"right kidney": ["kidney"]})


def break_no_folder(folder):
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def break_no_masks(folder):
    for path in folder.glob("*.nii.gz"):
        path.unlink()


def break_two_layouts(folder):
    np.savez(folder / "s0.npz", segs=draw_labels(0))


def break_names(folder):
    (folder / "dataset.json").write_text('{"labels": {"liver": "one"}}')


def break_region(folder):
    (folder / "dataset.json").write_text('{"labels": {"liver and around it": [0, 1]}}')


def break_json(folder):
    (folder / "dataset.json").write_text("{")


def break_name_of_two(folder):
    (folder / "dataset.json").write_text('{"labels": {"1": "liver", "2": "liver"}}')


def break_key_twice(folder):
    (folder / "dataset.json").write_text('{"labels": {"liver": 1, "liver": 2}}')


def break_no_word(folder):
    (folder / "dataset.json").write_text('{"labels": {"__": 1}}')


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (break_no_folder, "there is no folder"),
        (break_no_masks, "holds no mask that is known"),
        (break_two_layouts, "could be nnunet or challenge"),
        (break_names, "the label of 'liver' is 'one'"),
        (break_region, "leave out 0, which is the background"),
        (break_json, "cannot be read as JSON"),
        (break_name_of_two, "two labels are called 'liver'"),
        (break_key_twice, "it has 'liver' twice"),
        (break_no_word, "the label 1 is called '__'"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(damage, sentence, tmp_path):
    write_nnunet(tmp_path / "masks")
    damage(tmp_path / "masks")
    with pytest.raises(ValueError, match=sentence) as caught:
        find_masks(tmp_path / "masks")
    assert "\n" not in str(caught.value)


def test_labels_without_a_name_and_several_in_a_mask_are_told(scans, tmp_path):
    write_nnunet(tmp_path / "maps")
    (tmp_path / "maps" / "dataset.json").write_text('{"labels": {"liver": 1, "left kidney": 2}}')
    _, index = score(tmp_path / "maps", scans, names={"spleen": ["milt"]})
    assert index.remarks == [
        f"2 label maps hold labels that dataset.json does not name, such as {tmp_path / 'maps' / 's0.nii.gz'}: 3",
        "--names says what spleen is called, and no question asks for that",
    ]
    write_totalsegmentator(tmp_path / "masks")
    mixed = tmp_path / "masks" / "s1" / "liver.nii.gz"
    save(mixed, draw_labels(1))
    scores, index = score(tmp_path / "masks", scans)
    assert index.remarks == [f"1 masks hold several labels, which count as one target, such as {mixed}: 1, 2, 3"]
    assert scores[3].dsc == pytest.approx(2 * 1 / (1 + 3))  # three blocks of one size, of which one is the liver


def test_a_negative_mask_is_refused_and_not_empty(scans, tmp_path):
    """255 saved as int8 is -1."""
    write_totalsegmentator(tmp_path / "masks")
    stored = np.where(draw_labels(0) == 1, -1, 0).astype(np.int8).transpose(2, 1, 0)
    save_stored(tmp_path / "masks" / "s0" / "liver.nii.gz", stored, lps_affine(SPACING))
    with pytest.raises(
        ScanError, match=r"liver\.nii\.gz: a mask is above 0 in its target.*such as -1 and none above 0"
    ):
        score(tmp_path / "masks", scans)


def test_probabilities_beside_label_maps_are_no_challenge(scans, tmp_path):
    """As ``nnUNetv2_predict --save_probabilities`` leaves them."""
    write_nnunet(tmp_path / "masks")
    np.savez(tmp_path / "masks" / "s0.npz", probabilities=np.zeros((2, 3), np.float16))
    assert find_masks(tmp_path / "masks")[0] == "nnunet"
    assert [one.dsc for one in score(tmp_path / "masks", scans)[0]] == [1.0] * 6


def test_a_letter_that_unicode_writes_in_two_ways_is_one(tmp_path):
    save(tmp_path / "masks" / "Gro\u0308\u00dfe" / "liver.nii.gz", draw_labels(0) == 1)
    dataset = Scans([tmp_path / "Gr\u00f6\u00dfe.nii.gz"])
    assert score(tmp_path / "masks", dataset)[0][0].dsc == 1.0


def test_a_link_that_leads_nowhere_is_no_missing_mask(scans, tmp_path):
    write_totalsegmentator(tmp_path / "masks")
    mask = tmp_path / "masks" / "s0" / "liver.nii.gz"
    mask.unlink()
    mask.symlink_to(tmp_path / "gone.nii.gz")
    with pytest.raises(ScanError, match="there is no such file"):
        score(tmp_path / "masks", scans)


def test_a_mask_that_lies_outside_of_its_scan_is_not_empty(tmp_path):
    """An identity affine, as some systems write it; a label too small for the scan's voxels lies inside and is lost."""
    path = tmp_path / "far.nii.gz"
    save_stored(path, np.ones((12, 10, 6), np.uint8), lps_affine((1, 1, 1), (90, 0, 0)))
    with pytest.raises(GeometryError, match=r"far\.nii\.gz has no label inside of its scan"):
        read_labels_on(path, volume_of(), resample=True)
    fine = np.zeros((24, 10, 6), np.uint8)
    fine[0, 0, 0] = 1
    save_stored(tmp_path / "fine.nii.gz", fine, lps_affine((4.0, 1.0, 0.75), origin=(0.75, 0.0, 0.0)))
    assert not read_labels_on(tmp_path / "fine.nii.gz", volume_of(), resample=True).any()


def test_label_maps_without_names_are_refused(tmp_path):
    save(tmp_path / "masks" / "s0.nii.gz", draw_labels(0))
    with pytest.raises(DatasetError, match=r"put the dataset\.json of the training there"):
        find_masks(tmp_path / "masks", "nnunet")


def volume_of(shape=SHAPE, spacing=SPACING):
    return Volume(np.zeros(shape, np.float32), lps_affine(spacing), "CT", "v")


@pytest.mark.parametrize(("layout", "reads"), [("nnunet", 1), ("totalsegmentator", 3)])
def test_a_label_map_is_read_once_and_one_file_is_held_at_a_time(layout, reads, scans, tmp_path, monkeypatch):
    WRITERS[layout](tmp_path / "masks")
    held = []

    def read(path, *more):
        assert not any(one() is not None for one in held)
        labels = read_labels_on(path, *more)
        held.append(weakref.ref(labels))
        return labels

    monkeypatch.setattr(scoring, "read_labels_on", read)
    score(tmp_path / "masks", scans, names={"liver": ["liver", "kidney_left"]})
    assert len(held) == 2 * reads


def test_another_grid_is_refused_with_its_distance_or_resampled(tmp_path):
    """Every voxel in two along x: the corners of 24 half voxels lie a quarter of a voxel farther out or in."""
    fine = np.repeat(draw_labels(0), 2, axis=2)
    affine = lps_affine((4.0, 1.0, 0.75), origin=(0.375, 0.0, 0.0))
    path = tmp_path / "fine.nii.gz"
    save_stored(path, fine.transpose(2, 1, 0), affine)
    with pytest.raises(GeometryError, match=r"\(6, 10, 24\) and \(6, 10, 12\).*up to 0\.375 mm apart; pass --resample"):
        read_labels_on(path, volume_of())
    np.testing.assert_array_equal(read_labels_on(path, volume_of(), resample=True), draw_labels(0))


def test_a_mask_of_a_scan_over_the_usual_budget_is_read(scans, tmp_path, monkeypatch):
    """Of 720 voxels, 5,760 bytes in float64; read_mask takes them too."""
    save_stored(tmp_path / "wide.nii", (draw_labels(0) == 1).transpose(2, 1, 0).astype(np.float64), lps_affine(SPACING))
    monkeypatch.setattr(reading, "MAX_BYTES", 100)
    monkeypatch.setitem(reading.read_label_map.__kwdefaults__, "max_bytes", 100)
    np.testing.assert_array_equal(read_labels_on(tmp_path / "wide.nii", scans[0].volume), draw_labels(0) == 1)


def test_a_resampled_mask_lies_where_it_did_and_nothing_lies_outside(tmp_path):
    """A mask of the upper half of the scan, turned to RAS; the world place of every voxel decides."""
    affine = lps_affine(SPACING) @ np.array([[-1, 0, 0, 11], [0, -1, 0, 9], [0, 0, 1, 3], [0, 0, 0, 1.0]])
    save_stored(tmp_path / "half.nii.gz", np.ones((12, 10, 3), np.uint8), affine)
    placed = read_labels_on(tmp_path / "half.nii.gz", volume_of(), resample=True)
    assert [int(part.sum()) for part in placed] == [0, 0, 0, 120, 120, 120]


@pytest.mark.parametrize("times", [2, 3, 6])
def test_a_coarser_mask_fills_the_scan_to_its_borders(tmp_path, times):
    """Voxels of the mask are ``times`` slices thick, and every slice of the scan lies within one of them."""
    depth = SHAPE[0] // times
    values = np.arange(1, depth + 1, dtype=np.uint8)
    origin = (0.0, 0.0, SPACING[0] * (times - 1) / 2)
    affine = lps_affine((SPACING[0] * times, *SPACING[1:]), origin=origin)
    save_stored(tmp_path / "coarse.nii.gz", np.broadcast_to(values, (*SHAPE[:0:-1], depth)), affine)
    placed = read_labels_on(tmp_path / "coarse.nii.gz", volume_of(), resample=True)
    expected = np.repeat(values, times)[:, None, None]
    np.testing.assert_array_equal(placed, np.broadcast_to(expected, placed.shape))


def test_an_archive_follows_the_axes_of_the_file_of_its_scan(tmp_path):
    """The scan's file is RAS, as SimpleITK would hand it to a challenge; inside it is LPS."""
    labels = draw_labels(0)
    voxels = np.broadcast_to(np.arange(12, dtype=np.float32)[:, None, None], SHAPE[::-1])
    save_stored(tmp_path / "scan.nii.gz", voxels, np.diag([1.5, 1.0, 4.0, 1.0]))
    volume = read_volume(tmp_path / "scan.nii.gz")
    np.savez(tmp_path / "s.npz", segs=labels[:, ::-1, ::-1])
    np.testing.assert_array_equal(read_labels_on(tmp_path / "s.npz", volume), labels)


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def write_pickle(path):
    np.savez(path, segs=np.array([Canary(path.with_name("canary"))], dtype=object))


def write_bomb(path):
    """Some kilobytes that unpack to 200 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("segs.npy", bytes(200_000_000))


def write_lie(path):
    """A header that promises a thousand times what there is."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("segs.npy", "w") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**5, 10**5, 10**5)}
        np.lib.format.write_array_header_1_0(file, header)


def write_large_lie(path):
    """A header that promises 10^9 bytes, which many a machine has."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("segs.npy", "w") as file:
        np.lib.format.write_array_header_2_0(file, {"descr": "|u1", "fortran_order": False, "shape": (1000,) * 3})


def write_words(path):
    np.savez(path, segs=np.full(SHAPE, "liver"))


def write_other_key(path):
    np.savez(path, masks=draw_labels(0))


def write_cut(path):
    np.savez(path, segs=draw_labels(0))
    path.write_bytes(path.read_bytes()[:-40])


def write_other_shape(path):
    np.savez(path, segs=draw_labels(0)[1:])


def write_shares(path):
    np.savez(path, segs=draw_labels(0) / 2)


def write_member(path, content, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("segs.npy", content)


def write_nothing(path):
    write_member(path, b"")


def write_cut_header(path):
    header = b"{'descr': '<i4', 'fortran_order': False, 'shape': (4, 8,".ljust(117) + b"\n"
    write_member(path, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def write_damaged_lzma(path):
    array = io.BytesIO()
    np.save(array, draw_labels(0))
    write_member(path, array.getvalue(), zipfile.ZIP_LZMA)
    content = bytearray(path.read_bytes())
    start = content.find(b"segs.npy") + len(b"segs.npy")
    content[start + 12 : start + 40] = bytes(byte ^ 0x5A for byte in content[start + 12 : start + 40])
    path.write_bytes(content)


HOSTILE = [write_pickle, write_bomb, write_lie, write_large_lie, write_words, write_cut]
HOSTILE += [write_nothing, write_cut_header, write_damaged_lzma]
WRONG = [write_other_key, write_other_shape, write_shares]


@pytest.mark.parametrize("write", [*HOSTILE, *WRONG], ids=lambda write: write.__name__)
def test_archives_of_strangers_are_refused_in_one_sentence(write, tmp_path):
    write(tmp_path / "s.npz")
    tracemalloc.start()
    with pytest.raises((DatasetError, GeometryError, ScanError), match=r"s\.npz") as caught:
        read_labels_on(tmp_path / "s.npz", volume_of())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10**8
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "canary").exists()
    assert pickle.dumps(Canary(tmp_path))  # the canary is one that would sing


def test_kept_masks_are_those_that_were_scored(scans, tmp_path):
    write_nnunet(tmp_path / "masks")
    scores, _ = score(tmp_path / "masks", scans, run=tmp_path / "run")
    assert [one.mask_file for one in scores] == [f"masks/case-{i}.nii.gz" for i in range(6)]
    kept = np.asarray(nib.load(tmp_path / "run" / scores[4].mask_file).dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(kept > 0, draw_labels(1) == 2)


def test_the_classes_of_kits23_give_its_numbers(tmp_path, monkeypatch):
    """A label map a case, wrong in places; the challenge's Dice and surface Dice of its three hierarchical classes."""
    releases.write_kits23(tmp_path / "kits", count=2)
    dataset = KiTS23Dataset(str(tmp_path / "kits"), questions=QuestionSettings(min_voxels=20))
    rng, expected = np.random.default_rng(0), {}
    for place in sorted((tmp_path / "kits" / "dataset").iterdir()):
        truth = nib.load(place / "segmentation.nii.gz")
        true = np.asarray(truth.dataobj)
        wrong = np.roll(true, 1, axis=2)
        wrong[rng.random(true.shape) < 0.001] = 3
        (tmp_path / "masks").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(wrong, truth.affine, truth.header), tmp_path / "masks" / f"{place.name}.nii.gz")
        spacing = np.sqrt((truth.affine[:3, :3] ** 2).sum(axis=0))
        for name, labels in CLASSES.items():
            both = np.isin(wrong, labels), np.isin(true, labels)
            expected[place.name, TARGETS_OF_CLASSES[name]] = *both, spacing
    labels = {"background": 0, **{name: list(values) for name, values in CLASSES.items()}}
    (tmp_path / "masks" / "dataset.json").write_text(json.dumps({"labels": labels}))
    names = {TARGETS_OF_CLASSES[name]: [name] for name in CLASSES}
    scores, _ = score(tmp_path / "masks", dataset, names=names)
    found = {(one.case_id[:10], one.target): one for one in scores if one.target in names}
    assert found.keys() == expected.keys()
    for key, (predicted, true, spacing) in expected.items():
        tolerance = KiTS23Dataset.surface_tolerances_mm[key[1]]
        assert found[key].dsc == pytest.approx(2 * (predicted & true).sum() / (predicted.sum() + true.sum()))
        assert found[key].nsd == pytest.approx(surface_dice(predicted, true, spacing, tolerance, monkeypatch), abs=1e-9)


def surface_dice(predicted, true, spacing, tolerance, monkeypatch):
    """As the challenge calls it; see the shim in ``test_surfaces``."""
    import types

    from scipy import ndimage

    shim = types.SimpleNamespace(filters=ndimage, morphology=ndimage)
    monkeypatch.setattr(peer, "ndimage", shim)
    return peer.compute_surface_dice_at_tolerance(peer.compute_surface_distances(true, predicted, spacing), tolerance)
