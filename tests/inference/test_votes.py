"""Votes of sampled answers: closed forms, brute force, and the map beside an answer."""

import itertools
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medvol.core.errors import ConfigError, PropagationError
from medvol.core.metrics import dice
from medvol.core.types import Completion, Rollout
from medvol.inference.records import read_record
from medvol.inference.segmenter import Segmenter
from medvol.inference.votes import count_votes
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator

SHAPE = (5, 6, 7)


def rollout(mask) -> Rollout:
    return Rollout("a", Completion(""), mask=mask)


def box(z, y, x) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask


def test_shares_pairs_and_support_in_closed_form() -> None:
    """Two samples hold 4 voxels, one holds 2 of them and 2 others: pairs of 1, 0.5 and 0.5."""
    first, second = box((1, 2), (0, 2), (0, 2)), box((1, 2), (0, 2), (1, 3))
    votes = count_votes([rollout(first), rollout(first), rollout(second)], SHAPE)
    assert votes.agreement == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert (votes.samples, votes.empty) == (3, 0)
    assert votes.shares.dtype == np.float32
    np.testing.assert_allclose(votes.shares[1, 0, :4], [2 / 3, 1, 1 / 3, 0], rtol=1e-6)
    assert votes.support(first) == pytest.approx((2 / 3 + 1) / 2)
    assert votes.support(second) == pytest.approx((1 + 1 / 3) / 2)
    assert votes.support(box((4, 5), (5, 6), (6, 7))) == 0


def test_empty_masks_agree_and_failures_agree_with_none() -> None:
    nothing, some = np.zeros(SHAPE, bool), box((0, 2), (0, 2), (0, 2))
    assert count_votes([rollout(nothing), rollout(nothing.copy())], SHAPE).agreement == 1
    assert count_votes([rollout(nothing), rollout(some)], SHAPE).agreement == 0
    assert count_votes([rollout(None), rollout(None)], SHAPE).agreement == 0
    votes = count_votes([rollout(some), rollout(some), rollout(None), rollout(nothing)], SHAPE)
    assert votes.agreement == pytest.approx(1 / 6)
    assert votes.shares.max() == 0.5
    assert votes.support(nothing) == 0.25


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_over_pairs_by_brute_force(seed: int) -> None:
    """Random masks, some of them shared by several samples, in boxes that meet, touch or lie apart."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(6):
        mask = np.zeros(SHAPE, bool)
        low, high = np.sort(rng.integers(0, np.array([SHAPE, SHAPE]) + 1, (2, 3)), axis=0)
        part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        mask[part] = rng.random(mask[part].shape) < 0.6
        drawn += [mask] * int(rng.integers(1, 4))
    votes = count_votes(map(rollout, drawn), SHAPE)
    pairs = [dice(first, second) for first, second in itertools.combinations(drawn, 2)]
    assert votes.agreement == pytest.approx(np.mean(pairs))
    np.testing.assert_allclose(votes.shares, np.mean(drawn, axis=0), atol=1e-6)


LEFT, RIGHT = (
    f'<think>x</think><answer>[{{"slice": 3, "bbox_2d_list": [[{x1}, 200, {x2}, 600]]}}]</answer>'
    for x1, x2 in ((250, 500), (500, 750))
)
GARBLED = "I cannot tell"


class Counting(ExtrudePropagator):
    """Notes how many anchors it was given at once."""

    def __init__(self, half_depth_slices: int = 1) -> None:
        super().__init__(half_depth_slices)
        self.calls: list[int] = []

    def identity(self):
        return {"name": "Counting"}

    def propagate_many(self, volume, evidences, z_ranges=None):
        self.calls.append(len(evidences))
        return super().propagate_many(volume, evidences, z_ranges)


def mapped(*answers: str, samples: int = 4) -> Segmenter:
    return Segmenter(ScriptedPolicy(answers), Counting(), samples, agreement_map=True)


def test_an_answer_has_a_map_in_the_grid_of_its_scan(volume, scan: Path, tmp_path: Path) -> None:
    """Columns 10 to 20 from two of four samples, columns 20 to 30 from one, one is garbled; the answer is the first."""
    segmenter = mapped(LEFT, RIGHT, LEFT, GARBLED)
    answer = segmenter.segment(volume, "the block")
    assert segmenter.propagator.calls == [1, 2], "the answer, then both anchors of its samples together"
    row = answer.agreement_map[3, 10]
    assert set(row[10:20]) == {0.5}
    assert set(row[20:30]) == {0.25}
    assert answer.agreement_map[5].max() == 0
    found = answer.confidence.agreement
    assert found.masks == pytest.approx(1 / 6)
    assert found.support == pytest.approx(0.5)
    assert "masks 0.17)" in answer.confidence.sentences()[-1]
    paths = answer.save(tmp_path, "block")
    assert paths["agreement"] == tmp_path / "block.agreement.nii.gz"
    kept, mask, stored = (nib.load(path) for path in (paths["agreement"], paths["mask"], scan))
    assert kept.get_data_dtype() == np.float32
    assert kept.affine.tobytes() == stored.affine.tobytes()
    np.testing.assert_array_equal(np.asarray(kept.dataobj) == 0.5, np.asarray(mask.dataobj) > 0)
    agreement = json.loads(paths["record"].read_text())["confidence"]["agreement"]
    assert (agreement["masks"], agreement["support"]) == (0.1667, 0.5)


def test_an_answer_without_a_map_stays_as_it_was(volume, tmp_path: Path) -> None:
    segmenter = Segmenter(ScriptedPolicy([LEFT]), ExtrudePropagator(half_depth_slices=1), 4)
    answer = segmenter.segment(volume, "the block")
    assert answer.agreement_map is None
    paths = answer.save(tmp_path, "block")
    assert "agreement" not in paths
    agreement = json.loads(paths["record"].read_text())["confidence"]["agreement"]
    assert set(agreement) == {"samples", "parsed", "key_slice", "boxes", "anchors"}


def test_an_earlier_answer_counts_only_with_its_map(volume, tmp_path: Path) -> None:
    with_map, without = mapped(LEFT), Segmenter(ScriptedPolicy([LEFT]), ExtrudePropagator(half_depth_slices=1), 4)
    first = with_map.segment(volume, "the block").save(tmp_path, "block")
    assert with_map.accepts(read_record(first["record"]))
    assert without.accepts(read_record(first["record"]))
    without.segment(volume, "the block").save(tmp_path, "block")
    assert not first["agreement"].exists(), "a map of an answer that was replaced does not stay"
    assert not with_map.accepts(read_record(first["record"]))


def test_an_answer_that_fails_takes_no_votes(volume) -> None:
    class Failing(ExtrudePropagator):
        def propagate(self, volume, evidence, z_range=None):
            raise PropagationError("no")

    with pytest.raises(PropagationError):
        Segmenter(ScriptedPolicy([LEFT]), Failing(), 2, agreement_map=True).segment(volume, "the block")


def test_a_map_without_samples_is_refused() -> None:
    with pytest.raises(ConfigError, match="set samples to 2 or more"):
        Segmenter(ScriptedPolicy(), ExtrudePropagator(), agreement_map=True)
