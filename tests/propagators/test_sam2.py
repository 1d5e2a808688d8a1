"""SAM2Propagator on random weights: its contract, but for finding a clear target, which random weights cannot."""

import numpy as np
import pytest

from medvol.core.errors import CheckpointError, ConfigError, MissingExtraError, PropagationError
from medvol.core.types import Evidence, Volume
from medvol.propagators.sam2 import SAM2Propagator
from medvol.testing.propagator_checks import PROPAGATOR_CHECKS, check_overlaps_boxes, check_several_boxes

BOX = np.array([[10.0, 8, 60, 50]])
NEEDS_TRAINING = {check_overlaps_boxes, check_several_boxes}


@pytest.fixture(scope="module")
def propagator(small_weights):
    return SAM2Propagator(small_weights.checkpoint, window="soft_tissue", **small_weights.package)


@pytest.mark.parametrize("check", [c for c in PROPAGATOR_CHECKS if c not in NEEDS_TRAINING], ids=lambda c: c.__name__)
def test_contract(propagator, check):
    check(propagator)


def test_identity_names_weights_and_settings(propagator, small_weights):
    identity = propagator.identity()
    assert identity["name"] == "SAM2Propagator"
    assert identity["image_size"] == 128
    assert len(identity["weights_sha256"]) == 64


def test_an_error_names_volume_and_anchor(propagator):
    voxels = np.zeros((4, 60, 70), np.float32)
    voxels[2, 0, 0] = np.nan
    volume = Volume(voxels, np.eye(4), "CT", "case-9")
    with pytest.raises(PropagationError, match=r"'case-9', slice 1, .*slice 2 holds values"):
        propagator.propagate(volume, Evidence(1, BOX))


def test_a_converted_folder_belongs_to_the_other_propagator(small_weights, noisy_volume):
    with pytest.raises(CheckpointError, match="reads upstream"):
        SAM2Propagator(small_weights.folder).propagate(noisy_volume, Evidence(1, BOX))


def test_weights_of_another_configuration_are_refused(small_weights, noisy_volume):
    other = SAM2Propagator(small_weights.checkpoint, config=small_weights.package["config"])
    with pytest.raises(CheckpointError, match="do not fit the configuration"):
        other.propagate(noisy_volume, Evidence(1, BOX))


def test_a_configuration_that_does_not_exist_is_refused(small_weights, noisy_volume):
    with pytest.raises(ConfigError, match=r"'nowhere\.yaml' of sam2 cannot be used"):
        SAM2Propagator(small_weights.checkpoint, config="nowhere.yaml").propagate(noisy_volume, Evidence(1, BOX))


def test_the_extra_is_named_when_it_is_absent(tmp_path, noisy_volume, monkeypatch):
    import sys

    (tmp_path / "w.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "sam2.build_sam", None)
    with pytest.raises(MissingExtraError, match=r"medvol-r1\[sam2\]"):
        SAM2Propagator(str(tmp_path / "w.pt"), config="any.yaml").propagate(noisy_volume, Evidence(1, BOX))
