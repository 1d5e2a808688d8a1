"""The commands of every page run one after another in a reader's folder, and give what the page says.

Training takes two steps of each fit. Two steps teach nothing, so what follows a fit is done by a policy that learned.
"""

import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import medvol
from medvol.cli import main
from tests.docs.blocks import REPOSITORY, Block, all_blocks
from tests.imaging.dicom.conftest import Series
from tests.viewing.conftest import Api, make_desk

ELSEWHERE = {
    "cd": "the reader's folder is where they run",
    "git": "the tests run in a clone",
    "make": ".ci/run calls the targets, and test_examples.py what `make demo` does",
    "pip": "tests/packaging installs wheel and source distribution in a fresh environment",
    "source": "the environment of the tests is active",
}
"""Programs that are not called here, and where they are."""

TRAINING = {"fit", "validate", "test"}
FEW = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]


def pages() -> dict[str, list[Block]]:
    """Blocks of commands by their page, without marked ones, and without pages that only name programs of others."""
    found: dict[str, list[Block]] = {}
    for block in all_blocks("bash"):
        if not block.reason and any(words[0] not in ELSEWHERE for words in block.commands()):
            found.setdefault(block.page, []).append(block)
    return found


@pytest.fixture
def folder(reader_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's folder, with answers and a series of DICOM."""
    here = tmp_path / "here"
    shutil.copytree(reader_files, here)
    monkeypatch.chdir(here)
    monkeypatch.setenv("MPLBACKEND", "agg")
    write_series(medvol.read_volume("ct.nii.gz"), here / "export" / "patient7")
    return here


def write_series(volume: medvol.Volume, folder: Path) -> None:
    """A scan as a series of DICOM."""
    depth, *shape = volume.shape
    series = Series(count=depth, shape=tuple(shape), step=volume.spacing[0], number=4)
    for dataset, voxels in zip(series.slices, volume.voxels, strict=True):
        dataset.PixelSpacing = list(volume.spacing[1:])
        Series.set_intensities(dataset, voxels)
    series.write(folder)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command as a reader would; a failure is a failure."""
    program, *arguments = words
    if program in ELSEWHERE or words[:3] == ["python", "-m", "venv"]:
        return
    if program == "cp":
        shutil.copy(*arguments)
        return
    if program == "python":
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(arguments[0], run_name="__main__")
        return
    assert program == "medvol", f"{program!r} is not called here: mark its block, or say in ELSEWHERE where it is"
    arguments = [fill_in(word) for word in arguments]
    if arguments[0] in TRAINING:
        run_experiment(arguments)
    else:
        audited = {0, 1} if "--audit" in arguments else {0}  # 1: something is paid for that should not be
        assert main(arguments) in audited, words


def fill_in(word: str) -> str:
    """``NAME`` in a path is the name of an answer."""
    if "NAME" not in word:
        return word
    found = sorted(Path().glob(word.replace("NAME", "*")))
    assert found, f"there is no {word}"
    return str(found[0])


def run_experiment(arguments: list[str]) -> None:
    """Train or test briefly; a policy that learned takes the place of what two steps made."""
    root = Path(root_of(arguments))
    fresh = arguments[0] == "fit" and "--ckpt_path" not in arguments
    few = [*FEW, "--trainer.val_check_interval=2"] if arguments[0] == "fit" and validates_by_step(arguments) else FEW
    assert main([*arguments, *few, *(["--overwrite"] if fresh else [])]) == 0, arguments
    if arguments[0] == "fit":
        assert (root / "model" / "model.safetensors").is_file()
        for file in (REPOSITORY / "medvol" / "bundled" / "best").iterdir():
            shutil.copy(file, root / "model")
    if arguments[0] == "test":
        assert json.loads((root / "evaluation.json").read_text())


def read_trainer(arguments: list[str]) -> tuple[dict[str, str], Any]:
    """Options of a command, and the settings of the trainer in its experiment."""
    options = dict(zip(arguments, [*arguments[1:], ""], strict=True))
    return options, yaml.safe_load(Path(options["--config"]).read_text())["trainer"]


def validates_by_step(arguments: list[str]) -> bool:
    """Whether the experiment counts steps, and not epochs, until it validates."""
    return "val_check_interval" in read_trainer(arguments)[1]


def root_of(arguments: list[str]) -> str:
    """Run folder of an experiment."""
    options, trainer = read_trainer(arguments)
    return options.get("--trainer.default_root_dir") or trainer["default_root_dir"]


@pytest.mark.slow
@pytest.mark.parametrize("page", pages())
def test_a_page_runs(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = PREPARED.get(page)
    if prepare is not None:
        prepare(folder)
    for block in pages()[page]:
        for words in block.commands():
            run(words, monkeypatch)


def answer(folder: Path) -> None:
    """A record of an answer about the scan, as ``record.json``."""
    saved = medvol.Segmenter().segment("ct.nii.gz", "the spleen").save(folder / "segmentations")
    shutil.copy(saved["record"], folder / "record.json")


def accept(folder: Path) -> None:
    """An answer that a reader accepted."""
    answer(folder)
    api = Api(make_desk(folder / "segmentations"))
    opened = api.first("the spleen")
    current = opened["current"]
    anchor = {name: current[name] for name in ("key_slice", "boxes_px")}
    body = {"verdict": "accepted", "anchor": anchor, "remark": "", "parent_sha256": current["sha256"]}
    assert api.post(f"api/answers/{opened['id']}/readings", body).status_code == 200
    api.close()


PREPARED = {
    "docs/get-started.md": answer,
    "docs/how-to/view.md": accept,
}
"""Pages that go on from what another page made."""
