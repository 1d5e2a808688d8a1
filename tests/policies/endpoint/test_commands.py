"""A served model from YAML and the command line: rows of test and report, answers of segment and predict."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from chat_server import ANSWER, ChatServer, Reply, chat

from medvol.cli import main

SMALL = {"num_slices": 4, "height_px": 16, "width_px": 16}


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """An experiment on three drawn cubes, as a file."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, policy: object) -> str:
        data = {"test": {"class_path": "light_policy.LightDataset", "init_args": {"count": 3}}}
        data["predict"] = data["test"]
        content = {
            "model": {
                "class_path": "EvaluationModule",
                "init_args": {
                    "policy": policy,
                    "propagator": {"class_path": "ExtrudePropagator", "init_args": {"half_depth_slices": 1}},
                },
            },
            "data": {"class_path": "CaseDataModule", "init_args": data},
            "trainer": {"accelerator": "cpu", "logger": False, "default_root_dir": f"runs/{name}"},
        }
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
        return f"{name}.yaml"

    return write


def served(server: ChatServer, **settings: object) -> dict:
    return {
        "class_path": "EndpointPolicy",
        "init_args": {"url": server.url, "model": "served/model", "template": SMALL, **settings},
    }


def test_a_served_model_is_a_row_of_a_report(experiment, capsys):
    with ChatServer(chat(ANSWER)) as server:
        assert main(["test", "--config", experiment("served", served(server, requests={"max_requests": 3}))]) == 0
    assert main(["test", "--config", experiment("centre", "CentreBoxPolicy")]) == 0
    assert len(server.requests) == 3
    assert server.requests[0]["max_tokens"] == 256
    capsys.readouterr()
    assert main(["report", "runs/served", "runs/centre", "--markdown"]) == 0
    report = capsys.readouterr().out
    assert "| served | centre |" in report
    assert re.search(r"^\| DSC \| 1\.000 .*", report, re.MULTILINE)
    evaluation = json.loads(Path("runs/served/evaluation.json").read_text())
    # The cube takes the slices 1..3 and rows and columns 2..5: a box of 250..750 on slice 2, one slice to either side.
    assert evaluation["all"]["metrics"]["dsc"]["mean"] == 1.0
    assert evaluation["policy"]["url"] == server.url
    assert evaluation["policy"]["model"] == "served/model"


def test_a_case_that_fails_scores_0_and_is_counted(experiment, caplog):
    with ChatServer(chat(ANSWER), Reply({"error": "too long"}, 400), chat(ANSWER)) as server:
        assert main(["test", "--config", experiment("served", served(server))]) == 0
    assert len(server.requests) == 3
    evaluation = json.loads(Path("runs/served/evaluation.json").read_text())
    assert evaluation["all"]["metrics"]["dsc"]["mean"] == pytest.approx(2 / 3)
    assert 'answered 400 (Bad Request): "too long"' in caplog.text


def test_a_bound_leaves_the_evaluation_of_what_was_answered(experiment, caplog):
    with ChatServer(chat(ANSWER)) as server:
        bound = ["--model.policy.requests.max_requests", "2"]
        assert main(["test", "--config", experiment("served", served(server)), *bound]) == 0
    assert (len(server.requests), server.listed) == (2, 1)
    assert "max_requests is 2 and is reached, with 2 requests" in caplog.text
    evaluation = json.loads(Path("runs/served/evaluation.json").read_text())
    assert (evaluation["all"]["cases"], evaluation["all"]["failures"]) == (3, 1)
    assert evaluation["all"]["metrics"]["dsc"]["mean"] == pytest.approx(2 / 3)
    cases = json.loads(Path("runs/served/cases.json").read_text())
    assert [case["failure"] for case in cases] == [None, None, "policy_failed"]


def test_a_run_does_not_begin_where_the_server_is_not(experiment, capsys):
    with ChatServer() as server:
        url, config = server.url, experiment("served", served(server))
    assert main(["test", "--config", config]) == 2
    assert f"{url} cannot be reached" in capsys.readouterr().err
    assert not Path("runs/served/evaluation.json").exists()


