"""From a query to a mask, and from an edited record to another one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvol.core.errors import ConfigError, EvidenceParseError, PropagationError, QueryError, RecordError
from medvol.core.roles import Propagator
from medvol.core.types import Evidence, Volume
from medvol.grounding import prompts
from medvol.grounding.grammar import format_evidence
from medvol.inference.records import read_record
from medvol.inference.repropagation import repropagate
from medvol.inference.segmenter import Segmenter
from medvol.policies.oracle import OraclePolicy
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator

EXPECTED = np.zeros((12, 30, 40), bool)
EXPECTED[2:5, 6:18, 10:30] = True
"""The box of the script, one slice up and down."""


def test_mask_follows_the_answer(segmenter, volume):
    result = segmenter.segment(volume, " the block ")
    np.testing.assert_array_equal(result.mask, EXPECTED)
    assert result.query == "the block"
    assert result.evidence.key_slice == 3
    assert result.evidence.rationale == "bright"
    assert result.provenance["policy"]["name"] == "ScriptedPolicy"
    assert result.provenance["propagator"]["half_depth_slices"] == 1
    assert result.provenance["edited"] is False


def test_absent_answer_gives_an_empty_mask(segmenter, volume):
    result = segmenter.segment(volume, "the tail")
    assert result.evidence.absent
    assert result.mask.shape == volume.shape
    assert not result.mask.any()


@pytest.mark.parametrize(
    ("query", "failure", "words"),
    [("nonsense", "no_answer", "I cannot tell"), ("slice 99", "bad_slice", "slices 0..11")],
)
def test_unusable_answer_is_named_and_quoted(segmenter, volume, query, failure, words):
    with pytest.raises(EvidenceParseError, match=words) as caught:
        segmenter.segment(volume, query)
    assert caught.value.failure == failure
    assert repr(query) in str(caught.value)


def test_quoted_answer_is_short(segmenter, volume):
    segmenter.policy.by_query["long"] = "x" * 100_000
    with pytest.raises(EvidenceParseError) as caught:
        segmenter.segment(volume, "long")
    assert len(str(caught.value)) < 600


def test_empty_query_is_refused(segmenter, volume):
    with pytest.raises(QueryError, match="empty"):
        segmenter.segment(volume, "  ")


def test_many_queries_share_one_drawing(segmenter, volume, monkeypatch):
    drawn = []
    draw = prompts.draw_slices
    monkeypatch.setattr(prompts, "draw_slices", lambda *args: drawn.append(1) or draw(*args))
    results = segmenter.segment_many(volume, ["the block", "the tail", "the block again"])
    assert len(drawn) == 1
    assert [result.query for result in results] == ["the block", "the tail", "the block again"]
    assert [int(result.mask.sum()) for result in results] == [720, 0, 720]


def test_oracle_is_refused():
    with pytest.raises(ConfigError, match="OraclePolicy"):
        Segmenter(OraclePolicy(), ExtrudePropagator())


def test_mask_of_another_shape_is_refused(segmenter, volume):
    class Wrong(Propagator):
        def propagate(self, volume, evidence, z_range=None):
            return np.zeros((1, 2, 3), bool)

    with pytest.raises(PropagationError, match=r"Wrong of the module .* bool of shape \(1, 2, 3\); a mask is"):
        Segmenter(segmenter.policy, Wrong()).segment(volume, "the block")


@pytest.fixture
def record(segmenter, volume, tmp_path: Path):
    return read_record(segmenter.segment(volume, "the block").save(tmp_path / "out")["record"])


def test_untouched_record_gives_the_same_mask(record, volume):
    result = repropagate(volume, record, ExtrudePropagator(half_depth_slices=1))
    np.testing.assert_array_equal(result.mask, EXPECTED)
    assert result.provenance["edited"] is False
    assert result.completion.text == record.completion


def test_edited_record_is_marked(record, volume, tmp_path: Path):
    moved = replace(record, evidence=Evidence(5, np.array([[0.0, 0.0, 4.0, 4.0]]), "bright"))
    result = repropagate(volume, moved, ExtrudePropagator(half_depth_slices=0))
    assert np.argwhere(result.mask).tolist() == [[5, y, x] for y in range(4) for x in range(4)]
    assert result.provenance["edited"] is True
    assert result.provenance["policy"] == record.policy
    again = read_record(result.save(tmp_path / "edited")["record"])
    assert again.edited
    assert repropagate(volume, again, ExtrudePropagator()).provenance["edited"] is True


def test_record_of_another_scan_is_refused_unless_allowed(record, volume):
    other = replace(volume, voxels=volume.voxels + 1)
    with pytest.raises(RecordError, match="another scan"):
        repropagate(other, record, ExtrudePropagator())
    assert repropagate(other, record, ExtrudePropagator(), allow_other_scan=True).mask.any()


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (Evidence(12, np.array([[0.0, 0.0, 4.0, 4.0]])), "slices 0 to 11"),
        (Evidence(3, np.array([[0.0, 0.0, 41.0, 4.0]])), "40 x 30"),
        (Evidence(3, np.array([[0.0, 0.0, 40.0, 30.5]])), "40 x 30"),
    ],
)
def test_anchor_outside_the_scan_is_refused(record, volume, evidence, words):
    with pytest.raises(RecordError, match=words):
        repropagate(volume, replace(record, evidence=evidence), ExtrudePropagator())


@pytest.mark.parametrize("kind", ["int16", ">i2", "int32", "uint8", "float16", "float64"])
def test_a_scan_has_one_answer_whatever_its_voxels_are_held_as(kind):
    """Whole numbers from 0 to 200, which all kinds hold exactly; smoothing them must not cut what lies between."""
    whole = np.random.default_rng(0).integers(0, 40, (8, 32, 32)).astype(np.float32)
    whole[2:6, 8:22, 8:22] += 100
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    evidence = Evidence(3, np.array([[7.0, 7.0, 23.0, 23.0]]))
    masks = []
    for voxels in (whole, whole.astype(kind)):
        segmenter = Segmenter(
            ScriptedPolicy([f"<think>bright</think>{format_evidence(evidence, 32, 32)}"]), "RegionPropagator"
        )
        masks.append(segmenter.segment(Volume(voxels, affine), "the block").mask)
    assert masks[0].any()
    np.testing.assert_array_equal(*masks)
