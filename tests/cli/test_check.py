"""``medvol check``."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from medvol.cli import main
from medvol.core.errors import DatasetError
from medvol.core.types import Query
from medvol.datasets.scans import check_known
from medvol.imaging.geometry import make_volume
from medvol.imaging.writing import write_mask

Write = Callable[..., Path]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


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
    assert {"MV115", "MV104"} <= {line.split()[0] for line in text.splitlines() if "inner/" in line}
    assert any(line.split()[:2] == ["MV104", "inner/c.nii"] for line in text.splitlines())
    assert "MV104  empty" in text
    assert "copy it again" in text


def test_an_experiment(experiment: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(experiment())]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    # split, cases, volumes, patients, read, usable
    assert ["train", "3", "3", "3", "3", "3"] in rows
    assert ["val", "1", "1", "1", "1", "1"] in rows
    assert ["test", "2", "2", "2", "2", "2"] in rows


def test_an_experiment_is_read_whole_or_as_far_as_time_allows(
    experiment: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(experiment(data__init_args__train={"class_path": "ToyDataset", "init_args": {"count": 7}}))
    for more in ((), ("--all", "--seconds", "0")):
        assert main(["check", config, *more]) == 0
        text = capsys.readouterr().out
        assert ["train", "7", "7", "7", "7", "7"] in [line.split() for line in text.splitlines()]
        assert "--all" not in text
    assert main(["check", config, "--seconds", "0"]) == 0
    text = capsys.readouterr().out
    assert ["train", "7", "7", "7", "1", "1"] in [line.split() for line in text.splitlines()]
    assert "train: 1 of 7 cases were read, from scans spread over all of them; --all reads every case" in text


SAVED = {
    "ckpt_path": None,
    "weights_only": None,
    "verbose": True,
    "return_predictions": None,
    "seed_everything": 3,
    "trainer": {
        "accelerator": "gpu",
        "devices": 8,
        "precision": "bf16-mixed",
        "strategy": "ddp",
        "plugins": [{"class_path": "no.such.Plugin"}],
        "callbacks": [{"class_path": "no.such.Callback"}],
        "logger": {"class_path": "no.such.Logger"},
    },
    "model": {"class_path": "GRPOModule", "init_args": {"policy": "NoSuchPolicy"}},
}


def test_the_trainer_of_an_experiment_is_not_built(
    experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused
) -> None:
    """A configuration saved by a run, or one for another machine."""
    settings = yaml.safe_load(experiment().read_text())
    for name in ("fit.yaml", "test.yaml", "predict.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump({**SAVED, "data": settings["data"]}))
        code, report = report_of(capsys, tmp_path / name)
        assert (code, [finding["code"] for finding in report["findings"]]) == (1, ["MV801"])
        assert "GPU" not in str(report["findings"])
        assert report["splits"]["train"]["usable"] == 3
        (tmp_path / name).write_text(yaml.safe_dump({**settings, "trainer": {"accelerator": "gpu", "devices": 8}}))
        assert main(["check", str(tmp_path / name)]) == 0
        assert "GPU" not in capsys.readouterr().out
    (tmp_path / "no.yaml").write_text(yaml.safe_dump(SAVED))
    assert "names no data; give an experiment whose key 'data' holds its data sets" in refused(
        "check", tmp_path / "no.yaml"
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("paper_*.yaml")), ids=lambda path: path.stem)
def test_experiments_of_the_paper_are_checked_without_a_gpu(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, report = report_of(capsys, path)
    assert code == 1
    details = {
        code: [one["detail"] for one in report["findings"] if one["code"] == code] for code in ("MV501", "MV802")
    }
    assert sum(map(len, details.values())) == len(report["findings"])
    assert all("there is no such folder; set root" in detail for detail in details["MV501"])
    assert details["MV501"]
    assert not any("GPU" in detail for detail in details["MV802"])


def test_an_experiment_with_bad_cases(experiment: Write, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment(data__init_args__train={"class_path": "ToyDataset", "init_args": {"broken": True}})
    assert main(["check", str(config)]) == 1
    text = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "MV503 train: case 0 the cube is lost; find it" in lines
    assert ["train", "3", "3", "3", "3", "0"] in [line.split() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__init_args__train": "NoDataset"}, "data.init_args.train: medvol.datasets: no 'NoDataset'"),
        ({"data__class_path": "CaseDataModul"}, "did you mean 'CaseDataModule'?"),
        ({"data__init_args__trian": "ToyDataset"}, "did you mean 'train'?"),
        ({"data__init_args__val__init_args__cuont": 3}, "did you mean 'count'?"),
        ({"data__init_args__val__init_args__count": "many"}, "init_args.count must be a whole number; got 'many'"),
    ],
)
def test_a_fault_in_the_data_of_an_experiment_is_named(experiment: Write, refused: Callable[..., str], changes, said):
    assert said in refused("check", experiment(**changes))


def test_a_wrong_experiment(experiment: Write, refused: Callable[..., str]) -> None:
    config = experiment(data__init_args__train={"class_path": "ToyDataset", "init_args": {"cont": 7}})
    assert "'data.init_args.train.init_args.cont'" in refused("check", config)


def report_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict]:
    capsys.readouterr()
    code = main(["check", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def write_scan(path: Path, affine: np.ndarray | None = None, qform: np.ndarray | None = None) -> Path:
    """Noise in Hounsfield units whose qform may say otherwise than its sform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(len(path.name)).integers(-1000, 100, (8, 9, 10)).astype(np.int16)
    image = nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 5.0, 1.0]) if affine is None else affine)
    image.set_qform(image.affine if qform is None else qform, 1)
    image.header["pixdim"][1:4] = np.linalg.norm(image.affine[:3, :3], axis=0)
    nib.save(image, path)
    return path