def test_predictions_are_written(experiment):
    with ChatServer(chat(ANSWER)) as server:
        assert main(["predict", "--config", experiment("served", served(server))]) == 0
    records = list(Path("runs/served/predictions").glob("*.json"))
    assert len(records) >= 3


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scans" / "ct.nii.gz"
    path.parent.mkdir()
    voxels = np.full((8, 8, 4), -100, np.int16)
    voxels[2:6, 2:6, 1:4] = 60
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 5.0, 1.0])), path)
    return path


def segment(*arguments: object) -> int:
    few = [f"--policy.template.{name}={value}" for name, value in SMALL.items()]
    return main(["segment", *map(str, arguments), *few, "--modality", "CT"])


def test_segment_asks_the_server(scan, tmp_path, capsys):
    out = tmp_path / "out"
    with ChatServer(chat(ANSWER, log_probs=[-0.5, -0.25])) as server:
        asked = (
            "--policy",
            "EndpointPolicy",
            "--policy.url",
            server.url,
            "--policy.model",
            "served/model",
            "--out",
            out,
        )
        assert segment(scan, "the cube", *asked, "--samples", 2) == 0
        assert segment(scan, "the cube", *asked, "--samples", 2) == 0
        assert len(server.requests) == 3
        (record,) = out.glob("*.json")
        content = json.loads(record.read_text())
        assert content["policy"]["model"] == "served/model"
        assert content["completion"] == ANSWER
        assert content["confidence"]["mean_log_prob"] == -0.375
        assert content["confidence"]["agreement"]["anchors"] == 1.0
        text = capsys.readouterr().out
        assert "the cube: slice 2, 1 box" in text
        assert "answered before" in text


def test_a_batch_goes_on_after_a_query_that_fails(scan, tmp_path, capsys):
    def picky(request):
        spleen = "spleen" in request["messages"][0]["content"][-1]["text"]
        return Reply({"error": {"message": "busy"}}, 418) if spleen else chat(ANSWER)

    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps([{"scan": "scans/ct.nii.gz", "queries": ["the cube", "the spleen", "the liver"]}]))
    out = tmp_path / "out"
    with ChatServer(picky) as server:
        asked = ("--policy", "EndpointPolicy", "--policy.url", server.url, "--policy.model", "m", "--out", out)
        assert segment("--jobs", jobs, *asked) == 1
    assert len(server.requests) == 3
    assert "2 done, 0 skipped, 1 failed" in capsys.readouterr().out
    assert 'answered 418 (I\'m a Teapot): "busy"; check' in (out / "answers.csv").read_text().replace('""', '"')


@pytest.mark.parametrize(
    ("url", "sentence"),
    [("http://me:pa55@host/v1", "holds a user, a password"), ("host/v1", "the address of a server")],
)
def test_an_address_that_is_none_is_one_sentence(scan, tmp_path, capsys, url, sentence):
    asked = ("--policy", "EndpointPolicy", "--policy.url", url, "--policy.model", "m", "--out", tmp_path / "out")
    assert segment(scan, "the cube", *asked) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "pa55" not in error
    assert "Traceback" not in error


def test_a_server_that_is_not_there_is_one_sentence(scan, tmp_path, capsys):
    with ChatServer() as server:
        url = server.url
    asked = ("--policy", "EndpointPolicy", "--policy.url", url, "--policy.model", "m", "--policy.requests.retries", 0)
    assert segment(scan, "the cube", *asked, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert f"{url} cannot be reached" in error
    assert "start the server, or check policy.url" in error


def test_a_missing_setting_is_named(scan, capsys):
    assert segment(scan, "the cube", "--policy", "EndpointPolicy", "--policy.model", "m") == 2
    assert "url" in capsys.readouterr().err


def test_a_missing_library_is_named(scan, tmp_path, capsys, monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "medvol.policies.endpoint_parts.connection", raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    asked = ("--policy", "EndpointPolicy", "--policy.url", "http://127.0.0.1:1/v1", "--policy.model", "m")
    assert segment(scan, "the cube", *asked, "--out", tmp_path / "out") == 2
    assert 'pip install "medvol-r1[endpoint]"' in capsys.readouterr().err
