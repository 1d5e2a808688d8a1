"""The walks in ``docs/architecture.md``: every file is there, and is entered in the order that the page says."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import nibabel as nib
import numpy as np
import pytest

import medvol
from medvol.cli import main
from tests.fixtures.light_policy import LightPolicy
from tests.floors import FLOORS, PACKAGE

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
SHAPE = (12, 32, 32)
FUNCTION = 0x3
"""Flags of a function's code; the body of a class lacks one of them."""


class Boxing(LightPolicy):
    """Draws boxes in place of numbers."""

    def generate(self, prompts, n=1, sampling=None):
        def write(i: int) -> str:
            return f'<answer>[{{"slice": 6, "bbox_2d_list": [[250, 250, {600 + 20 * i}, 750]]}}]</answer>'

        return [[self.encode(write(i)) for i in range(n)] for _ in prompts]


def read_walk(title: str) -> list[str]:
    """Files of one walk, in order."""
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. `(\S+\.py)`", section, re.MULTILINE)


def entered(act: Callable[[], object]) -> list[str]:
    """Files of the package, in the order in which a function of them is called first."""
    found: dict[str, None] = {}

    def watch(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_flags & FUNCTION == FUNCTION and code.co_filename.startswith(str(PACKAGE)):
            found.setdefault(str(Path(code.co_filename).relative_to(PACKAGE)))

    sys.setprofile(watch)
    try:
        act()
    finally:
        sys.setprofile(None)
    return list(found)


def fit(module: pl.LightningModule, folder: Path) -> None:
    phantoms = medvol.DATASETS["PhantomDataset"]
    data = medvol.CaseDataModule(train=phantoms(num_volumes=1, shape=SHAPE), queries_per_volume=10)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(max_steps=1, limit_val_batches=0, accelerator="cpu", default_root_dir=folder, **quiet)
    trainer.fit(module, data)
    module.on_fit_end()


def follows(walk: list[str], found: list[str]) -> None:
    missing = [file for file in walk if file not in found]
    assert not missing, f"never entered: {missing}; entered: {found}"
    assert walk == sorted(walk, key=found.index), f"entered as {[file for file in found if file in walk]}"


@pytest.mark.parametrize("title", ["`medvol segment`", "`medvol fit` with SFT", "`medvol fit` with GRPO"])
def test_files_of_a_walk_exist(title):
    walk = read_walk(title)
    assert len(walk) >= 10
    assert [file for file in walk if not (PACKAGE / file).is_file()] == []


def test_every_room_is_on_the_page():
    rooms = {room for floor in FLOORS for room in floor if (PACKAGE / room).is_dir()}
    assert {room for room in rooms if f"`{room}/`" not in PAGE.read_text()} == set()


def test_segment_goes_as_the_page_says(tmp_path):
    voxels = np.zeros(SHAPE[::-1], np.int16)
    voxels[8:20, 8:20, 4:8] = 80
    nib.save(nib.Nifti1Image(voxels, np.diag([3, 3, 5, 1])), tmp_path / "scan.nii.gz")
    words = [str(tmp_path / "scan.nii.gz"), "the spleen", "--policy", "CentreBoxPolicy", "--out", str(tmp_path / "out")]
    follows(read_walk("`medvol segment`"), entered(lambda: main(["segment", *words])))


def test_sft_goes_as_the_page_says(tmp_path):
    module = medvol.SFTModule(LightPolicy(), medvol.PROPAGATORS["ExtrudePropagator"]())
    follows(read_walk("`medvol fit` with SFT"), entered(lambda: fit(module, tmp_path)))


def test_grpo_goes_as_the_page_says(tmp_path):
    rewards = [medvol.REWARDS["VolumeDiceReward"]()]
    module = medvol.GRPOModule(Boxing(), medvol.PROPAGATORS["ExtrudePropagator"](), rewards)
    follows(read_walk("`medvol fit` with GRPO"), entered(lambda: fit(module, tmp_path)))