def test_json_of_a_scan_and_of_a_refused_one(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = report_of(capsys, write_scan(scan.with_name("ct.nii.gz")))
    assert (code, report["usable"], report["findings"]) == (0, True, [])
    (fingerprint,) = report["fingerprints"]
    assert fingerprint["shape"] == [10, 9, 8]
    assert fingerprint["spacing_mm"] == [5.0, 2.0, 2.0]
    assert fingerprint["modality"] == "CT"
    scan.write_bytes(scan.read_bytes()[:40])
    code, report = report_of(capsys, scan)
    assert (code, report["usable"]) == (2, False)
    (finding,) = report["findings"]
    assert (finding["code"], finding["name"], finding["place"]) == ("MV115", "corrupt", str(scan))
    assert finding["meaning"]
    assert finding["fix"]


def test_mended_copies_go_to_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], refused) -> None:
    folder = tmp_path / "scans"
    write_scan(folder / "good.nii.gz")
    bad = write_scan(folder / "inner" / "bad.nii.gz", qform=np.diag([-2.0, -2.0, 5.0, 1.0]))
    before = bad.read_bytes()
    assert main(["check", str(folder)]) == 1
    assert "MV204" in capsys.readouterr().out
    code, report = report_of(capsys, folder, "--fix", tmp_path / "mended")
    assert (code, report["usable"]) == (0, True)
    assert report["mended"] == {str(bad): str(tmp_path / "mended" / "inner" / "bad.nii.gz")}
    assert [path.name for path in (tmp_path / "mended").rglob("*.nii.gz")] == ["bad.nii.gz"]
    assert bad.read_bytes() == before
    assert main(["check", str(tmp_path / "mended")]) == 0
    assert main(["check", str(bad), "--fix", str(tmp_path / "one")]) == 0
    assert (tmp_path / "one" / "bad.nii.gz").is_file()
    for place in (folder, folder / "inner", folder / "new"):
        assert "never changes the original" in refused("check", folder, "--fix", place)
    other = write_scan(tmp_path / "other" / "bad.nii.gz")
    before = other.read_bytes()
    assert f"{other} is there already, and --fix replaces no file" in refused("check", bad, "--fix", other.parent)
    assert other.read_bytes() == before
    assert "never changes the original" in refused("check", bad, "--fix", bad.parent)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--nan_to", "0"), "add --fix FOLDER"),
        (("--hu_offset", "-1024"), "add --fix FOLDER"),
        (("--assume_orientation", "LPS"), "add --fix FOLDER"),
        (("--all",), "about a table or an experiment"),
        (("--compare",), "about a table or an experiment"),
        (("--seconds", "3"), "about a table or an experiment"),
        (("--root", "x"), "about a table"),
    ],
    ids=str,
)
def test_options_that_would_do_nothing_are_refused(
    scan: Path, option: tuple[str, ...], said: str, refused, experiment: Write
) -> None:
    assert said in refused("check", scan, *option)
    if said != "about a table or an experiment":
        assert said in refused("check", experiment(), *option)
    assert "seconds is -5" in refused("check", experiment(), "--seconds", "-5")


def test_what_only_the_user_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str], refused) -> None:
    path = write_scan(tmp_path / "s" / "a.nii")
    image = nib.load(path)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "s" / "b.nii")
    assert report_of(capsys, tmp_path / "s", "--fix", tmp_path / "m")[1]["mended"] == {}
    main(["check", str(tmp_path / "s"), "--fix", str(tmp_path / "m")])
    assert "no corrected copy was written" in capsys.readouterr().err
    assert "QQQ" in refused("check", tmp_path / "s", "--assume_orientation", "QQQ", "--fix", tmp_path / "m")
    known = ("--assume_orientation", "RAS", "--fix", tmp_path / "m")
    code, report = report_of(capsys, tmp_path / "s", *known)
    assert (code, list(report["mended"].values())) == (0, [str(tmp_path / "m" / "b.nii")])
    assert nib.aff2axcodes(nib.load(tmp_path / "m" / "b.nii").affine) == ("R", "A", "S")


