"""``medvol check``."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medvol.cli import main
from medvol.core.imaging.geometry import make_volume
from medvol.core.imaging.writing import write_mask

Write = Callable[..., Path]


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scans" / "inner" / "a.nii.gz"
    volume = make_volume(np.zeros((3, 4, 5), np.float32), (5.0, 2.0, 1.5))
    write_mask(path, np.ones((3, 4, 5), bool), volume)
    return path


def test_a_scan(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(scan)]) == 0
    text = capsys.readouterr().out
    assert "3 x 4 x 5 voxels (Z, Y, X)" in text
    assert "5 x 2 x 1.5 mm" in text


def test_a_folder_is_searched_and_refusals_are_named(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(tmp_path / "scans")]) == 0
    assert "1 of 1 scans can be used" in capsys.readouterr().out
    scan.with_name("b.nii.gz").write_bytes(scan.read_bytes()[:-20])
    scan.with_name("c.nii").write_bytes(b"")
    assert main(["check", str(tmp_path / "scans")]) == 1
    text = capsys.readouterr().out
    assert "1 of 3 scans can be used" in text
    assert "inner/b.nii.gz: refused (" in text
    assert "inner/c.nii: refused (empty)" in text


def test_an_experiment(experiment: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(experiment())]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    # split, cases, volumes, patients, read, usable
    assert ["train", "3", "3", "3", "3", "3"] in rows
    assert ["val", "1", "1", "1", "1", "1"] in rows
    assert ["test", "2", "2", "2", "2", "2"] in rows


def test_an_experiment_reads_the_first_volumes_or_all(experiment: Write, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(experiment(data__init_args__train={"class_path": "ToyDataset", "init_args": {"count": 7}}))
    assert main(["check", config]) == 0
    assert ["train", "7", "7", "7", "3", "3"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert main(["check", config, "--all"]) == 0
    assert ["train", "7", "7", "7", "7", "7"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_an_experiment_with_bad_cases(experiment: Write, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment(data__init_args__train={"class_path": "ToyDataset", "init_args": {"broken": True}})
    assert main(["check", str(config)]) == 1
    text = capsys.readouterr().out
    assert "train: case 0: the cube is lost; find it" in text
    assert ["train", "3", "3", "3", "3", "0"] in [line.split() for line in text.splitlines()]


def test_a_wrong_experiment(experiment: Write, refused: Callable[..., str]) -> None:
    config = experiment(data__init_args__train={"class_path": "ToyDataset", "init_args": {"cont": 7}})
    assert "'data.init_args.train.init_args.cont'" in refused("check", config)
