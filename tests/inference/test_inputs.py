"""A Segmenter takes paths and names, or says what it wants."""

from pathlib import Path

import numpy as np
import pytest

from medvol.core.errors import ConfigError, EvidenceParseError, GeometryError, MedvolError, QueryError, ScanError
from medvol.core.types import Case, Query, Volume
from medvol.inference.segmenter import Segmenter
from medvol.policies.centre import CentreBoxPolicy
from medvol.policies.scripted import ScriptedPolicy
from medvol.policies.vision_language import VisionLanguagePolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.propagators.region import RegionPropagator


def test_names_and_paths(scan: Path, volume):
    segmenter = Segmenter("CentreBoxPolicy")
    assert isinstance(segmenter.policy, CentreBoxPolicy)
    assert isinstance(segmenter.propagator, RegionPropagator)
    built = Segmenter("CentreBoxPolicy", "ExtrudePropagator")
    expected = Segmenter(CentreBoxPolicy(), ExtrudePropagator()).segment(volume, "the block")
    for given in (scan, str(scan), volume):
        np.testing.assert_array_equal(built.segment(given, "the block").mask, expected.mask)


def test_a_folder_is_a_model_folder(tmp_path: Path):
    with pytest.raises(MedvolError, match=r"neither medvol\.json nor config\.json"):
        Segmenter(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    policy = Segmenter(str(tmp_path)).policy
    assert (type(policy), policy.model) == (VisionLanguagePolicy, str(tmp_path))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, "policy is 3; give a Policy"),
        ("bundled:none", "medvol comes with bundled:base and bundled:best"),
        (CentreBoxPolicy, "the class CentreBoxPolicy"),
        (ExtrudePropagator(), "ExtrudePropagator|medvol"),
        ("runs/none/model", "no model folder 'runs/none/model'"),
        ("last.ckpt", "medvol convert"),
        (Path("/nowhere"), "no model folder '/nowhere'"),
        ("OraclePolicy", "true anchor"),
    ],
    ids=str,
)
def test_what_is_no_policy(given, words):
    with pytest.raises(MedvolError, match=words):
        Segmenter(given)


@pytest.mark.parametrize("given", [3, ExtrudePropagator, CentreBoxPolicy(), "RegionPropagater"], ids=str)
def test_what_is_no_propagator(given):
    with pytest.raises(MedvolError, match="ropagator"):
        Segmenter(CentreBoxPolicy(), given)


def test_what_is_no_scan(segmenter, volume, tmp_path: Path):
    case = Case("a", volume, Query("the block"))
    for given, words in ((3, "is 3"), (volume.voxels, "numpy.ndarray; make a volume"), (case, "case's volume")):
        with pytest.raises(ConfigError, match=words):
            segmenter.segment(given, "the block")
    with pytest.raises(ScanError, match="no such file"):
        segmenter.segment(tmp_path / "none.nii.gz", "the block")


def _made(**changes: object) -> Volume:
    """A block in air, (Z, Y, X) in LPS."""
    voxels = np.full((6, 24, 24), -1000.0, np.float32)
    voxels[1:5, 6:18, 6:18] = 60
    given = {"voxels": voxels, "affine": np.diag([-2.0, -2.0, 3.0, 1.0]), **changes}
    return Volume(**given)


NAN = np.full((2, 3, 4), np.nan, np.float32)
SHEARED = np.diag([-2.0, -2.0, 3.0, 1.0])
SHEARED[1, 2] = 3.0

UNSOUND = {
    "modality": ({"modality": "ct"}, "the volume's modality is 'ct'; it is one of 'CT', 'MR', 'other'"),
    "two axes": ({"voxels": NAN[0]}, r"the shape \(3, 4\); give three axes"),
    "no voxel": ({"voxels": NAN[:0]}, r"the shape \(0, 3, 4\)"),
    "a list": ({"voxels": [[[1.0]]]}, "of the type list; give a numpy array"),
    "flags": ({"voxels": NAN > 0}, "of the type bool; give float32"),
    "not a number": ({"voxels": NAN}, "24 of 24 voxels of the volume are NaN or infinite"),
    "infinite": ({"voxels": np.full((1, 1, 1), np.inf, np.float32)}, "1 of 1 voxels"),
    "3 x 3": ({"affine": np.diag([-2.0, -2.0, 3.0])}, "no 4 x 4 array of numbers"),
    "flat": ({"affine": np.diag([-2.0, 0.0, 3.0, 1.0])}, "an axis of no length"),
    "affine of NaN": ({"affine": np.full((4, 4), np.nan)}, "no 4 x 4 array of numbers"),
    "affine with another scale": ({"affine": np.diag([-2.0, -2.0, 3.0, 2.0])}, "whose last row is 0, 0, 0, 1"),
    "sheared": ({"affine": SHEARED}, r"the volume: its axes \(LPS\) are 45.00 degrees off a right angle"),
    "as nibabel gives it": ({"affine": np.diag([2.0, 2.0, 3.0, 1.0])}, r"run RAS, and those of a Volume run LPS"),
    "head down": ({"affine": np.diag([-2.0, -2.0, -3.0, 1.0])}, "run LPI"),
}


@pytest.mark.parametrize(("changes", "said"), UNSOUND.values(), ids=UNSOUND)
def test_a_volume_that_breaks_its_promise_is_refused(changes, said):
    with pytest.raises(GeometryError, match=said):
        Segmenter("CentreBoxPolicy").segment(_made(**changes), "the block")


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16])
def test_a_sound_volume_is_answered_whatever_numbers_it_holds(kind):
    given = _made()
    turned = np.array([[-1.9, 0.6, 0, 0], [-0.6, -1.9, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])  # about the body's axis
    for volume in (_made(voxels=given.voxels.astype(kind)), _made(affine=turned)):
        mask = Segmenter("CentreBoxPolicy").segment(volume, "the block").mask
        assert mask[1:5, 8:16, 8:16].all()
        assert not mask[0].any()


@pytest.mark.parametrize("given", ["the spleen", 3, None, ["the spleen", 3]], ids=str)
def test_what_are_no_queries(segmenter, volume, given):
    with pytest.raises(QueryError, match="quer"):
        segmenter.segment_many(volume, given)


@pytest.mark.parametrize("given", ["greedy", {"temperature": 1.0}, 0.7], ids=str)
def test_what_is_no_sampling(segmenter, volume, given):
    with pytest.raises(ConfigError, match=r"sampling is .*; give a medvol.Sampling, or None for greedy answers"):
        segmenter.segment(volume, "the block", given)


def test_a_long_query_does_not_fill_the_screen(volume):
    with pytest.raises(EvidenceParseError) as refusal:
        Segmenter(ScriptedPolicy([""])).segment(volume, "the block " * 1000)
    assert len(str(refusal.value)) < 300
    assert str(refusal.value).endswith("there is no <answer> block: nothing was said")


@pytest.mark.parametrize("samples", [-1, 1, 1001, 10**30, 2.0, True])
def test_samples_are_bounded(samples):
    with pytest.raises(ConfigError, match="0, or 2 to 1000"):
        Segmenter("CentreBoxPolicy", "ExtrudePropagator", samples=samples)
