"""Processes that prepare cases: they hand errors of ours over, and end with the main one however it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from medvol.core.errors import DatasetError, MissingExtraError
from medvol.core.roles import CaseDataset
from medvol.datasets.phantom import PhantomDataset
from medvol.training.data import CaseDataModule

UNCAUGHT = """
import sys
from medvol.datasets.phantom import PhantomDataset
from medvol.training.data import CaseDataModule
def train():
    data = CaseDataModule(PhantomDataset(split="train", num_volumes=4, shape=(8, 32, 32)), num_workers=1)
    data.setup("fit")
    batches = iter(data.train_dataloader())
    next(batches)
    raise RuntimeError("CUDA out of memory")
train()
"""


class Failing(PhantomDataset):
    """Needs an extra, which it finds out late."""

    def __getitem__(self, index):
        raise MissingExtraError("pydicom", "dicom")


def load(dataset: CaseDataset, workers: int) -> list:
    data = CaseDataModule(dataset, num_workers=workers)
    data.setup("fit")
    return list(data.train_dataloader())


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_ours_arrives_as_it_is(workers: int) -> None:
    with pytest.raises(MissingExtraError, match=r"^pydicom is needed here but is not installed; run: pip install"):
        load(Failing(split="train", num_volumes=2, shape=(8, 32, 32)), workers)


def test_an_error_that_nobody_catches_ends_the_program(tmp_path: Path) -> None:
    """The loader's process ignored the signal by which the standard library ends it, and was waited for for ever."""
    script = tmp_path / "train.py"
    script.write_text(UNCAUGHT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "CUDA out of memory" in done.stderr.splitlines()[-1]


class TwoViews(PhantomDataset):
    """Says that two volumes are one."""

    def volume_key(self, index: int) -> str:
        return "one"


def test_two_volumes_of_one_key_are_refused() -> None:
    with pytest.raises(DatasetError, match="have one volume_key, and different volumes"):
        load(TwoViews(split="train", num_volumes=2, shape=(8, 32, 32)), 0)
