"""Writing, reading and comparing evaluations."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from medvol.core.errors import ConfigError, RecordError
from medvol.core.json_file import write_json
from medvol.evaluation import archive
from medvol.evaluation.archive import read_evaluation, write_evaluation
from medvol.evaluation.lesions import LesionScore
from medvol.evaluation.named_runs import name_folders
from medvol.evaluation.report import format_interval, format_p, report_runs
from medvol.evaluation.report_document import describe_runs
from medvol.evaluation.settings import EvaluationSettings
from medvol.evaluation.summary import mean_scores, summarise
from medvol.grounding.anchors import label_anchor

TRUE_BOX = (15, 10, 35, 20)
SURFACE = EvaluationSettings(surface="surfels")
ABOUT = {"policy": {"name": "P"}, "propagator": {"name": "R"}}


@pytest.fixture
def make_scores(make_case, write_answer, box_propagator, score_answer):
    """Scores of six present targets of three patients and one absent one; ``width`` of the box decides the DSC."""

    def make(width=20, patients=3):
        answer = write_answer(6, (15, 10, 15 + width, 20))
        cases = [make_case(f"case-{i}", patient=f"p{i % patients}", held_out=i > 3) for i in range(6)]
        scores = [score_answer(case, answer, box_propagator(), SURFACE, label_anchor(case.target)) for case in cases]
        absent = make_case("none", present=False, patient="p0", kind="absent")
        return [*scores, score_answer(absent, "?", box_propagator(), SURFACE)]

    return make


def text_of(report):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(report)
    return capture.get()


def test_round_trip(make_scores, tmp_path):
    scores = make_scores(10)
    path = write_evaluation(tmp_path / "run", scores, ABOUT)
    assert path == tmp_path / "run" / "evaluation.json"
    evaluation = read_evaluation(tmp_path / "run")
    assert list(evaluation.scores) == scores
    assert evaluation.summary["policy"] == {"name": "P"}
    assert evaluation.summary["versions"]["medvol-r1"]
    assert evaluation.summary["bootstrap_seed"] == 0


def test_absent_targets_do_not_enter_the_dice(make_scores):
    means = mean_scores(make_scores(20))
    assert means["dsc"] == pytest.approx(1.0)
    assert means["absent_accuracy"] == 0.0
    assert means["format_rate"] == pytest.approx(6 / 7)


def test_failures_count_in_every_denominator(make_scores):
    scores = make_scores(20)
    failed = dataclasses.replace(scores[0], dsc=0.0, parsed=False, failure="no_answer")
    summary = summarise([failed, *scores[1:]])
    assert summary["all"]["metrics"]["dsc"]["mean"] == pytest.approx(5 / 6)
    assert summary["failures"] == {"no_answer": 2}
    assert summary["all"]["failures"] == 2


def test_same_scores_same_bytes(make_scores, tmp_path):
    for name in ("a", "b"):
        write_evaluation(tmp_path / name, make_scores(13), ABOUT)
    assert (tmp_path / "a" / "evaluation.json").read_bytes() == (tmp_path / "b" / "evaluation.json").read_bytes()


def test_one_run(make_scores, tmp_path):
    write_evaluation(tmp_path / "run", make_scores(20), ABOUT)
    text = text_of(report_runs([tmp_path / "run"]))
    assert "failures count as 0" in text
    assert "error budget" in text
    assert "DSC by kind" in text
    assert "DSC by modality" not in text  # there is only one
    assert "failures of run: no_answer 1" in text
    assert "difference" not in text


def test_a_group_names_the_cases_that_its_dice_is_over(make_scores, tmp_path):
    """Of the seen phrasings four show their target, and one is absent."""
    write_evaluation(tmp_path / "run", make_scores(20), ABOUT)
    sheets = {
        sheet.title: {row[0]: row[1].partition("(")[2] for row in sheet.rows}
        for sheet in report_runs([tmp_path / "run"]).sheets
    }
    assert sheets["DSC by phrasing"] == {"held-out": "n=2)", "seen": "n=4)"}
    assert sheets["DSC by kind"]["absent"] == ""


def test_runs_of_the_same_cases_are_paired(make_scores, tmp_path):
    write_evaluation(tmp_path / "before", make_scores(10), ABOUT)
    write_evaluation(tmp_path / "after", list(reversed(make_scores(20))), ABOUT)
    report = report_runs([tmp_path / "before", tmp_path / "after"])
    difference = next(sheet for sheet in report.sheets if sheet.title.startswith("difference to before"))
    rows = dict(difference.rows)
    gain = 1 - 2 * 10 / (10 + 20)
    assert rows["DSC"] == format_interval({"mean": gain, "low": gain, "high": gain}) + " p 0.250"  # 2 of 8 signs
    assert rows["box IoU"].startswith("0.500")
    assert (
        report.remarks == ("failures of before: no_answer 1", "failures of after: no_answer 1")
        or len(report.remarks) == 2
    )


def test_no_p_is_shown_as_nothing():
    assert [format_p(p) for p in (1.0, 0.0324, 0.001, 0.0009, 1e-9)] == ["1.000", "0.032", "0.001", "<0.001", "<0.001"]


def test_p_values_are_raised_over_the_runs(make_scores, tmp_path):
    """Three patients whose signs agree have 2 / 8; with two runs beside the first, Holm doubles it."""
    for name, width in {"first": 10, "a": 20, "b": 14}.items():
        write_evaluation(tmp_path / name, make_scores(width), ABOUT)
    report = report_runs([tmp_path / name for name in ("first", "a", "b")])
    rows = {row[0]: row[1:] for row in report.sheets[1].rows}
    assert [cell.split(" p ")[1] for cell in rows["DSC"]] == ["0.500", "0.500"]


def test_surfaces_that_are_measured_in_two_ways_are_not_compared(make_scores, tmp_path):
    for name, surface in {"a": "surfels", "b": "voxels"}.items():
        settings = {"settings": {"surface": surface, "tolerance_mm": 2.0}}
        write_evaluation(tmp_path / name, make_scores(20), {**ABOUT, **settings})
    report = report_runs([tmp_path / "a", tmp_path / "b"])
    said = "b and a differ in surface (voxels and surfels), so they are not compared in"
    assert {f"{said} NSD", f"{said} HD95 mm"} <= set(report.remarks)
    assert {"NSD", "HD95 mm"}.isdisjoint(row[0] for row in report.sheets[1].rows)
    assert "DSC" in [row[0] for row in report.sheets[1].rows]


SETTINGS = {"surface": "surfels", "tolerance_mm": 2.0, "split_boxes": True, "lesions": "named"}
REWARDED = {
    "settings": SETTINGS,
    "rewards": {"AxialReward": "AxialReward()"},
    "reward_weights": {"AxialReward": 1.0},
}
UNLIKE = {
    "tolerance_mm": ({}, "NSD"),
    "split_boxes": ({"settings": {**SETTINGS, "split_boxes": False}}, "box IoU"),
    "reward_weights": ({"reward_weights": {"AxialReward": 2.0}}, "reward"),
    "rewards": ({"rewards": {"AxialReward": "AxialReward(delta=3)"}}, "reward"),
    "max_anchors": ({}, "key slice and box IoU"),
    "lesions": (
        {"settings": {**SETTINGS, "lesions": "all"}},
        "HIT, lesion precision, lesion recall, lesion F1, lesion DSC and panoptic quality",
    ),
}
OF_CASES = {"max_anchors": 4, "tolerance_mm": 1.0}
LESIONS = LesionScore(2, 1, 1, 1.0, 1.0, 0.5, 2 / 3, 0.4, 0.5)


@pytest.mark.parametrize("name", [None, *UNLIKE])
def test_metrics_whose_meaning_differs_are_not_compared(name, make_scores, tmp_path):
    change, metrics = UNLIKE.get(name, ({}, ""))
    more = {"rewards": {"AxialReward": 1.0, "total": 1.0}, "lesions": LESIONS}
    scores = [dataclasses.replace(score, **more) for score in make_scores(20)]
    write_evaluation(tmp_path / "a", scores, {**ABOUT, **REWARDED})
    if name in OF_CASES:
        scores = [dataclasses.replace(score, **{name: OF_CASES[name]}) for score in scores]
    write_evaluation(tmp_path / "b", scores, {**ABOUT, **REWARDED, **change})
    report = report_runs([tmp_path / "a", tmp_path / "b"])
    rows = {row[0] for row in report.sheets[1].rows}
    remarks = [remark for remark in report.remarks if "not compared" in remark]
    left_out = set(metrics.replace(" and ", ", ").split(", ")) - {""}
    assert rows == {row[0] for row in report.sheets[0].rows[4:]} - left_out
    assert {"DSC", "HD95 mm"} <= rows
    assert len(remarks) == bool(name)
    if name:
        assert remarks[0].startswith(f"b and a differ in {name} (")
        assert remarks[0].endswith(f"so they are not compared in {metrics}")


def test_a_tolerance_that_no_case_was_measured_with_does_not_count(make_scores, tmp_path):
    """As where a challenge sets the tolerance of every target."""
    for name, tolerance in {"a": 1.0, "b": 2.0}.items():
        settings = {"settings": {**SETTINGS, "tolerance_mm": tolerance}}
        write_evaluation(tmp_path / name, make_scores(20), {**ABOUT, **settings})
    report = report_runs([tmp_path / "a", tmp_path / "b"])
    assert "NSD" in [row[0] for row in report.sheets[1].rows]


def test_a_metric_of_different_cases_is_not_compared(make_scores, tmp_path):
    """Cases 0 and 3 are of one patient: the patients alone would not tell."""
    for name, place in {"a": 0, "b": 3}.items():
        scores = make_scores(20)
        scores[place] = dataclasses.replace(scores[place], lesions=LESIONS)
        write_evaluation(tmp_path / name, scores, ABOUT)
    folders = [tmp_path / "a", tmp_path / "b"]
    report = report_runs(folders)
    metrics = UNLIKE["lesions"][1]
    said = f"b and a have values of different cases, so they are not compared in {metrics}"
    assert [remark for remark in report.remarks if "not compared" in remark] == [said]
    assert [row[0] for row in report.sheets[1].rows][-1] == "absent"
    (told,) = describe_runs(folders)["differences"]
    assert set(told["metrics"]) == {
        "format_rate",
        "key_slice_score",
        "box_iou",
        "dsc",
        "iou",
        "nsd",
        "hd95_mm",
        "absent_accuracy",
    }
    names = ["hit", "precision", "recall", "f1", "dice", "panoptic"]
    assert told["left_out"] == {f"lesion_{name}": "the runs have values of different cases" for name in names}


def test_runs_of_other_cases_are_not_paired(make_scores, tmp_path):
    write_evaluation(tmp_path / "a", make_scores(10), ABOUT)
    write_evaluation(tmp_path / "b", make_scores(10)[1:], ABOUT)
    report = report_runs([tmp_path / "a", tmp_path / "b"])
    assert not any(sheet.title.startswith("difference") for sheet in report.sheets)
    assert [line for line in report.remarks if line.endswith("no paired difference")] == [
        f"no other run answered the cases of {name}: no paired difference" for name in "ab"
    ]


def test_markdown_is_one_table_a_sheet_and_escapes_bars(make_scores, tmp_path):
    scores = [dataclasses.replace(score, target=f"left|right {i % 2}") for i, score in enumerate(make_scores(10))]
    write_evaluation(tmp_path / "run", scores, ABOUT)
    report = report_runs([tmp_path / "run"])
    markdown = report.to_markdown()
    assert markdown.count("| --- |") == len(report.sheets)
    assert "left\\|right 0" in markdown


def test_names_are_not_read_as_markup(make_scores, tmp_path):
    scores = [dataclasses.replace(score, target=f"[bold]{i % 2}[/nope]") for i, score in enumerate(make_scores(10))]
    write_evaluation(tmp_path / "run", scores, ABOUT)
    assert "[bold]0[/nope]" in text_of(report_runs([tmp_path / "run"]))


def test_names_are_neither_html_nor_lines_of_markdown(make_scores, tmp_path):
    scores = [dataclasses.replace(score, target="a<b>\n| c & d") for score in make_scores(10)]
    scores[0] = dataclasses.replace(scores[0], target="e")
    write_evaluation(tmp_path / "run", scores, ABOUT)
    text = report_runs([tmp_path / "run"]).to_markdown()
    assert "| a&lt;b> \\| c &amp; d |" in text
    assert "<b>" not in text


def test_neither_file_is_written_when_one_cannot_be(make_scores, tmp_path):
    write_evaluation(tmp_path, make_scores(10), ABOUT)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_evaluation(tmp_path, make_scores(20), {"policy": {"temperature": float("inf")}})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_large_test_can_be_read_back(make_scores, tmp_path):
    """Words with more signs than other files may have values, and room for ten times 45,000 questions."""
    scores = [dataclasses.replace(score, completion=",[{" * 100_000) for score in make_scores(10)]
    path = write_evaluation(tmp_path / "run", scores, ABOUT).with_name("cases.json")
    assert read_evaluation(tmp_path / "run").scores == tuple(scores)
    rows = json.loads(path.read_text())
    values = sum(len(row) + sum(len(part) for part in row.values() if isinstance(part, dict)) for row in rows)
    assert 450_000 * values / len(rows) < archive._MAX_VALUES


@pytest.mark.parametrize("bound", ["_MAX_VALUES", "_MAX_BYTES"])
def test_nothing_is_written_that_cannot_be_read_back(make_scores, tmp_path, monkeypatch, bound):
    write_evaluation(tmp_path, make_scores(10), ABOUT)
    before = (tmp_path / "cases.json").read_bytes()
    monkeypatch.setattr(archive, bound, 50)
    with pytest.raises(RecordError, match=r"cases could not be read back .*test fewer cases at a time"):
        write_evaluation(tmp_path, make_scores(20), ABOUT)
    assert (tmp_path / "cases.json").read_bytes() == before


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/a/model", "x/b/model"], ["a/model", "b/model"]),
        (["x/a/model", "y/a/model", "x/c"], ["x/a/model", "y/a/model", "c"]),
        (["/model", "/x/model"], ["/model", "x/model"]),
        (["."], ["here"]),
        ([".", "b/.."], ["here", "here"]),
    ],
)
def test_runs_are_called_by_the_shortest_ending_that_tells_them_apart(folders, names, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if len(set(names)) < len(names):
        with pytest.raises(ConfigError, match="one or more different run folders"):
            report_runs(folders)
    else:
        assert name_folders([Path(folder) for folder in folders]) == names


def test_a_report_shows_these_names(make_scores, tmp_path, monkeypatch):
    folders = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    for folder in folders:
        write_evaluation(folder, make_scores(10), ABOUT)
    assert list(report_runs(folders).sheets[0].head) == ["", "a/run", "b/run"]
    monkeypatch.chdir(folders[0])
    assert list(report_runs(["."]).sheets[0].head) == ["", "run"]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"patient_id": "q"}, "patient ('p0' and 'q')"),
        ({"query": "another"}, "question ('case-0' and 'another')"),
        ({"target": "ball"}, "target ('box' and 'ball')"),
        ({"present": False}, "presence of the target (True and False)"),
        ({"true_ml": 2.0}, "true volume in ml (4.0 and 2.0)"),
    ],
)
def test_cases_of_one_id_that_differ_are_not_paired(change, difference, make_scores, tmp_path):
    """The box has 5 x 10 x 20 voxels of 1 x 1 x 4 mm: 4 ml."""
    scores = make_scores(10)
    write_evaluation(tmp_path / "a", [dataclasses.replace(scores[0], **change), *scores[1:]], ABOUT)
    for name in "bc":
        write_evaluation(tmp_path / name, scores, ABOUT)
    report = report_runs([tmp_path / name for name in "abc"])
    assert [sheet.title.split(",")[0] for sheet in report.sheets if sheet.topic == "differences"] == ["difference to b"]
    assert report.remarks[-2:] == [
        "no other run answered the cases of a: no paired difference",
        f"b and a did not answer the same cases: case 'case-0' differs in {difference}",
    ]


def test_rounding_of_a_true_volume_makes_no_other_case(make_scores, tmp_path):
    for name, volume in {"a": 0.1 + 0.2, "b": 0.3}.items():
        scores = [dataclasses.replace(score, true_ml=volume) for score in make_scores(10)]
        write_evaluation(tmp_path / name, scores, ABOUT)
    assert any(sheet.topic == "differences" for sheet in report_runs([tmp_path / "a", tmp_path / "b"]).sheets)


def test_a_report_needs_different_folders(tmp_path):
    for folders in ([], [tmp_path, tmp_path / "." / ""]):
        with pytest.raises(ConfigError, match="one or more different run folders"):
            report_runs(folders)


def break_nothing_there(folder):
    (folder / "evaluation.json").unlink()


def break_cut_short(folder):
    text = (folder / "evaluation.json").read_text()
    (folder / "evaluation.json").write_text(text[: len(text) // 2])


def break_other_schema(folder):
    write_json(folder / "evaluation.json", {"schema": "another/9"})


def break_not_text(folder):
    (folder / "cases.json").write_bytes(np.arange(256, dtype=np.uint8).tobytes())


def break_no_cases(folder):
    write_json(folder / "cases.json", [])


def break_missing_field(folder):
    write_json(folder / "cases.json", [{"case_id": "a"}])


def break_row_is_a_number(folder):
    write_json(folder / "cases.json", [3])


def break_budget(folder):
    rows = json.loads((folder / "cases.json").read_text())
    rows[0]["budget"] = {"guess": 1}
    write_json(folder / "cases.json", rows)


def break_wrong_type(folder):
    rows = json.loads((folder / "cases.json").read_text())
    rows[0]["dsc"] = "high"
    write_json(folder / "cases.json", rows)


def break_no_seed(folder):
    write_json(folder / "evaluation.json", {"schema": "medvol-evaluation/1"})


def break_not_a_number(folder):
    (folder / "cases.json").write_text((folder / "cases.json").read_text().replace("1.0", "NaN"))


def break_into_a_folder(folder):
    (folder / "cases.json").unlink()
    (folder / "cases.json").mkdir()


def change_rows(folder, **changes):
    rows = json.loads((folder / "cases.json").read_text())
    rows[0] |= changes
    (folder / "cases.json").write_text(json.dumps(rows))


def change_summary(folder, **changes):
    summary = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps(summary | changes))


def break_beyond_its_range(folder):
    change_rows(folder, dsc=7.0)


def break_below_its_range(folder):
    change_rows(folder, hd95_mm=-1.0)


def break_truth_for_a_number(folder):
    change_rows(folder, iou=True)


def break_digits_without_end(folder):
    change_rows(folder, mask_ml=10**400)


def break_infinite(folder):
    change_rows(folder)
    (folder / "cases.json").write_text((folder / "cases.json").read_text().replace('"mask_ml": ', '"mask_ml": 1e999'))


def break_a_case_twice(folder):
    change_rows(folder, case_id="case-1")


def break_settings(folder):
    change_summary(folder, settings=[1])


def break_data(folder):
    change_summary(folder, data="exp.yaml")


def break_seed(folder):
    change_summary(folder, bootstrap_seed=-1)


GIVEN = dataclasses.asdict(LESIONS)
WRONG = {
    "rewards have no total: {}": {"rewards": {}},
    "rewards have no total: {'AxialReward': 1.0}": {"rewards": {"AxialReward": 1.0}},
    "rewards.total is -1.0": {"rewards": {"total": -1.0}},
    "rewards.AxialReward is 1.5": {"rewards": {"AxialReward": 1.5, "total": 1.5}},
    "precision is 7.0": {"lesions": {**GIVEN, "precision": 7.0}},
    "true is 0": {"lesions": {**GIVEN, "true": 0}},
    "found is -1": {"lesions": {**GIVEN, "found": -1}},
    "true_boxes is -4.0": {"budget": {"true_anchor": 1.0, "true_boxes": -4.0, "predicted": 0.5}},
    "best_anchor is 1.5": {"budget": {"true_anchor": 1, "true_boxes": 1, "predicted": 1, "best_anchor": 1.5}},
    "max_anchors is 0": {"max_anchors": 0},
    "key_slice is -1": {"key_slice": -1},
}


@pytest.mark.parametrize("words", WRONG)
def test_values_that_cannot_be_are_named(words, make_scores, tmp_path):
    write_evaluation(tmp_path, make_scores(10), ABOUT)
    change_rows(tmp_path, **WRONG[words])
    with pytest.raises(RecordError) as caught:
        read_evaluation(tmp_path)
    path = tmp_path / "cases.json"
    assert str(caught.value) == f"{path} holds a case that cannot be read ({words}); run the test again"


def test_values_at_their_ends_are_read(make_scores, tmp_path):
    """A total is bounded by its weights alone, and a prediction may have no lesion."""
    write_evaluation(tmp_path, make_scores(10), ABOUT)
    ends = {
        "rewards": {"AxialReward": 1.0, "Further": 0.0, "total": 40.0},
        "lesions": {**dict.fromkeys(GIVEN, 0), "true": 1},
        "budget": {"true_anchor": 0, "true_boxes": 1, "predicted": 0.0},
    }
    change_rows(tmp_path, **ends)
    score = read_evaluation(tmp_path).scores[0]
    assert (score.rewards["total"], score.lesions.true, score.budget.true_boxes) == (40.0, 1, 1)


BREAKS = [value for name, value in sorted(globals().items()) if name.startswith("break_")]


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
def test_missing_or_odd_files_are_refused_in_one_sentence(make_scores, tmp_path, damage):
    write_evaluation(tmp_path, make_scores(10), ABOUT)
    damage(tmp_path)
    with pytest.raises(RecordError, match=r"(evaluation|cases)\.json") as caught:
        report_runs([tmp_path])
    assert "\n" not in str(caught.value)
