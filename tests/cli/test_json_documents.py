"""``--json``: one document on standard output that its published schema describes, and that the page describes too."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from medvol.cli import main
from medvol.cli.json_document import keep_stdout, print_document
from medvol.core.json_file import parse_json

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in sorted((DOCS / "schemas").glob("*.json"))}
TOY = ("--policy", "ToyPolicy", "--propagator", "ToyPropagator")

Document = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def document(capsys: pytest.CaptureFixture[str]) -> Document:
    """Run a command; its exit code and the document, which has been held to its schema."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main([*map(str, arguments), "--json"])
        content = parse_json(capsys.readouterr().out)
        schema = SCHEMAS[content["schema"].replace("/", "-")]
        jsonschema.validate(content, schema, jsonschema.Draft202012Validator)
        return code, content

    return run


def test_list(document: Document, distribution: Callable[..., None]) -> None:
    distribution("brokendist", {"rewards": {"BrokenReward": "brokendist:BrokenReward"}}, "1 / 0\n")
    code, content = document("list")
    problems = {row["name"]: row["problem"] for row in content["components"]}
    assert code == 0
    assert problems["FormatReward"] == ""
    assert "ZeroDivisionError" in problems["BrokenReward"]


def test_describe(document: Document) -> None:
    code, content = document("describe", "TinyPolicy", "SFTModule")
    assert (code, [page["name"] for page in content["components"]]) == (0, ["TinyPolicy", "SFTModule"])


NOISY = '''
print("imported")
from medvol.core.roles import RewardTerm
class NoisyReward(RewardTerm):
    """Pays for everything, and talks.

    Args:
        most: Not finite.
    """
    def __init__(self, most: float = float("inf")) -> None:
        self.most = most
    def __call__(self, rollout, case):
        print("scored")
        return 1.0
'''


