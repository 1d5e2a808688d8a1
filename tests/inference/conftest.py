"""A bright block in a dim scan, stored in another orientation than LPS, and policies that box it."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medvol.core.types import Volume
from medvol.imaging.reading import read_volume
from medvol.inference.segmenter import Segmenter
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator

BOX = '<think>bright</think><answer>[{"slice": 3, "bbox_2d_list": [[250, 200, 750, 600]]}]</answer>'
"""On a slice of 40 columns and 30 rows: columns 10 to 30, rows 6 to 18."""
ABSENT = "<answer>[]</answer>"


def write_scan(path: Path, shape=(40, 30, 12), offset: float = 0.0) -> Path:
    """A CT-like NIfTI (I, J, K) whose axes run to the patient's right, front and feet."""
    voxels = np.full(shape, -100.0, np.float32)
    voxels[10:30, 12:24, 6:10] = 80.0 + offset
    voxels[0, 0, 0] = -1000.0
    affine = np.diag([1.5, 2.0, -4.0, 1.0])
    affine[:3, 3] = (-20.0, -30.0, 400.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


@pytest.fixture(scope="session")
def write_block():
    """The function that writes a scan: path, shape, offset of the block's intensity."""
    return write_scan


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_scan(tmp_path / "scans" / "case.nii.gz")


@pytest.fixture
def volume(scan: Path) -> Volume:
    return read_volume(scan)


@pytest.fixture
def segmenter() -> Segmenter:
    policy = ScriptedPolicy(
        [BOX], {"the tail": ABSENT, "nonsense": "I cannot tell", "slice 99": BOX.replace("3", "99")}
    )
    return Segmenter(policy, ExtrudePropagator(half_depth_slices=1))
