"""The report page without a browser: what it says, what it leaves out, and how large it gets."""

import json
import re
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import numpy as np
import pytest
from report_runs import (
    ABOUT,
    HOSTILE,
    HOSTILE_WORDS,
    SETTINGS,
    SHAPE,
    answers,
    find_cases,
    lost,
    make_cases,
    write_curves,
    write_run,
    write_runs,
)

from medvol.core.errors import ConfigError, DatasetError, RecordError
from medvol.evaluation.archive import read_evaluation, write_evaluation
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.comparison import alike, compare_runs
from medvol.evaluation.named_runs import read_runs
from medvol.evaluation.report import LABELS, format_interval, format_p, report_runs
from medvol.evaluation.report_document import describe_runs
from medvol.evaluation.report_page import learning_curves
from medvol.evaluation.report_page.confidence import confidence_blocks
from medvol.evaluation.report_page.learning_curves import plot_curves, read_curves
from medvol.evaluation.report_page.page import make_page, write_report
from medvol.evaluation.report_page.plots import plot_targets, worst_patients
from medvol.evaluation.report_page.run_facts import fingerprint_cases, hide_folders
from medvol.evaluation.report_page.shown_cases import choose_cases
from medvol.evaluation.rescoring import rescore
from medvol.pages import report as page_module
from medvol.pages.report import MAX_REPORT_MIB


