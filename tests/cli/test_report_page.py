"""``medvol report --html``: one file beside the tables, the JSON and the Markdown."""

import json
import re

import pytest

from medvol.cli import main


@pytest.fixture
def tested(experiment, tmp_path):
    """A tested toy."""
    config = experiment(model__class_path="EvaluationModule", model__init_args__optimizer=None)
    assert main(["test", "--config", str(config)]) == 0
    return tmp_path / "run"


def test_a_run_becomes_a_page_with_its_own_scans(tested, tmp_path, capsys):
    capsys.readouterr()
    path = tmp_path / "out" / "report.html"
    assert main(["report", str(tested), "--html", str(path)]) == 0
    assert re.fullmatch(rf"report: {re.escape(str(path))} \(1\.\d MiB\)\n", capsys.readouterr().out)
    text = path.read_text(encoding="utf-8")
    assert re.findall(r'aria-label="(\w+) case of run"', text) == ["worst", "best"]
    assert text.count("data:image/png") == 2
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_data_can_be_named_and_scans_left_out(tested, experiment, tmp_path):
    config = (tested / "test.yaml").rename(tmp_path / "moved.yaml")
    lost, found, none = (tmp_path / f"{name}.html" for name in ("lost", "found", "none"))
    assert main(["report", str(tested), "--html", str(lost)]) == 0
    assert "test.yaml&#39;, with the data of the run, is not there" in lost.read_text(encoding="utf-8")
    assert main(["report", str(tested), "--html", str(found), "--data", str(config)]) == 0
    assert found.read_text(encoding="utf-8").count("data:image/png") == 2
    assert main(["report", str(tested), "--html", str(none), "--no_scans"]) == 0
    assert "data:image/png" not in none.read_text(encoding="utf-8")


def test_a_page_comes_beside_json(tested, tmp_path, capsys):
    capsys.readouterr()
    assert main(["report", str(tested), "--json", "--html", str(tmp_path / "report.html"), "--no_scans"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "medvol-report/1"
    assert (tmp_path / "report.html").is_file()


def test_a_page_that_is_there_is_kept_unless_it_may_go(tested, tmp_path, refused):
    path = tmp_path / "report.html"
    path.write_text("mine")
    assert "is there already; add --overwrite" in refused("report", tested, "--html", path)
    assert path.read_text() == "mine"
    assert main(["report", str(tested), "--html", str(path), "--no_scans", "--overwrite"]) == 0
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("name", ["evaluation.json", "cases.json", "test.yaml", "html"])
def test_no_other_file_is_replaced_by_a_page(name, tested, refused):
    before = {path.name: path.read_bytes() for path in tested.iterdir() if path.is_file()}
    said = refused("report", tested, "--html", tested / name, "--no_scans", "--overwrite")
    assert said == f"'{tested / name}' does not end in .html or .htm; name a file that does"
    assert {path.name: path.read_bytes() for path in tested.iterdir() if path.is_file()} == before
    assert main(["report", str(tested), "--html", str(tested / "page.HTM"), "--no_scans"]) == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--overwrite",), "--overwrite is about the HTML file; add --html FILE"),
        (("--no_scans",), "--no_scans is about the HTML file"),
        (("--html", "r.html", "--data", "none.yaml"), "--data 'none.yaml' is no file"),
        (("--html", "r.html", "--data", "x", "--no_scans"), "leave one of them out"),
        (("--json", "--markdown"), "two forms of one report"),
    ],
)
def test_what_does_not_go_together_is_refused(more, words, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in refused("report", tmp_path, *more)
    assert not (tmp_path / "r.html").exists()


def test_a_folder_and_a_run_without_results_leave_nothing(tmp_path, refused):
    assert "evaluation.json does not exist" in refused("report", tmp_path, "--html", tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
    (tmp_path / "folder").mkdir()
    assert "folder" in refused("report", tmp_path, "--html", tmp_path / "folder")