def test_a_table_and_all_its_bad_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scan(tmp_path / "data" / "a.nii.gz")
    table = tmp_path / "t.csv"
    table.write_text("image,target\na.nii.gz,liver\ngone.nii.gz,liver\na.nii.gz,\n")
    code, report = report_of(capsys, table, "--root", tmp_path / "data")
    assert code == 1
    assert [finding["code"] for finding in report["findings"]] == ["MV502", "MV502"]
    assert [finding["place"] for finding in report["findings"]] == [f"table: {table}: row {n}" for n in (3, 4)]
    table.write_text("image,target\na.nii.gz,liver\n")
    assert [f["code"] for f in report_of(capsys, table, "--root", tmp_path / "data")[1]["findings"]] == ["MV504"]


@pytest.fixture
def leaking(experiment: Write, tmp_path: Path) -> Path:
    """Train and test hold one scan, the very file in one case and turned about in another."""
    from medvol.datasets.phantom_anatomy import draw_phantom

    for number in range(3):
        phantom = draw_phantom(np.random.default_rng(number), (16, 48, 48))
        folder = tmp_path / "train" / f"p{number}"
        folder.mkdir(parents=True)
        affine = np.diag([*(-1.0, -1.0, 1.0) * np.array(phantom.spacing[::-1]), 1.0])
        for name, array in (("image", phantom.voxels), ("label", (phantom.labels == 1).astype(np.uint8))):
            image = nib.Nifti1Image(array.transpose(2, 1, 0), affine)
            nib.save(image, folder / f"{name}.nii.gz")
            if number < 2:
                place = tmp_path / "test" / f"q{number}" / f"{name}.nii.gz"
                place.parent.mkdir(parents=True, exist_ok=True)
                if number == 0:
                    shutil.copyfile(folder / f"{name}.nii.gz", place)
                else:
                    nib.save(image.as_reoriented(np.array([[2, 1], [0, -1], [1, 1]])), place)
    splits = {
        f"data__init_args__{split}": {
            "class_path": "NiftiDataset",
            "init_args": {"root": str(tmp_path / split), "target": "liver"},
        }
        for split in ("train", "test")
    }
    return experiment(data__init_args__val=None, **splits)


