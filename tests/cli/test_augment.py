"""Augmentation and the cache of slices from YAML."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medvol.cli import main


def test_fit_with_augmentation(experiment: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("torchio")
    noise = {"name": "RandomNoise", "std": [0, 10], "p": 0.5}
    shift = {"name": "RandomAffine", "degrees": 5, "translation": 2}
    assert main(["fit", "--config", str(experiment(data__init_args__augment=[noise, shift]))]) == 0
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_a_flip_of_sides_is_refused(experiment: Callable[..., Path], refused: Callable[..., str]) -> None:
    config = experiment(data__init_args__augment=[{"name": "RandomFlip"}])
    assert "could exchange left and right" in refused("fit", "--config", config)


def test_fit_from_a_cache_of_slices(experiment: Callable[..., Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for patient in range(2):
        mask = np.zeros((8, 8, 6), np.uint8)
        mask[2:6, 2:6, 2:4] = 1
        for name, voxels in (("image", rng.normal(0, 50, mask.shape) + 100 * mask), ("label", mask)):
            image = nib.Nifti1Image(voxels.astype(np.int16), np.diag([1.0, 1, 3, 1]))
            (tmp_path / f"p{patient}").mkdir(exist_ok=True)
            nib.save(image, tmp_path / f"p{patient}" / f"{name}.nii.gz")
    questions, cache = {"min_voxels": 1}, {"folder": str(tmp_path / "cache")}
    settings = {"root": str(tmp_path), "target": "liver", "questions": questions, "cache": cache}
    data = {"class_path": "NiftiDataset", "init_args": settings}
    config = experiment(data__init_args__train=data)
    assert main(["fit", "--config", str(config)]) == 0
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.slices")}
    assert len(kept) == 3, "two scans, and label maps that hold the same"
    assert main(["check", str(config)]) == 0
    assert {path.name for path in (tmp_path / "cache").glob("*.slices")} == set(kept)
