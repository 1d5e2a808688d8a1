"""A toy plug-in distribution, small enough that an experiment runs in a second, and ways to run the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401 - its log handler keeps the stderr of its import; a test's own would be closed
import nibabel as nib
import numpy as np
import pytest
import yaml

from medvol.cli import main

TOY = '''
"""Components of the toy distribution."""
import os
import signal

import numpy as np
import torch
from lightning.pytorch import Callback

from medvol.core.errors import ConfigError, DatasetError, MissingExtraError
from medvol.grounding.prompts import PromptTemplate
from medvol.core.roles import CaseDataset, Policy, Propagator, RewardTerm, TrainablePolicy
from medvol.core.types import Case, Completion, Query, Volume

ANSWER = '<think>a cube</think><answer>[{"slice": 2, "bbox_2d_list": [[250, 250, 750, 750]]}]</answer>'


class ToyPolicy(TrainablePolicy):
    """Always gives one answer; its one weight can be trained.

    Args:
        answer: What it says.
        scale: Start of the weight.
        model: Folder of a saved toy, which must exist.
    """

    def __init__(self, answer: str = ANSWER, scale: float = 1.0, model: str | None = None) -> None:
        if model is not None and not os.path.isdir(model):
            raise ConfigError(f"there is no toy at {model!r}")
        self.answer, self.scale, self.model = answer, scale, model
        self._network = None

    @property
    def template(self):
        return PromptTemplate(num_slices=4, height_px=16, width_px=16)

    def load(self):
        if self._network is None:
            self._network = torch.nn.Linear(1, 1)
            torch.nn.init.constant_(self._network.weight, self.scale)
        return self._network

    def generate(self, prompts, n=1, sampling=None):
        return [[Completion(self.answer)] * n for _ in prompts]

    def encode(self, text):
        return Completion(text, np.array([1, 2], np.int64))

    def log_probs(self, prompts, completions):
        weight = self.load().weight[0, 0]
        return [[-(weight**2) * torch.ones(2) for _ in rows] for rows in completions]

    def reference_log_probs(self, prompts, completions):
        return [[torch.zeros(2) for _ in rows] for rows in completions]

    def trainable_parameters(self):
        return list(self.load().parameters())

    def write_weights(self, folder):
        with open(os.path.join(folder, "weight.txt"), "w") as file:
            file.write(repr(self.load().weight.item()))


class ToyPropagator(Propagator):
    """Fills the boxes on the slices around the key slice.

    Args:
        depth: Slices on either side.
        fails: Raise instead.
    """

    def __init__(self, depth: int = 1, fails: bool = False) -> None:
        self.depth, self.fails = depth, fails

    def propagate(self, volume, evidence, z_range=None):
        if self.fails:
            raise MissingExtraError("toylib", "toy")
        mask = np.zeros(volume.shape, bool)
        for x1, y1, x2, y2 in evidence.boxes.astype(int):
            z = evidence.key_slice
            mask[max(z - self.depth, 0) : z + self.depth + 1, y1:y2, x1:x2] = True
        return mask


class ToyDataset(CaseDataset):
    """Cubes.

    Args:
        count: Volumes.
        first_patient: Number of the first patient.
        broken: Cases raise.
    """

    def __init__(self, count: int = 3, first_patient: int = 0, broken: bool = False) -> None:
        self.count, self.first_patient, self.broken = count, first_patient, broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if self.broken:
            raise DatasetError("the cube is lost; find it")
        voxels = np.full((4, 8, 8), -100, np.float32)
        target = np.zeros(voxels.shape, bool)
        target[1:4, 2:6, 2:6] = True
        voxels[target] = 60
        volume = Volume(voxels, np.diag([-2.0, -2.0, 5.0, 1.0]), volume_id=self.volume_key(index))
        return Case(f"case{index}", volume, Query("the cube", "cube"), target, self.patient_id(index))

    def volume_key(self, index):
        return f"volume{self.first_patient + index}"

    def patient_id(self, index):
        return f"patient{self.first_patient + index}"


class HalfDataset(CaseDataset):
    """Says nothing of volumes and patients."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return ToyDataset()[index]