def test_what_a_plug_in_prints_goes_to_standard_error(
    document: Document, distribution: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    distribution("noisydist", {"rewards": {"NoisyReward": "noisydist:NoisyReward"}}, NOISY)
    _, content = document("describe", "NoisyReward")
    (setting,) = content["components"][0]["settings"]
    assert setting["default"] is None  # JSON has no infinity
    main(["describe", "NoisyReward", "--audit", "--json"])
    printed = capsys.readouterr()
    assert "scored" in printed.err
    assert parse_json(printed.out)["schema"] == "medvol-audit/1"


def test_audit(document: Document) -> None:
    code, content = document("describe", "FormatReward", "--audit")
    assert code == 0
    assert content["judged"]["FormatReward"] == ["form"]


def test_check_of_a_scan(document: Document, scan: Path) -> None:
    code, content = document("check", scan)
    assert code == 0
    assert content["fingerprints"][0]["shape"] == [4, 8, 8]
    scan.write_bytes(b"no scan")
    code, content = document("check", scan)
    assert (code, content["usable"], content["findings"][0]["severity"]) == (2, False, "error")


def test_check_of_an_experiment(document: Document, experiment: Callable[..., Path]) -> None:
    code, content = document("check", experiment())
    assert code == 0
    assert content["splits"]["test"]["cases"] == 2


def test_report(
    document: Document, experiment: Callable[..., Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    """The toy fills three slices of three, or one of them: a Dice of 1, or of 2 * 16 / (16 + 48)."""
    config = experiment(model__class_path="EvaluationModule", model__init_args__optimizer=None)
    for name, options in {
        "a": [],
        "b": ["--model.propagator.depth=0"],
        "c": ["--data.test.count=1"],
    }.items():
        folder = f"--trainer.default_root_dir={tmp_path / name}"
        assert main(["test", "--config", str(config), folder, *options]) == 0
    code, content = document("report", *(tmp_path / name for name in "abc"))
    assert code == 0
    assert [run["run"] for run in content["runs"]] == ["a", "b", "c"]
    assert [run["all"]["metrics"]["dsc"]["mean"] for run in content["runs"]] == [1.0, 0.5, 1.0]
    assert [run["confidence"] for run in content["runs"]] == [None] * 3
    second, third = content["differences"]
    assert (second["run"], second["against"]) == ("b", "a")
    assert second["metrics"]["dsc"] == {"mean": -0.5, "low": -0.5, "high": -0.5, "cases": 2, "patients": 2, "p": 0.5}
    assert third["metrics"] is None
    assert "leave one of them out" in refused("report", tmp_path / "a", "--json", "--markdown")


def test_segment(document: Document, scan: Path, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    one = ("segment", scan, "the cube", *TOY, "--out", out)
    code, content = document(*one)
    (case,) = content["cases"]
    assert (code, case["status"], case["voxels"], case["key_slice"]) == (0, "done", 48, 2)
    assert Path(case["mask"]).is_file()
    assert content["policy"]["name"] == "ToyPolicy"
    assert document(*one)[1]["cases"] == [{**case, "status": "skipped"}]
    _, edited = document("segment", "--evidence", case["record"], "--propagator", "ToyPropagator", "--out", out)
    assert edited["cases"][0]["mask"].endswith("_edited.nii.gz")
    assert edited["counts"]["done"] == 1


def test_segment_a_batch(document: Document, scan: Path, toy: Path, tmp_path: Path) -> None:
    scan.with_name("bad.nii.gz").write_bytes(b"no scan")
    code, content = document("segment", scan.parent, "the cube", *TOY, "--out", tmp_path / "out")
    assert code == 1
    assert content == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [case["status"] for case in content["cases"]] == ["failed", "done"]


def test_one_question_that_fails_is_told_as_a_batch_tells_it(
    document: Document, scan: Path, toy: Path, tmp_path: Path
) -> None:
    one, bad = ("segment", scan, "the cube", *TOY, "--out", tmp_path / "out"), scan.with_name("bad.nii.gz")
    bad.write_bytes(b"no scan")
    code, said = document(*one, "--policy.answer", "no idea")
    (case,) = said["cases"]
    assert (code, said["counts"]["failed"], case["status"], case["error"]) == (1, 1, "failed", "EvidenceParseError")
    assert (case["scan"], case["query"], case["voxels"]) == (str(scan), "the cube", None)
    assert said["policy"]["answer"] == "no idea"
    kept = re.search(r"what was said is in (\S+)", case["detail"])[1]
    assert json.loads(Path(kept).read_text())["completion"] == "no idea"

    code, refused = document("segment", bad, "the cube", *TOY, "--out", tmp_path / "out")
    assert (code, refused["cases"][0]["status"], "policy" in refused) == (2, "failed", False)
    batch = document("segment", scan.parent, "the cube", *TOY, "--out", tmp_path / "out")[1]
    assert refused["cases"][0] == next(case for case in batch["cases"] if case["scan"] == str(bad))

    _, done = document(*one, "--overwrite")
    edit = ("segment", "--evidence", done["cases"][0]["record"], "--propagator", "ToyPropagator", "--out", tmp_path)
    scan.write_bytes(b"no scan")
    code, failed = document(*edit)
    assert (code, failed["cases"][0]["status"], failed["cases"][0]["scan"]) == (2, "failed", str(scan))
    assert list(tmp_path.glob("*_edited*")) == []


def test_an_answer_of_which_a_part_is_not_written_is_told_with_its_files(
    document: Document, scan: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medvol.inference.segmentation.render_overlay", lambda picture: 1 / 0)
    code, said = document("segment", scan, "the cube", *TOY, "--out", tmp_path / "out")
    (case,) = said["cases"]
    assert (code, case["status"], case["error"], case["voxels"]) == (1, "failed", "OutputError", 48)
    assert Path(case["mask"]).is_file()


def test_a_file_of_options_may_ask_for_json(
    scan: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = tmp_path / "options.yaml"
    options.write_text("json: true\npolicy: ToyPolicy\npropagator: ToyPropagator\n")
    assert main(["segment", str(scan), "the cube", "--config", str(options), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert parse_json(printed.out)["counts"]["done"] == 1
    assert "the cube: slice 2" in printed.err


def test_an_error_about_the_command_leaves_standard_output_empty(
    scan: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code in (
        (["segment", str(scan), "", *TOY, "--json"], 2),
        (["segment", str(scan), "the cube", "--policy", "NoPolicy", "--json"], 2),
        (["describe", "NoReward", "--json"], 2),
        (["report", str(tmp_path), "--json"], 2),
    ):
        assert main(arguments) == code
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.splitlines()[-1].startswith("medvol: ")


def test_every_stream_takes_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    """Letters beyond ASCII are written as JSON's own escapes, half letters of file names too."""
    odd = {"path": "m\xfcller/\udcff", "query": "\U0001f600", "values": (1.5, float("nan"), True)}
    with keep_stdout(True):
        print("progress")
        print_document("x/1", odd)
    print("after")
    printed = capsys.readouterr()
    assert printed.out.isascii()
    assert printed.out.endswith("}\nafter\n")
    assert json.loads(printed.out.removesuffix("after\n")) == {"schema": "x/1", **odd, "values": [1.5, None, True]}
    assert printed.err == "progress\n"


def fields(schema: dict[str, Any]) -> Iterator[str]:
    """Names of all fields that a schema fixes."""
    for name, part in schema.get("properties", {}).items():
        yield name
        yield from fields(part)
    for part in (schema.get("items"), schema.get("additionalProperties"), *schema.get("$defs", {}).values()):
        if isinstance(part, dict):
            yield from fields(part)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_page_names_every_field(name: str) -> None:
    page = (DOCS / "how-to" / "machine-readable.md").read_text()
    section = re.search(rf"^## .*\(`{name.replace('-1', '/1')}`\)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert section
    assert f"schemas/{name}.json" in section[1]
    named = set(re.findall(r"`([\w ]+)`", section[1]))
    assert set(fields(SCHEMAS[name])) - {"schema"} <= named
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
