"""The wiring of ``medvol segment`` with MedSAM2Propagator, on RANDOM weights: the mask itself means nothing."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medvol.cli import main
from medvol.core.atomic_files import file_sha256


def test_segment_runs_end_to_end_on_random_weights(random_folder: str, toy: Path, tmp_path: Path) -> None:
    scan, out = tmp_path / "ct.nii.gz", tmp_path / "out"
    voxels = np.random.default_rng(0).normal(0, 100, (24, 20, 6)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([-2.0, -2.0, 5.0, 1.0])), scan)
    medsam2 = ("--propagator", "MedSAM2Propagator", "--propagator.checkpoint", random_folder)
    assert main(["segment", str(scan), "the cube", "--policy", "ToyPolicy", *medsam2, "--out", str(out)]) == 0
    (path,) = out.glob("ct_the-cube_*.nii.gz")
    mask = np.asarray(nib.load(path).dataobj)
    assert mask.shape == voxels.shape
    assert mask.any()
    written = json.loads(next(out.glob("ct_the-cube_*.json")).read_text())["propagator"]
    assert written["name"] == "MedSAM2Propagator"
    assert written["weights_sha256"] == file_sha256(Path(random_folder) / "model.safetensors")


def test_weights_that_are_not_here_are_one_sentence(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 4), np.int16), np.diag([-2.0, -2.0, 5.0, 1.0])), scan)
    medsam2 = ("--propagator", "MedSAM2Propagator", "--propagator.checkpoint", "MedSAM2_lates")
    assert main(["segment", str(scan), "it", "--policy", "ToyPolicy", *medsam2, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "there are no weights 'MedSAM2_lates'; give" in error
    assert error.strip().endswith("did you mean 'MedSAM2_latest'?")
    assert len(error.strip().splitlines()) == 1
