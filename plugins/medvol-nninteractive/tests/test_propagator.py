"""The contract of the role: against a recorded interface, and against the real session with a stand-in network."""

import inspect
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from medvol_nninteractive.propagator import NnInteractivePropagator

from medvol import CheckpointError, Evidence, PropagationError
from medvol.testing import make_volume, parametrize_with_checks

BRIGHT_HU = 30.0


class RecordedSession:
    """What the propagator calls of nnInteractive 2.6, with the arguments that it takes there."""

    def set_image(self, image, image_properties=None):
        assert image.ndim == 4
        self.image, self.buffer = image, None

    def set_target_buffer(self, target_buffer):
        assert target_buffer.shape == self.image.shape[1:]
        self.buffer = target_buffer

    def reset_interactions(self, _preserve_undo=False):
        self.buffer = None

    def add_bbox_interaction(
        self, bbox_coords, include_interaction, run_prediction=True, override_capability_checks=False
    ):
        assert sum(stop - start == 1 for start, stop in bbox_coords) >= 1
        (_, (y1, y2), (x1, x2)) = bbox_coords
        self.buffer[:, y1:y2, x1:x2] = self.image[0, :, y1:y2, x1:x2] > BRIGHT_HU


def with_session(session):
    """The propagator around a session, with a file where its weights would be."""
    folder = Path(tempfile.mkdtemp(prefix="nninteractive-"))
    (folder / "fold_0").mkdir()
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"weights")
    propagator = NnInteractivePropagator(str(folder), device="cpu", autozoom=False)
    propagator.__dict__["_session"] = session
    return propagator


def real_session():
    """The package's own class around a network that finds what is brighter than the scan's mean."""
    package = pytest.importorskip("nnInteractive.inference.inference_session")
    import torch

    class Brighter(torch.nn.Module):
        def forward(self, channels):
            return torch.cat([torch.zeros_like(channels[:, :1]), channels[:, :1] - 1.0], dim=1)

    session = package.nnInteractiveInferenceSession(torch.device("cpu"), do_autozoom=False, enable_undo=False)
    session.initialize_from_loaded_artifacts(
        {
            "preferred_scribble_thickness": [2, 2, 2],
            "interaction_decay": 0.98,
            "pad_mode_data": "constant",
            "point_interaction": None,
            "capability_content": {},
            "plans_manager": None,
            "configuration_manager": SimpleNamespace(patch_size=[16, 48, 48]),
            "network": Brighter(),
            "dataset_json": {},
            "trainer_name": "",
            "label_manager": None,
            "license": "none",
        }
    )
    return session


@parametrize_with_checks([with_session(RecordedSession())])
def test_contract_on_the_recorded_interface(component, check):
    check(component)


def test_the_recorded_interface_is_the_packages():
    package = pytest.importorskip("nnInteractive.inference.inference_session")
    for name, method in inspect.getmembers(RecordedSession, inspect.isfunction):
        recorded = list(inspect.signature(method).parameters)
        assert list(inspect.signature(getattr(package.nnInteractiveInferenceSession, name)).parameters) == recorded


def test_the_real_session_answers():
    propagator = with_session(real_session())
    volume = make_volume()
    evidence = Evidence(4, np.array([[20.0, 10, 50, 40]]))
    mask = propagator.propagate(volume, evidence)
    assert mask.any()
    assert volume.voxels[mask].mean() > volume.voxels[~mask].mean()
    together = propagator.propagate_many(volume, [evidence, Evidence(None, np.empty((0, 4))), evidence])
    assert np.array_equal(together[0], mask)
    assert not together[1].any()
    assert np.array_equal(together[2], mask)
    assert np.array_equal(propagator.propagate(volume, evidence, (3, 6))[3:6], mask[3:6])


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no fold_\*/checkpoint_final.pth"):
        NnInteractivePropagator(str(tmp_path)).propagate(make_volume(), Evidence(0, np.array([[0.0, 0, 9, 9]])))


def test_an_error_of_the_session_names_volume_and_anchor():
    session = RecordedSession()
    session.add_bbox_interaction = lambda *_, **__: 1 / 0
    with pytest.raises(PropagationError, match=r"slice 2, boxes \[\[0.0, 0.0, 9.0, 9.0\]\]: ZeroDivisionError"):
        with_session(session).propagate(make_volume(), Evidence(2, np.array([[0.0, 0, 9, 9]])))


def test_a_range_below_the_scan_holds_nothing():
    """As for every propagator of medvol; counted from the end it would be nearly the whole scan."""
    volume = make_volume()
    depth, height, width = volume.shape
    evidence = Evidence(depth // 2, np.array([[0.0, 0.0, width, height]]))
    propagator = with_session(RecordedSession())
    assert propagator.propagate(volume, evidence).any()
    assert not propagator.propagate(volume, evidence, (-5, -2)).any()