def test_data_alone(leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two sets are compared without a model to train."""
    settings = yaml.safe_load(leaking.read_text())
    alone = tmp_path / "alone.yaml"
    alone.write_text(yaml.safe_dump({"data": settings["data"]}))
    code, report = report_of(capsys, alone)
    assert code == 1
    assert [finding["code"] for finding in report["findings"]] == ["MV602"]


def test_leaks_across_splits(leaking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused) -> None:
    code, report = report_of(capsys, leaking)
    assert code == 1
    assert [(f["code"], f["place"]) for f in report["findings"]] == [("MV602", "train and test")]
    assert report["splits"]["train"]["patients"] == 3
    assert report["splits"]["train"]["target_ml"]["liver"]["cases"] == 3
    code, report = report_of(capsys, leaking, "--compare")
    assert [finding["code"] for finding in report["findings"]] == ["MV602", "MV603"]
    assert "p1/image.nii.gz" in report["findings"][1]["detail"]
    assert "q1/image.nii.gz" in report["findings"][1]["detail"]
    assert "is the same file as" in refused("fit", "--config", leaking)


def test_copies_of_scans_that_lie_elsewhere_keep_their_whole_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "tables").mkdir()
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    rng = np.random.default_rng(0)
    nib.save(nib.Nifti1Image(rng.integers(-100, 200, (20, 20, 8)).astype(np.int16), affine), tmp_path / "data/a.nii.gz")
    labels = np.zeros((20, 20, 8), np.float32)
    labels[4:9, 5:12, 2:6] = 2.9995  # as header scaling leaves a 3
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "data/label.nii.gz")
    table = tmp_path / "tables" / "t.csv"
    table.write_text("image,mask,label,target,patient,modality\na.nii.gz,label.nii.gz,3,spleen,p,CT\n")
    mended = tmp_path / "mended"
    main(["check", str(table), "--root", str(tmp_path / "data"), "--fix", str(mended), "--json"])
    copies = json.loads(capsys.readouterr().out)["mended"]
    for copy in copies.values():
        assert Path(copy).is_relative_to(mended)
        assert set(np.unique(nib.load(copy).get_fdata())) == {0, 3}


UNREADY = '''
from medvol import CheckpointError, Propagator

class UnreadyPropagator(Propagator):
    """Lacks its weights."""

    def require_ready(self) -> None:
        raise CheckpointError("there are no such weights; fetch them")

    def propagate(self, volume, evidence, z_range=None):
        raise AssertionError("asked before it was ready")
'''


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"model__init_args__propagator": "UnreadyPropagator"}, "MV802", "there are no such weights; fetch them"),
        ({"model__init_args__policy": "NoSuchPolicy"}, "MV801", "no 'NoSuchPolicy'"),
        ({"model__init_args__polcy": "ToyPolicy"}, "MV801", "polcy"),
        ({"trainer__max_steps": "many"}, "MV801", "max_steps"),
        ({"trainer__max_steps": -5}, "MV801", "trainer.max_steps is -5; it must be -1 or more"),
        ({"trainr__max_steps": 5}, "MV801", "'trainr'"),
        ({"trainer__precision": "bf16-true"}, "MV801", "trainer.precision is bf16-true, which keeps trained weights"),
        ({"seed_everything": "abc"}, "MV801", "seed_everything must be true or false or a whole number; got 'abc'"),
        ({"seed_everything": -1}, "MV801", "seed_everything is -1; it must be from 0"),
    ],
)
def test_what_a_fit_refuses_before_it_loads_is_found(
    changes, code, said, distribution, experiment: Write, refused, capsys: pytest.CaptureFixture[str]
) -> None:
    distribution("unready", {"propagators": {"UnreadyPropagator": "unready:UnreadyPropagator"}}, UNREADY)
    config = experiment(**changes)
    ended, report = report_of(capsys, config)
    assert ended == 1
    (finding,) = report["findings"]
    assert finding["code"] == code
    assert said in finding["detail"]
    assert report["splits"]["train"]["usable"] == 3
    assert finding["detail"] == refused("fit", "--config", config)


def test_a_seed_without_a_value_is_found(experiment: Write, refused, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment()
    config.write_text(f"{config.read_text()}\nseed_everything:\n")
    _, report = report_of(capsys, config)
    (finding,) = report["findings"]
    assert "seed_everything is empty; give a whole number from 0" in finding["detail"]
    assert finding["detail"] == refused("fit", "--config", config)


def test_a_precision_that_scales_gradients_is_found(experiment: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be meant for a GPU; a fit on a CPU takes bfloat16 in its place."""
    ended, report = report_of(capsys, experiment(trainer__precision="16-mixed"))
    (finding,) = report["findings"]
    assert (ended, finding["code"]) == (1, "MV801")
    assert "trainer.precision is 16-mixed, which scales gradients" in finding["detail"]


def test_augmentation_is_asked_before_a_fit(
    experiment: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torchio", None)
    config = experiment(data__init_args__augment=[{"name": "RandomNoise", "std": [0, 10]}])
    _, report = report_of(capsys, config)
    (finding,) = report["findings"]
    assert (finding["code"], finding["place"]) == ("MV802", "data.augment")
    assert 'pip install "medvol-r1[torchio]"' in finding["detail"]


def test_a_flip_against_a_question_with_a_side_is_found_once(
    experiment: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medvol.training.volume_augmentation.VolumeAugmentation.load", lambda self: None)
    monkeypatch.setattr("medvol_toy.Query", lambda text, target: Query("the left cube", target))
    config = experiment(data__init_args__augment=[{"name": "RandomFlip"}], data__init_args__sides_may_swap=True)
    code, report = report_of(capsys, config)
    assert code == 1
    (finding,) = report["findings"]
    assert (finding["code"], finding["place"]) == ("MV801", "train: case0")
    assert "names 'left'" in finding["detail"]


def test_what_is_wrong_with_a_file_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text under the name of a gzipped scan: one line, and no warning about its compression before it."""
    path = tmp_path / "a.nii.gz"
    path.write_text("no scan at all")
    assert main(["check", str(path)]) == 2
    out, said = capsys.readouterr()
    assert said.startswith(f"medvol: {path}: it is not NIfTI")
    assert said.count("\n") == 1
    assert (out + said).count("it is not NIfTI") == 1
    assert "MV106" in out


def test_a_list_of_names_ends_in_dots_only_when_there_are_more() -> None:
    for count, end in ((8, ": n0, n1, n2, n3, n4, n5, n6, n7"), (9, ": n0, n1, n2, n3, n4, n5, n6, n7, ...")):
        with pytest.raises(DatasetError) as caught:
            check_known("target", ["other"], {f"n{number}" for number in range(count)})
        assert str(caught.value).endswith(end)