class KillAfter(Callback):
    """Sends this process a signal at the end of a training step."""

    def __init__(self, number: int, step: int = 3) -> None:
        self.number, self.step = number, step

    def on_train_batch_end(self, trainer, *rest):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


class ToyReward(RewardTerm):
    """Always 1."""

    def __call__(self, rollout, case):
        return 1.0
'''

ENTRY_POINTS = {
    "policies": ["ToyPolicy"],
    "propagators": ["ToyPropagator"],
    "rewards": ["ToyReward"],
    "datasets": ["ToyDataset"],
}


def write_distribution(folder: Path, name: str, version: str, groups: dict[str, dict[str, str]], source: str) -> None:
    """Write an installed-looking distribution: one module and its metadata."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (folder / f"{name}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in groups.items():
        lines += [f"[medvol.{group}]", *(f"{point} = {target}" for point, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(autouse=True)
def _still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of progress come when the clock goes on; here it stands still, however slow the machine is."""
    from medvol.terminal.displays import Lines

    still = lambda: Lines(clock=lambda: 0.0, watched=False)  # noqa: E731
    monkeypatch.setattr("medvol.terminal.displays._choose", still)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    groups = {kind: {name: f"medvol_toy:{name}" for name in names} for kind, names in ENTRY_POINTS.items()}
    write_distribution(folder, "medvol_toy", "1.2", groups, TOY)
    return folder


@pytest.fixture
def toy(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy distribution, as if it were installed."""
    monkeypatch.syspath_prepend(str(toy_folder))
    return toy_folder


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a further distribution for one test."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def install(name: str, groups: dict[str, dict[str, str]], source: str = "", version: str = "0.3") -> None:
        write_distribution(folder, name, version, groups, source)

    return install


@pytest.fixture
def experiment(tmp_path: Path, toy: Path) -> Callable[..., Path]:
    """Write an experiment of toys; keyword arguments with ``__`` between keys change or remove (None) settings."""

    def write(name: str = "exp.yaml", **changes: Any) -> Path:
        settings: dict[str, Any] = {
            "model": {
                "class_path": "SFTModule",
                "init_args": {
                    "policy": "ToyPolicy",
                    "propagator": "ToyPropagator",
                    "optimizer": {"learning_rate": 0.1},
                },
            },
            "data": {
                "class_path": "CaseDataModule",
                "init_args": {
                    "train": "ToyDataset",
                    "val": {"class_path": "ToyDataset", "init_args": {"first_patient": 10, "count": 1}},
                    "test": {"class_path": "ToyDataset", "init_args": {"first_patient": 20, "count": 2}},
                },
            },
            "trainer": {
                "default_root_dir": str(tmp_path / "run"),
                "accelerator": "cpu",
                "max_steps": 3,
                "log_every_n_steps": 1,
                "enable_progress_bar": False,
                "enable_model_summary": False,
            },
        }
        for path, value in changes.items():
            *parents, key = path.split("__")
            node = settings
            for parent in parents:
                node = node.setdefault(parent, {})
            if value is None:
                node.pop(key, None)
            else:
                node[key] = value
        target = tmp_path / name
        target.write_text(yaml.safe_dump(settings))
        return target

    return write


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must be refused: exit code 2 and one line on stderr, which is returned."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert code == 2, captured
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("medvol: ")
        assert "Traceback" not in lines[0]
        return lines[0].removeprefix("medvol: ")

    return run


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan stored from left to right, front to back: x and y run against the canonical axes."""
    path = tmp_path / "scans" / "ct.nii.gz"
    path.parent.mkdir()
    image = nib.Nifti1Image(np.zeros((8, 8, 4), np.int16), np.diag([2.0, 2.0, 5.0, 1.0]))
    image.set_qform(image.affine, 1)
    nib.save(image, path)
    return path
