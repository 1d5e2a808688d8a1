"""From training to an answer: what a run notes, keeps, exports and converts, and what an answer then says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import Namespace

from medvol.cli import main
from medvol.cli.seeds import follow_seed
from medvol.core.training_data import read_training_data
from medvol.policies.tiny import TinyPolicy

Write = Callable[..., Path]


def fit(config: Path, *arguments: str) -> None:
    assert main(["fit", "--config", str(config), *arguments]) == 0


def test_the_seed_of_the_experiment_is_that_of_its_parts(experiment: Write, tmp_path: Path) -> None:
    """A part that has a seed of its own keeps it; what is recorded is the seed that decided the draws."""
    for own, seeds in ((None, (7, 7)), (3, (3, 7))):
        fit(experiment(model__init_args__seed=own), "--seed_everything", "7", "--overwrite")
        kept = yaml.safe_load((tmp_path / "run" / "fit.yaml").read_text())
        assert (kept["model"]["init_args"]["seed"], kept["data"]["init_args"]["seed"]) == seeds
        data = read_training_data(tmp_path / "run" / "model")
        assert data is not None
        assert data.stages[0].seed == seeds[0]


def test_a_policy_and_the_one_that_it_wraps_take_the_seed_too() -> None:
    inner = Namespace(class_path="TinyPolicy", init_args=Namespace(seed=None, model=None))
    outer = Namespace(class_path="SecondLookPolicy", init_args=Namespace(policy=inner))
    model = Namespace(class_path="SFTModule", init_args=Namespace(seed=None, policy=outer))
    data = Namespace(class_path="Own", init_args=Namespace(folder="x"))
    settings = Namespace(seed_everything=5, model=model, data=data)
    follow_seed(settings)
    assert (model.init_args.seed, inner.init_args.seed, data.init_args) == (5, 5, Namespace(folder="x"))
    settings.seed_everything, inner.init_args.seed = False, None
    follow_seed(settings)
    assert inner.init_args.seed is None


def test_fit_exports_what_it_was_trained_on_and_a_card(experiment: Write, tmp_path: Path) -> None:
    fit(experiment())
    data = read_training_data(tmp_path / "run" / "model")
    assert data is not None
    assert data.words == {"the", "cube"}
    # Four slices of 5 mm, 8 x 8 pixels of 2 mm; 36 voxels of the cube at 60 HU, all others fat at -100.
    assert data.ranges["CT"]["height_mm"] == (20, 20)
    assert data.ranges["CT"]["width_mm"] == (16, 16)
    cube = 3 * 4 * 4
    assert data.ranges["CT"]["soft_share"] == pytest.approx((cube / 256, cube / 256))
    (stage,) = data.stages
    assert (stage.module, stage.steps, stage.seed) == ("SFTModule", 3, 0)
    assert (stage.train.data_set, stage.train.cases, stage.train.volumes) == ("ToyDataset", 3, 3)
    assert stage.train.distribution == "medvol_toy 1.2"
    assert stage.val.cases == 1
    assert stage.scores["dsc"] == pytest.approx(1.0)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "unknown"
    assert "ToyDataset" in card
    assert "weight.txt" in card


def test_words_that_reword_puts_before_queries_are_known(experiment: Write, tmp_path: Path) -> None:
    fit(experiment(model__init_args__reword=0.5))
    assert {"the", "cube", "find", "segment", "where"} <= read_training_data(tmp_path / "run" / "model").words


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
def test_a_resumed_run_knows_what_a_whole_one_does(experiment: Write, tmp_path: Path) -> None:
    fit(experiment("whole.yaml", trainer__max_steps=6, trainer__default_root_dir=str(tmp_path / "whole")))
    fit(experiment("cut.yaml", trainer__max_steps=3, trainer__default_root_dir=str(tmp_path / "cut")))
    half = read_training_data(tmp_path / "cut" / "model")
    assert half.stages[0].steps == 3
    last = str(tmp_path / "cut" / "checkpoints" / "last.ckpt")
    further = experiment("on.yaml", trainer__max_steps=6, trainer__default_root_dir=str(tmp_path / "cut"))
    fit(further, "--ckpt_path", last)
    whole, cut = (read_training_data(tmp_path / name / "model") for name in ("whole", "cut"))
    assert cut.to_dict() == whole.to_dict()
    assert (tmp_path / "cut/model/README.md").read_text() == (tmp_path / "whole/model/README.md").read_text()


def test_convert_keeps_what_a_checkpoint_was_trained_on(experiment: Write, tmp_path: Path) -> None:
    fit(experiment())
    run = tmp_path / "run"
    assert main(["convert", str(run / "checkpoints" / "last.ckpt"), str(run / "again")]) == 0
    assert (run / "again" / "training_data.json").read_text() == (run / "model" / "training_data.json").read_text()
    assert (run / "again" / "README.md").read_text() == (run / "model" / "README.md").read_text()


def test_a_checkpoint_that_tells_nonsense_is_refused(
    experiment: Write, tmp_path: Path, refused: Callable[..., str]
) -> None:
    fit(experiment())
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    content["medvol_training_data"]["scans"]["CT"]["width_mm"] = [2, 1]
    torch.save(content, path)
    assert "width_mm is no range" in refused("convert", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_not_replaced(experiment: Write, tmp_path: Path) -> None:
    other = tmp_path / "run" / "model"
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("mine")
    assert main(["fit", "--config", str(experiment())]) == 2
    assert (other / "notes.txt").read_text() == "mine"
    assert not list((tmp_path / "run").rglob("*.ckpt")), "refused before the work"


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of random weights that says it was trained on cubes of 256 voxels."""
    from medvol.core.training_data import Cases, Stage, TrainingData
    from medvol.imaging.geometry import make_volume
    from medvol.training.export import export_model

    data = TrainingData(stages=(Stage("SFTModule", 3, train=Cases("ToyDataset")),))
    data.meet_query("the cube")
    data.meet_scan(make_volume(np.zeros((4, 8, 8), np.float32), (5.0, 2.0, 2.0)))
    folder = tmp_path_factory.mktemp("tiny") / "model"
    export_model(TinyPolicy(), folder, data)
    return folder


