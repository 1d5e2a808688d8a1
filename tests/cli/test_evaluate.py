"""``medvol evaluate`` and ``medvol rescore``: masks of other systems beside our runs, and runs scored again."""

import html
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from medvol.cli import main
from medvol.evaluation.kept_masks import KeptMasks
from medvol.propagators.extrude import ExtrudePropagator

AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])
"""Of the toys: LPS, as every volume."""


def cube(first=1, last=4):
    mask = np.zeros((4, 8, 8), np.uint8)
    mask[first:last, 2:6, 2:6] = 1
    return mask


def save(path: Path, mask, affine=AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.ascontiguousarray(mask.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


@pytest.fixture
def masks(tmp_path):
    """Masks of both test cases of the toys, a file a prompt; the second lacks a slice."""
    save(tmp_path / "peer" / "volume20_cube.nii.gz", cube())
    save(tmp_path / "peer" / "volume21_cube.nii.gz", cube(first=2))
    return tmp_path / "peer"


@pytest.fixture
def tested(experiment, tmp_path):
    """A tested toy whose answers reach slices 1 to 3."""
    config = experiment(model__class_path="EvaluationModule", model__init_args__optimizer=None)
    assert main(["test", "--config", str(config)]) == 0
    return tmp_path / "run"


def evaluate(masks, config, out, *more):
    return main(["evaluate", "--predictions", str(masks), "--data", str(config), "--out", str(out), *more])


def read(folder, name="cases.json"):
    return json.loads((folder / name).read_text())


def test_masks_of_another_system_stand_beside_our_run(masks, tested, tmp_path, capsys):
    out = tmp_path / "runs" / "peer"
    assert evaluate(masks, tmp_path / "exp.yaml", out) == 0
    printed = capsys.readouterr().out
    assert "layout prompts" in printed
    assert [case["dsc"] for case in read(out)] == pytest.approx([1.0, 2 * 32 / (32 + 48)])
    assert read(out, "evaluation.json")["predictions"]["layout"] == "prompts"
    assert {path.name for path in out.iterdir()} == {"cases.json", "evaluation.json", "masks"}
    assert main(["report", str(tested), str(out)]) == 0
    report = capsys.readouterr().out
    assert "difference to run" in report
    assert "no paired difference" not in report


def answering(box):
    """A policy that answers with a box in slice 2, in thousandths of its sides."""
    answer = f'<think>a cube</think><answer>[{{"slice": 2, "bbox_2d_list": [{box}]}}]</answer>'
    return {"class_path": "ToyPolicy", "init_args": {"answer": answer}}


def test_what_predict_writes_has_the_scores_of_a_test(experiment, tmp_path, refused):
    """A box of 4 x 2 pixels in 3 slices, where 4 x 4 are right."""

    def predict(box, verb="predict"):
        settings = {"data__init_args__predict": "ToyDataset", "data__init_args__test": "ToyDataset"}
        settings["data__init_args__allow_shared_patients"] = True
        settings |= {"model__class_path": "EvaluationModule", "model__init_args__optimizer": None}
        config = experiment(**settings, model__init_args__policy=answering(box))
        assert main([verb, "--config", str(config)]) == 0
        return config

    predict([250, 250, 750, 500], "test")
    config = predict([250, 250, 750, 500])
    predictions = tmp_path / "run" / "predictions"
    assert evaluate(predictions, config, tmp_path / "out", "--split", "predict") == 0
    measured = ("case_id", "dsc", "iou", "nsd", "hd95_mm", "mask_ml", "mask_sha256", "answered_absent")
    tested, predicted = ([[case[name] for name in measured] for case in read(tmp_path / run)] for run in ("run", "out"))
    assert predicted == tested
    assert [case["dsc"] for case in read(tmp_path / "out")] == pytest.approx([2 * 24 / (24 + 48)] * 3)
    predict([250, 250, 750, 750])
    told = refused(
        "evaluate", "--predictions", predictions, "--data", config, "--out", tmp_path / "two", "--split", "predict"
    )
    first, second = sorted(predictions.glob("case0_*.nii.gz"))
    assert f"case 'case0' is answered by {first} and by {second}; leave one of them out" in told
    assert not (tmp_path / "two").exists()


def test_what_is_missing_and_unused_is_said(masks, experiment, tmp_path, capsys):
    (masks / "volume21_cube.nii.gz").rename(masks / "volume21_heart.nii.gz")
    assert evaluate(masks, experiment(), tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert (
        "1 of 2 questions have no mask and count as 0, such as case1: there is no mask of 'cube' for its scan"
        in printed
    )
    assert f"1 masks answer no question: {masks / 'volume21_heart.nii.gz'}" in printed
    summary = read(tmp_path / "out", "evaluation.json")
    assert summary["failures"] == {"missing_mask": 1}
    assert summary["all"]["metrics"]["dsc"]["mean"] == 0.5
    assert summary["predictions"]["unused_count"] == 1


def test_the_settings_of_the_experiment_count_unless_others_are_given(masks, experiment, tmp_path):
    config = experiment(model__init_args__evaluation={"tolerance_mm": 5.0, "surface": "voxels"})
    for name, more in {"own": (), "given": ("--tolerance_mm", "1", "--lesions", "all")}.items():
        assert evaluate(masks, config, tmp_path / name, *more) == 0
    own, given = (read(tmp_path / name, "evaluation.json")["settings"] for name in ("own", "given"))
    assert (own["tolerance_mm"], own["surface"], own["lesions"]) == (5.0, "voxels", "named")
    assert (given["tolerance_mm"], given["surface"], given["lesions"]) == (1.0, "voxels", "all")
    assert read(tmp_path / "given")[1]["lesions"]["found"] == 1


@pytest.mark.parametrize("whole", [True, False], ids=["the model", "its evaluation"])
def test_settings_in_a_file_of_their_own_count(whole, masks, experiment, tmp_path):
    config = experiment(model__init_args__evaluation={"surface": "voxels", "tolerance_mm": 1.0})
    settings = yaml.safe_load(config.read_text())
    place = settings if whole else settings["model"]["init_args"]
    key = "model" if whole else "evaluation"
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(place[key]))
    place[key] = "part.yaml"
    config.write_text(yaml.safe_dump(settings))
    assert evaluate(masks, config, tmp_path / "out") == 0
    measured = read(tmp_path / "out", "evaluation.json")["settings"]
    assert (measured["surface"], measured["tolerance_mm"]) == ("voxels", 1.0)


def test_a_setting_that_there_is_not_is_refused(masks, experiment, tmp_path, refused):
    config = experiment(model__init_args__evaluation={"surfaces": "voxels"})
    arguments = ("--predictions", masks, "--data", config, "--out", tmp_path / "out")
    assert "model.evaluation has no setting 'surfaces'; did you mean 'surface'?" in refused("evaluate", *arguments)
    assert not (tmp_path / "out").exists()


def test_names_say_what_targets_are_called(masks, experiment, tmp_path):
    for path in masks.iterdir():
        path.rename(path.with_name(path.name.replace("cube", "box")))
    assert evaluate(masks, experiment(), tmp_path / "out", "--names", '{"cube": "box"}') == 0
    assert read(tmp_path / "out")[0]["dsc"] == 1.0
    (tmp_path / "names.yaml").write_text("cube: [box]\n")
    assert evaluate(masks, experiment(), tmp_path / "out", "--names", str(tmp_path / "names.yaml")) == 0
    assert read(tmp_path / "out", "evaluation.json")["predictions"]["names"] == {"cube": ["box"]}
    assert main(["report", str(tmp_path / "out"), "--html", str(tmp_path / "page.html"), "--no_scans"]) == 0
    page = html.unescape((tmp_path / "page.html").read_text())
    assert "predictions.names.cube" in page
    assert "['box']" in page


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--layout", "nnunet"), ["dataset.json"]),
        (("--layout", "own"), ["layout", "'own'"]),
        (("--names", "{"), ["--names", "'{'"]),
        (("--names", '{"cube": 3}'), ["--names", "3", "'cube'"]),
        (("--names", '{"cube": "sphere"}'), ["no mask answers any of 2 questions", "volume20: cube"]),
        (("--names", '{"cube": "box", "Cube": "ball"}'), ["'cube' twice"]),
        (("--names", '{"cube": "__"}'), ["--names", "'__'", "'cube'"]),
        (("--names", "gone.json"), ["--names", "'gone.json'", "does not exist"]),
        (("--split", "predict"), ["no predict cases"]),
        (("--split", "own"), ["split must be one of train, val, test, predict; got 'own'"]),
        (("--surface", "own"), ["surface must be one of surfels, voxels; got 'own'"]),
        (("--tolerance_mm", ".inf"), ["tolerance_mm is inf"]),
        (("--tolerance_mm", "-1"), ["tolerance_mm is -1.0"]),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(more, words, masks, experiment, tmp_path, refused):
    arguments = ["--predictions", masks, "--data", experiment(), "--out", tmp_path / "out", *more]
    sentence = refused("evaluate", *arguments)
    assert all(word in sentence for word in words), sentence
    assert not (tmp_path / "out").exists()


def test_another_grid_is_refused_and_resampled_when_asked(masks, experiment, tmp_path, refused):
    moved = AFFINE.copy()
    moved[2, 3] = 5.0
    save(masks / "volume20_cube.nii.gz", cube()[1:], moved)
    arguments = ["--predictions", masks, "--data", experiment(), "--out", tmp_path / "out"]
    sentence = refused("evaluate", *arguments)
    assert "up to 5 mm apart; pass --resample" in sentence
    assert not (tmp_path / "out").exists()
    assert main(["evaluate", *map(str, arguments), "--resample"]) == 0
    assert read(tmp_path / "out")[0]["dsc"] == 1.0


def test_a_run_of_ours_is_not_replaced(masks, tested, tmp_path, refused):
    before = (tested / "cases.json").read_bytes()
    sentence = refused("evaluate", "--predictions", masks, "--data", tmp_path / "exp.yaml", "--out", tested)
    assert "holds something else than an evaluation of masks" in sentence
    assert (tested / "cases.json").read_bytes() == before
    assert "lies in the folder of the masks" in refused(
        "evaluate", "--predictions", masks, "--data", tmp_path / "exp.yaml", "--out", masks / "out"
    )


@pytest.mark.parametrize("other", ["predictions.folder", "data.config", "data.split"])
def test_an_evaluation_of_something_else_is_not_replaced(other, masks, experiment, tmp_path, refused, monkeypatch):
    for name in ("volume20_cube.nii.gz", "volume21_cube.nii.gz"):
        save(tmp_path / "other" / "peer" / name, cube())
    monkeypatch.chdir(tmp_path)
    options = {"--predictions": "peer", "--data": experiment().name}
    assert main(["evaluate", *(word for pair in options.items() for word in pair)]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "runs" / "peer").iterdir() if path.is_file()}
    change = {
        "predictions.folder": {"--predictions": "other/peer"},
        "data.config": {"--data": experiment("other.yaml").name},
        "data.split": {"--split": "val"},
    }
    said = refused("evaluate", *(word for pair in (options | change[other]).items() for word in pair))
    assert said.startswith(f"'runs/peer' holds an evaluation whose {other} is '")
    assert said.endswith("; name another --out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "runs" / "peer").iterdir() if path.is_file()} == before
    assert evaluate(tmp_path / "peer", tmp_path / "exp.yaml", tmp_path / "runs" / "peer", "--lesions", "all") == 0


def test_an_empty_name_is_none(masks, experiment, tested, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in {"--out": masks, "--predictions": ""}.items():
        given = ["--predictions", value, "--data", experiment(), "--out", ""]
        assert refused("evaluate", *given) == f"{name} is ''; name a file or a folder"
    assert not (tmp_path / "runs").exists()
    before = (tested / "evaluation.json").read_bytes()
    assert refused("rescore", tested, "--data", "") == "--data is ''; name a file or a folder"
    refused("rescore", tested, "--rewards", "")
    assert (tested / "evaluation.json").read_bytes() == before


def test_a_run_scored_again_is_the_same_to_the_bit(tested):
    before = {name: (tested / name).read_bytes() for name in ("cases.json", "evaluation.json")}
    (tested / "cases.json").write_bytes(before["cases.json"].replace(b'"dsc": 1.0', b'"dsc": 0.25'))
    assert main(["rescore", str(tested)]) == 0
    assert {name: (tested / name).read_bytes() for name in before} == before


def test_other_measures_need_no_model(tested):
    assert main(["rescore", str(tested), "--surface", "voxels", "--lesions", "all"]) == 0
    settings = read(tested, "evaluation.json")["settings"]
    assert (settings["surface"], settings["lesions"]) == ("voxels", "all")
    assert read(tested)[0]["lesions"]["f1"] == 1.0


def test_rewards_are_paid_for_kept_answers(tested, tmp_path):
    rewards = {"rewards": ["FormatReward", "VolumeDiceReward"], "reward_weights": {"FormatReward": 0.5}}
    (tmp_path / "rewards.json").write_text(json.dumps({"model": {"init_args": rewards}}))
    assert main(["rescore", str(tested), "--rewards", str(tmp_path / "rewards.json")]) == 0
    case = read(tested)[0]
    assert case["rewards"] == {"FormatReward": 1.0, "VolumeDiceReward": case["dsc"], "total": 0.5 + case["dsc"]}
    assert read(tested, "evaluation.json")["all"]["metrics"]["reward"]["mean"] == 0.5 + case["dsc"]


def test_masks_of_another_system_are_scored_again(masks, experiment, tmp_path, refused):
    out = tmp_path / "out"
    config = experiment()
    (masks / "volume21_cube.nii.gz").unlink()
    assert evaluate(masks, config, out) == 0
    before = {name: (out / name).read_bytes() for name in ("cases.json", "evaluation.json")}
    assert main(["rescore", str(out)]) == 0
    assert {name: (out / name).read_bytes() for name in before} == before
    (tmp_path / "rewards.json").write_text('{"model": {"rewards": ["FormatReward"]}}')
    assert "no answers to reward" in refused("rescore", out, "--rewards", tmp_path / "rewards.json")


def test_a_run_that_kept_no_masks_cannot_be_scored_again(experiment, tmp_path, refused):
    changes = {"model__class_path": "EvaluationModule", "model__init_args__optimizer": None}
    config = experiment(**changes, model__init_args__evaluation={"masks_gib": 0.0})
    assert main(["test", "--config", str(config)]) == 0
    assert not (tmp_path / "run" / "masks").exists()
    assert "has not kept the mask of case 'case0'" in refused("rescore", tmp_path / "run")


def test_a_mask_outside_of_the_run_is_not_read(tested, tmp_path, refused):
    text = (tested / "cases.json").read_text()
    (tested / "cases.json").write_text(text.replace("masks/case0", "../elsewhere"))
    assert "does not lie in it" in refused("rescore", tested)


def test_a_mask_that_is_not_the_one_that_was_scored_is_refused(tested, refused):
    before = read(tested)
    save(tested / "masks" / "case1.nii.gz", cube(first=2))  # of another test
    assert refused("rescore", tested).startswith(f"{tested / 'masks' / 'case1.nii.gz'} is not the mask that was scored")
    assert read(tested) == before


def test_a_run_is_not_scored_again_while_a_test_writes_in_it(tested, refused):
    with KeptMasks(tested, 1.0):
        assert "another test or evaluation writes in" in refused("rescore", tested)
    assert main(["rescore", str(tested)]) == 0
    assert not (tested / "masks.partial").exists()


def test_an_evaluation_that_was_killed_between_its_files_is_made_again(masks, experiment, tmp_path, refused):
    out = tmp_path / "out"
    assert evaluate(masks, experiment(), out) == 0
    left = out / ".partial-evaluation.json-x1" / "new"
    left.mkdir(parents=True)
    (out / "evaluation.json").rename(left / "evaluation.json")
    other = tmp_path / "other"
    shutil.copytree(masks, other)
    said = refused("evaluate", "--predictions", other, "--data", tmp_path / "exp.yaml", "--out", out)
    assert "whose predictions.folder is" in said
    assert evaluate(masks, experiment(), out) == 0
    assert (out / "evaluation.json").is_file()
    assert not left.exists()


def test_what_a_killed_evaluation_left_is_in_nobodys_way(masks, experiment, tmp_path, refused):
    out = tmp_path / "out"
    (out / "masks.partial" / "masks").mkdir(parents=True)
    (out / "masks.partial" / "masks" / "case7.nii.gz").write_bytes(b"half")
    (out / ".partial-x1").mkdir()
    assert evaluate(masks, experiment(), out) == 0
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["case0.nii.gz", "case1.nii.gz"]
    assert not (out / "masks.partial").exists()
    (tmp_path / "other" / "masks.partial").mkdir(parents=True)
    (tmp_path / "other" / "notes.txt").touch()
    said = refused("evaluate", "--predictions", masks, "--data", experiment(), "--out", tmp_path / "other")
    assert "holds something else" in said


def test_other_data_are_refused(tested, experiment, refused):
    other = experiment(
        "other.yaml", data__init_args__test={"class_path": "ToyDataset", "init_args": {"count": 3, "first_patient": 20}}
    )
    assert "has not scored case 'case2'" in refused("rescore", tested, "--data", other)
    fewer = experiment(
        "fewer.yaml", data__init_args__test={"class_path": "ToyDataset", "init_args": {"count": 1, "first_patient": 20}}
    )
    assert "the data have no case 'case1'" in refused("rescore", tested, "--data", fewer)


def test_data_of_the_same_ids_about_other_patients_are_refused(tested, experiment, refused):
    """Toys of one id are of the patients 20 and 30."""
    before = {name: (tested / name).read_bytes() for name in ("cases.json", "evaluation.json")}
    test = {"class_path": "ToyDataset", "init_args": {"count": 2, "first_patient": 30}}
    said = refused("rescore", tested, "--data", experiment("other.yaml", data__init_args__test=test))
    assert "case 'case0' is not the one that was scored: score and data differ in patient ('patient20' and" in said
    assert {name: (tested / name).read_bytes() for name in before} == before


def test_the_data_of_a_run_are_found_from_any_folder(masks, experiment, tmp_path, monkeypatch):
    config = experiment()
    monkeypatch.chdir(tmp_path)
    assert evaluate("peer", config.name, "out") == 0
    assert read(tmp_path / "out", "evaluation.json")["data"] == {"config": str(config), "split": "test"}
    before = (tmp_path / "out" / "cases.json").read_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / config.name).write_text("data: {}")
    monkeypatch.chdir(tmp_path / "other")
    assert main(["rescore", "../out"]) == 0
    assert (tmp_path / "out" / "cases.json").read_bytes() == before


def test_a_run_names_the_data_that_it_was_last_scored_on(masks, experiment, tested, tmp_path, monkeypatch):
    out, moved = tmp_path / "out", experiment("moved.yaml")
    assert evaluate(masks, experiment(), out) == 0
    monkeypatch.chdir(tmp_path)
    for run in (out, tested):
        assert main(["rescore", str(run), "--data", "moved.yaml"]) == 0
        assert read(run, "evaluation.json")["data"]["config"] == str(moved)
    assert read(out, "evaluation.json")["data"]["split"] == "test"


def test_the_page_of_cases_finds_the_data_as_the_report_does(masks, experiment, tested, tmp_path, refused):
    """A run without readings has nothing to export, and says so once its cases were found."""
    out, table = tmp_path / "out", tmp_path / "c.csv"
    assert "nothing to train on" in refused("view", tested, "--export", table)
    config = (tested / "test.yaml").rename(tmp_path / "moved.yaml")
    said = refused("view", tested, "--export", table)
    assert said == f"'{tested / 'test.yaml'}', with the data of the run, is not there; name another (--data)"
    assert "nothing to train on" in refused("view", tested, "--export", table, "--data", config)
    assert main(["rescore", str(tested), "--data", str(config)]) == 0
    assert "nothing to train on" in refused("view", tested, "--export", table)
    assert evaluate(masks, experiment(), out) == 0
    assert refused("view", out, "--export", table) == (
        f"'{out}' holds masks of another system, which have no boxes to move; see them in "
        f"`medvol report {out} --html FILE`"
    )


def test_a_run_whose_best_anchors_were_searched_for_is_scored_again(experiment, tmp_path):
    changes = {"model__class_path": "EvaluationModule", "model__init_args__optimizer": None}
    config = experiment(**changes, model__init_args__evaluation={"error_budget": True, "headroom": 4})
    assert main(["test", "--config", str(config)]) == 0
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("cases.json", "evaluation.json")}
    assert main(["rescore", str(tmp_path / "run")]) == 0
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before


def test_a_propagator_that_cannot_be_written_down_fails_before_the_work(experiment, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(ExtrudePropagator, "identity", lambda self: {"depth": float("inf")})
    changes = {"model__class_path": "EvaluationModule", "model__init_args__optimizer": None}
    config = experiment(**changes, model__init_args__propagator="ExtrudePropagator")
    assert "has an identity that cannot be written" in refused("test", "--config", config)
    assert not (tmp_path / "run" / "masks.partial").exists()


def test_label_maps_without_their_names_are_told_from_masks(masks, experiment, tmp_path, refused):
    for path in masks.iterdir():
        path.rename(masks / path.name.replace("_cube", ""))
    said = refused("evaluate", "--predictions", masks, "--data", experiment(), "--out", tmp_path / "out")
    assert said.endswith("if they are label maps, put dataset.json with the names of the labels there")


def test_masks_named_after_no_scan_are_told_with_the_scans(masks, experiment, tmp_path, refused):
    for path in masks.iterdir():
        path.rename(masks / path.name.replace("volume2", "foo"))
    said = refused("evaluate", "--predictions", masks, "--data", experiment(), "--out", tmp_path / "out")
    assert said.startswith("no scan is called foo0, foo1; the scans are called volume20, volume21: rename the files")
    assert "--names" not in said
    assert not (tmp_path / "out").exists()