class Tables(HTMLParser):
    """Rows of every table, as the texts of their cells; sections are told apart by their ids."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.section, self.inside = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "section" and "part" in (found.get("class") or ""):
            self.section = found["id"]
        if tag == "tr":
            self.rows.append((self.section, []))
        if tag in ("td", "th"):
            self.inside = True
            self.rows[-1][1].append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][1][-1] += data

    def of(self, section):
        return [row for own, row in self.rows if own == section]


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, attributes))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return write_runs(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "report.html"
    return write_report(path, runs, find_cases).read_text(encoding="utf-8")


def blocks_of(page, name):
    return next((section.blocks for section in page.sections if section.name == name), ())


def test_tables_hold_the_numbers_of_evaluation_json(runs, page):
    rows = {row[0]: row[1:] for row in reversed(Tables(page).of("scores")) if len(row) == 4}
    summaries = [json.loads((run / "evaluation.json").read_text())["all"] for run in runs]
    measured = [name for name in LABELS if any(name in one["metrics"] for one in summaries)]
    assert {"dsc", "nsd", "hd95_mm", "lesion_f1", "absent_accuracy", "key_slice_score"} <= set(measured)
    for name in measured:
        assert rows[LABELS[name]] == [format_interval(one["metrics"].get(name)) for one in summaries], name
    for count in ("cases", "patients", "present", "failures"):
        assert rows[count] == [str(one[count]) for one in summaries]


def test_differences_hold_interval_and_p(runs, page):
    loaded = read_runs(runs)
    (first_label, first), *others = loaded.items()
    found = compare_runs(first, dict(others))["dsc"]
    rows = [row for row in Tables(page).of("differences") if row[0] == "DSC"]
    cells = [f"{format_interval(vars(one.interval))} p {format_p(one.p)}" for one in found.values()]
    assert rows[0] == ["DSC", *cells]
    assert f"Difference to {first_label}" in page


def test_the_error_budget_is_that_of_the_run(runs, page):
    budget = json.loads((runs[0] / "evaluation.json").read_text())["error_budget"]
    rows = Tables(page).of("budget")
    assert ["lost by propagation", f"{budget['propagation_loss']:.3f}"] == next(
        row[:2] for row in rows if row[0] == "lost by propagation"
    )
    predicted, lost_by_boxes = f"{budget['predicted']:.3f}", f"{budget['box_loss']:.3f} lost by the boxes"
    assert [predicted, lost_by_boxes] in [row[-2:] for row in rows]


def test_every_case_is_listed_with_its_scores(runs, page):
    scores = [{score.case_id: score for score in read_evaluation(run).scores} for run in runs]
    rows = {row[0]: row for row in Tables(page).of("all")[1:]}
    assert set(rows) == set(scores[0])
    for case_id, row in rows.items():
        for cell, known in zip(row[1:4], scores, strict=True):
            assert cell.startswith(f"{known[case_id].dsc:.3f}")
            assert (known[case_id].failure or "") in cell
    assert "0.000 missing_mask" in rows["case-0"]


def test_what_was_run_is_told_without_folders(runs, page):
    for run in runs:
        for name in ("evaluation.json", "cases.json"):
            assert sha256((run / name).read_bytes()).hexdigest() in page
        assert fingerprint_cases(read_evaluation(run).scores) in page
    assert "WrittenPolicy" in page
    assert "nnunet_out" in page
    assert "2 masks answer no question" in page
    assert "settings.tolerance_mm" in page
    assert not any(part in page for part in ("jane", "john", "/srv", "/data", str(runs[0].parent)))


def test_worst_median_and_best_are_shown_with_picture_and_voxels(runs, page):
    shown = re.findall(r'<article[^>]*aria-label="(\w+) case of (\w+)"', page)
    assert shown == [(rank, run) for rank in ("worst", "median", "best") for run in ("ours", "worse", "nnunet")]
    assert page.count("data:image/png;base64,") == 9
    stacks = [json.loads(text.replace("&#34;", '"')) for text in re.findall(r'data-stack="([^"]+)"', page)]
    assert len(stacks) == 9
    assert all(stack["truth"] and f'id="{stack["truth"]}"' in page for stack in stacks)
    assert page.count('id="niivue"') == 1
    assert [len(stack["boxes"]) for stack in stacks] == [1, 1, 0] * 3  # masks of another system have no boxes


def test_the_same_runs_give_the_same_bytes(runs, page, tmp_path):
    again = write_report(tmp_path / "again.html", runs, find_cases)
    assert again.read_text(encoding="utf-8") == page


def test_hostile_text_stays_text(page):
    assert HOSTILE_WORDS not in page
    assert HOSTILE[:20] not in page
    assert "{{7*7}}" in page
    assert "\u202e" not in page
    assert "&lt;script&gt;document.title" in page


def test_nothing_points_outside_and_only_the_scripts_of_the_page_run(page):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert "unsafe" not in policy
    assert set(re.findall(r'(?:src|href)="(\w+:|#)', page)) == {"#", "data:"}
    elements = [dict(attributes) for _, attributes in Elements(page).found]
    assert not any(name == "style" or name.startswith("on") for attributes in elements for name in attributes)


def test_without_scans_the_numbers_stay_and_the_page_says_why(runs):
    text = make_page(read_runs(runs), lost).render()
    assert text.count("No picture: &#39;scans&#39; is not there; name another (--data).") == 9
    assert "data:image/png" not in text
    assert "niivue" not in re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL).lower()
    assert "/srv" not in text
    assert Tables(text).of("scores") == Tables(make_page(read_runs(runs), find_cases).render()).of("scores")
    assert "asked for without scans" in make_page(read_runs(runs), None).render()


@pytest.mark.parametrize(
    "data", [[], make_cases()[:2], [replace(make_cases()[0], target=None)]], ids=str.__name__ and None
)
def test_other_data_than_those_of_the_run_give_no_picture(runs, data):
    cases = blocks_of(make_page(read_runs(runs[1:2]), lambda run: data), "cases")
    assert any("No picture:" in note for case in cases for note in case.notes)
    assert all((case.picture is None) == (case.stack is None) for case in cases)


def half(case):
    target = case.target.copy()
    target[6:] = False
    return replace(case, target=target)


OTHERS = {
    "patient ('patient-0' and 'q')": lambda case: replace(case, patient_id="q"),
    "question ('the block 0' and 'the ball')": lambda case: replace(case, query=replace(case.query, text="the ball")),
    "target ('brick' and 'ball')": lambda case: replace(case, query=replace(case.query, target="ball")),
    "true volume in ml (19.2 and 7.68)": half,
}
"""Case 0 has 5 x 12 x 20 voxels of 16 cubic millimetres, and 2 of its 5 slices in the last row."""


@pytest.mark.parametrize("difference", OTHERS)
def test_a_case_of_the_same_id_is_not_taken_for_the_one_that_was_scored(difference, tmp_path):
    cases = make_cases()[:4]
    run = write_run(tmp_path / "run", cases, answers(make_cases())[:4])
    data = [OTHERS[difference](cases[0]), *cases[1:]]
    shown = blocks_of(make_page(read_runs([run]), lambda run: data), "cases")
    notes = {case.case_id: case.notes for case in shown if case.picture is None}
    assert list(notes) == ["case-0"]
    assert f"case 'case-0' is not the one that was scored: score and data differ in {difference}" in notes["case-0"][0]
    before = (run / "cases.json").read_bytes()
    with pytest.raises(DatasetError, match=re.escape(difference)):
        rescore(read_evaluation(run), data, SETTINGS)
    assert (run / "cases.json").read_bytes() == before
    assert rescore(read_evaluation(run), cases, SETTINGS) == list(read_evaluation(run).scores)


def test_scores_of_other_cases_of_the_same_id_do_not_stand_side_by_side(tmp_path):
    runs = [
        write_evaluation(tmp_path / name, [score("a", dsc)], ABOUT).parent
        for name, dsc in {"x": 0.25, "y": 0.5}.items()
    ]
    runs.append(write_evaluation(tmp_path / "z", [replace(score("a", 0.75), true_ml=2.0)], ABOUT).parent)
    page = make_page(read_runs(runs), None)
    (table,) = blocks_of(page, "all")
    assert [row[:4] for row in table.rows] == [("a", "0.250", "0.500", "-"), ("a", "-", "-", "0.750")]
    told = {
        case.run_label: [fact.label for fact in case.facts if " of " in fact.label] for case in blocks_of(page, "cases")
    }
    assert told == {"x": ["DSC of y"], "y": ["DSC of x"], "z": []}


def test_a_run_that_kept_no_masks(tmp_path):
    cases = make_cases()
    run = write_run(tmp_path / "run", cases, answers(cases), masks_gib=0.0)
    shown = blocks_of(make_page(read_runs([run]), find_cases), "cases")
    assert [case.rank for case in shown] == ["worst", "median", "best"]
    assert all("has not kept the mask" in case.notes[0] and str(tmp_path) not in case.notes[0] for case in shown)


def test_a_run_with_only_failures(tmp_path):
    cases = make_cases()
    run = write_run(tmp_path / "run", cases, ["nothing"] * 6)
    page = make_page(read_runs([run]), find_cases)
    assert blocks_of(page, "cases")[0].sentences == ("No case of run has a target and an answer that did not fail.",)
    (failed,) = blocks_of(page, "failures")
    assert [item.words for item in failed.items] == ["nothing"] * 6
    assert failed.title == "run: no_answer 6"
    assert page.render().count('class="badge failed"') == 6


def test_a_report_stays_within_its_size(runs, monkeypatch):
    page = make_page(read_runs(runs), find_cases)
    whole = page.render()
    bare = len(make_page(read_runs(runs), None).render())
    for limit in np.linspace(bare + 5_000, len(whole) + 150_000, 8).astype(int).tolist():
        monkeypatch.setattr(page_module, "_MIB", limit / MAX_REPORT_MIB)
        text = page.render()
        assert len(text.encode()) <= limit
        left_out = text.count("Not shown of this case: its picture")
        assert text.count("data:image/png") == 9 - left_out
    assert left_out == 0
    assert text.count("data-stack") == 9
    monkeypatch.setattr(page_module, "_MIB", bare / 2 / MAX_REPORT_MIB)
    with pytest.raises(ConfigError, match=r"the tables of 3 runs alone take .* report fewer runs at once"):
        page.render()


def test_thousands_of_cases_are_bounded(tmp_path):
    run = read_evaluation(write_run(tmp_path / "run", make_cases()[:1], ["x"]))
    rng = np.random.default_rng(0)
    scores = [
        replace(
            run.scores[0], case_id=f"case-{i:05}", target=f"target {i % 70}", dsc=float(dsc), completion="x" * 9_999
        )
        for i, dsc in enumerate(rng.random(1200))
    ]
    write_evaluation(tmp_path / "large", scores, ABOUT)
    text = make_page(read_runs([tmp_path / "large"]), None).render()
    assert len(text) < 2 * 2**20
    assert len(Tables(text).of("all")) == 1 + 1000
    assert "The first 1,000 of 1,200 cases; cases.json has all." in text
    assert "10 smaller groups are not drawn" in text
    assert "20 of 1200, the rarest kinds first" in text
    assert "(7999 more letters)" in text


def test_an_existing_file_is_kept(runs, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(RecordError, match="is there already; add --overwrite"):
        write_report(path, runs, None)
    assert path.read_text() == "mine"
    assert write_report(path, runs, None, overwrite=True).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def score(case_id="a", dsc=0.5, present=True, failure=None, patient="p"):
    return CaseScore(case_id, patient, "q", "t", "explicit", False, "CT", present, dsc, dsc, 1.0, 1.0, failure=failure)


def test_chosen_cases_are_those_of_a_sorted_list():
    rng = np.random.default_rng(0)
    for size in range(1, 12):
        scores = [
            score(
                f"c{i}",
                float(rng.integers(0, 4)) / 4,
                bool(rng.random() < 0.8),
                "no_answer" if rng.random() < 0.2 else None,
            )
            for i in range(size)
        ]
        ranked = sorted((one.dsc, one.case_id) for one in scores if one.present and one.failure is None)
        chosen = choose_cases(scores)
        assert all(scores[one.place] is one.score for one in chosen)
        found = [(one.rank, (one.score.dsc, one.score.case_id)) for one in chosen]
        if len(ranked) < 2:
            assert found == [("only", row) for row in ranked]
            continue
        middle = [("median", ranked[(len(ranked) - 1) // 2])] if len(ranked) > 2 else []
        assert found == [("worst", ranked[0]), *middle, ("best", ranked[-1])]


def test_curves_of_several_starts_follow_one_another(tmp_path):
    write_curves(tmp_path, "step,train/loss,val/dsc,test/dsc\n0,4,,\n1,3,,\n2,9,,\n2,,0.5,0.7\n")
    write_curves(tmp_path, "step,train/loss\n2,2\n3,1\n", start=1)
    assert read_curves(tmp_path) == {"train/loss": [(0, 4), (1, 3), (2, 2), (3, 1)], "val/dsc": [(2, 0.5)]}


def test_what_is_no_finite_number_is_no_point(tmp_path):
    write_curves(tmp_path, "step,a,b\n0,nan,inf\n1,1e999,x\n,5,5\n2,-1,1e300\n")
    assert read_curves(tmp_path) == {"a": [(2, -1)]}
    assert read_curves(tmp_path / "none") == {}


@pytest.mark.parametrize("text", [b"\xff\xfe\x00step", b"step," + b",".join(b"c%d" % i for i in range(600)) + b"\n"])
def test_damaged_curves_are_said_and_the_report_goes_on(text, tmp_path):
    run = write_run(tmp_path / "run", make_cases(), answers(make_cases()))
    write_curves(run)
    (run / "metrics" / "version_0" / "metrics.csv").write_bytes(text)
    with pytest.raises(RecordError):
        read_curves(run)
    (words,) = blocks_of(make_page(read_runs([run]), None), "curves")
    assert words.sentences[0].startswith("run has no curves here: metrics.csv")


def test_long_curves_are_thinned_to_means():
    points = [(float(i), float(i % 2)) for i in range(6000)]
    (block,) = plot_curves({"run": {"train/loss": points}})
    (line,) = [mark for mark in block.drawings[0].marks if mark.tag == "polyline"]
    assert len(line.attributes["points"].split()) == learning_curves.MAX_POINTS
    assert len({place.split(",")[1] for place in line.attributes["points"].split()}) == 1  # every mean is a half


def test_the_fingerprint_is_of_the_questions_and_not_of_the_answers():
    scores = [score("a"), score("b")]
    same = fingerprint_cases([replace(scores[1], dsc=0.1, completion="x"), scores[0]])
    assert fingerprint_cases(scores) == same
    assert fingerprint_cases([scores[0], replace(scores[1], true_ml=2.0)]) != same
    assert fingerprint_cases(scores[:1]) != same


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/data/jane doe/ct.nii.gz", "ct.nii.gz"),
        ("root: /srv/a b/scans\ntable: x/y.csv", "root: scans\ntable: x/y.csv"),
        ("'/a/b' is not '~/c/d'", "'b' is not 'd'"),
        (r"C:\Users\jane\ct.nii", "ct.nii"),
        ("../jane/ct.nii", "ct.nii"),
        ("https://host.org/a/b", "https://host.org/a/b"),
        ("train/loss, 1/2/3, bundled:best", "train/loss, 1/2/3, bundled:best"),
    ],
)
def test_folders_are_hidden(text, shown):
    assert hide_folders(text) == shown


def test_runs_of_the_same_cases_are_compared_among_themselves(tmp_path):
    for name, cases in {"a": "xy", "b": "pq", "c": "xy", "d": "pq"}.items():
        write_evaluation(tmp_path / name, [score(one, patient=one) for one in cases], ABOUT)
    folders = [tmp_path / name for name in "abcd"]
    assert [list(group) for group in alike(read_runs(folders))] == [["a", "c"], ["b", "d"]]
    titles = [sheet.title for sheet in report_runs(folders).sheets if sheet.topic == "differences"]
    assert [title.split(",")[0] for title in titles] == ["difference to a", "difference to b"]
    differences = {row["run"]: row for row in describe_runs(folders)["differences"]}
    assert {name: row["against"] for name, row in differences.items()} == {"b": None, "c": "a", "d": "b"}
    assert differences["b"]["metrics"] is None
    assert differences["d"]["metrics"]["dsc"]["patients"] == 2
    assert list(report_runs(folders).remarks) == []
    assert list(report_runs(folders[:3]).remarks) == ["no other run answered the cases of b: no paired difference"]


def test_patients_are_ordered_by_their_mean(runs):
    rows = worst_patients(read_runs(runs[:1]))
    means = {}
    for one in read_evaluation(runs[0]).scores:
        if one.present:
            means.setdefault(one.patient_id, []).append(one.dsc)
    expected = sorted((float(np.mean(values)), name) for name, values in means.items())
    assert [(values[0], name) for name, values in rows] == [(pytest.approx(mean), name) for mean, name in expected]


def test_dots_lie_where_their_scores_are(runs):
    (block,) = plot_targets(read_runs(runs[:1]))
    scores = [one.dsc for one in read_evaluation(runs[0]).scores if one.present and one.target == "block"]
    strip = next(strip for strip in block.strips if strip.label == "block")
    dots = sorted(float(mark.attributes["cx"]) / 400 for mark in strip.drawing.marks if mark.tag == "circle")
    np.testing.assert_allclose(dots, sorted(scores), atol=2e-4)
    assert strip.cells == (f"{np.median(scores):.3f}", f"{np.mean(scores):.3f}", str(len(scores)))


def test_confidences_give_a_curve_and_a_list_to_look_at(runs):
    run = read_evaluation(runs[0])
    scores = tuple(replace(score(f"c{i}", i / 10), confidence=1 - i / 10) for i in range(4))
    curve, _, table = blocks_of(make_page({"run": replace(run, scores=scores)}, None), "confidence")
    assert curve.drawings[0].words.startswith("run over share of the cases")
    assert [(row[0], *row[2:]) for row in table.rows] == [
        (f"c{i}", f"{1 - i / 10:.3f}", f"{i / 10:.3f}") for i in (3, 2, 1, 0)
    ]
    assert list(confidence_blocks({"run": run})) == []


def test_the_picture_is_of_the_slice_that_is_told(runs):
    cases = blocks_of(make_page(read_runs(runs[2:]), find_cases), "cases")
    target = make_cases()[1].target
    key = int(np.argmax(target.sum(axis=(1, 2))))
    assert all(f"Slice {key} of 0 to {SHAPE[0] - 1}; mask in green" in case.caption for case in cases)