def test_a_policy_knows_what_its_folder_says_and_keeps_it_when_it_is_saved(tiny_model: Path, tmp_path: Path) -> None:
    policy = TinyPolicy(model=str(tiny_model))
    assert policy.training_data.words == {"the", "cube"}
    policy.save(tmp_path / "copy")
    assert read_training_data(tmp_path / "copy").to_dict() == policy.training_data.to_dict()
    assert TinyPolicy().training_data is None


@pytest.fixture
def toy_that_knows(toy: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The toy policy, which answers, with the tiny model's knowledge."""
    import medvol_toy

    monkeypatch.setattr(medvol_toy.ToyPolicy, "training_data", read_training_data(tiny_model))
    return ("--policy", "ToyPolicy", "--propagator", "ToyPropagator")


def segment(*arguments: object) -> int:
    return main(["segment", *map(str, arguments), "--modality", "CT"])


def test_the_terminal_and_the_record_warn(
    scan: Path, toy_that_knows: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(scan, "das Auto meines Onkels", *toy_that_knows, "--out", tmp_path / "out", "--samples", 3) == 0
    out = capsys.readouterr().out
    assert "warning: no training query had these words of the query: das, auto, meines, onkels" in out
    assert "3 sampled answers agree 1.00" in out
    (record,) = (tmp_path / "out").glob("*.json")
    block = json.loads(record.read_text())["confidence"]
    assert [row["code"] for row in block["warnings"]] == ["new_words"]
    assert block["agreement"] == {"samples": 3, "parsed": 3, "key_slice": 1.0, "boxes": 1.0, "anchors": 1.0}
    assert segment(scan, "the cube", *toy_that_knows, "--out", tmp_path / "out") == 0
    assert "warning" not in capsys.readouterr().out


def test_strict_refuses_one_answer(
    scan: Path, toy_that_knows: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment(scan, "das Auto", *toy_that_knows, "--out", out, "--strict") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("medvol: the answer to 'das Auto' is refused by --strict: no training query had")
    assert not list(tmp_path.rglob("out/*.nii.gz"))
    assert segment(scan, "the cube", *toy_that_knows, "--out", out, "--strict") == 0


def test_strict_does_not_take_an_earlier_answer_that_it_would_refuse(
    scan: Path, toy_that_knows: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert segment(scan, "das Auto", *toy_that_knows, "--out", out) == 0
    assert segment(scan, "das Auto", *toy_that_knows, "--out", out) == 0
    assert "answered before" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert segment(scan, "das Auto", *toy_that_knows, "--out", out, "--strict") == 1
    assert "is there already; the new answer replaces it" in capsys.readouterr().out  # and there is none
    assert {path: path.read_bytes() for path in before} == before


def test_a_batch_names_warnings_again_when_it_skips(
    scan: Path, toy_that_knows: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for counts in ("1 done, 0 skipped", "0 done, 1 skipped"):
        assert segment(scan.parent, "das Auto", *toy_that_knows, "--out", out) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert counts in shown
        assert "1 with warnings" in shown
        (row,) = json.loads((out / "summary.json").read_text())["cases"]
        assert row["warnings"] == ["no training query had these words of the query: das, auto"]
    assert segment(scan.parent, "das Auto", *toy_that_knows, "--out", tmp_path / "strict", "--strict") == 1
    (row,) = json.loads((tmp_path / "strict" / "summary.json").read_text())["cases"]
    assert (row["status"], row["error"]) == ("failed", "UntrustedAnswerError")


@pytest.mark.parametrize("samples", ["1", "-2", "x"])
def test_samples_that_compare_nothing(samples: str, scan: Path, toy: Path, refused: Callable[..., str]) -> None:
    assert "samples" in refused("segment", scan, "the cube", "--policy", "ToyPolicy", "--samples", samples)


def test_predict_fails_with_1_and_goes_on(experiment: Write, tmp_path: Path) -> None:
    broken = {"class_path": "ToyPolicy", "init_args": {"answer": "I cannot tell"}}
    config = experiment(data__init_args__predict="ToyDataset", model__init_args__policy=broken)
    assert main(["predict", "--config", str(config)]) == 1
    folder = tmp_path / "run" / "predictions"
    assert len(list(folder.glob("*.failed.json"))) == 3
    assert json.loads((folder / "summary.json").read_text())["counts"]["failed"] == 3
