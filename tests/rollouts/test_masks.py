"""Following: what is propagated, how often, how much at once, and where it fails."""

from dataclasses import replace

import numpy as np
import pytest

from medvol.core.errors import CheckpointError, InvalidComponentError, PropagationError
from medvol.core.roles import Propagator
from medvol.core.types import Completion, Evidence, Rollout
from medvol.grounding.anchors import join_anchors
from medvol.propagators.extrude import ExtrudePropagator
from medvol.rollouts.failures import PROPAGATION_FAILED, warn_of_failures
from medvol.rollouts.masks import follow, follow_anchors
from medvol.testing import make_volume

BOX = np.array([[4.0, 6.0, 16.0, 20.0]])


class Counting(Propagator):
    """Extrudes, and keeps what it was asked for: the anchors of each call, and each anchor with its range."""

    def __init__(self, fails_at: int | None = 8, error: Exception | None = None) -> None:
        self.fails_at, self.error = fails_at, error or PropagationError(f"slice {fails_at} is out of order")
        self.calls: list[list[int | None]] = []
        self.asked: list = []

    def propagate(self, volume, evidence, z_range=None):
        self.asked.append((evidence.key_slice, z_range))
        if evidence.key_slice == self.fails_at:
            raise self.error
        return ExtrudePropagator(half_depth_slices=100).propagate(volume, evidence, z_range)

    def propagate_many(self, volume, evidences, z_ranges=None):
        self.calls.append([evidence.key_slice for evidence in evidences])
        return super().propagate_many(volume, evidences, z_ranges)


@pytest.fixture
def volume():
    return make_volume()


def anchor(key_slice):
    return Evidence(key_slice, np.empty((0, 4)) if key_slice is None else BOX.copy())


def rollouts_at(*slices):
    """Rollouts that name a slice; ``absent`` says that there is none, None was not read."""
    said = [
        Rollout("a", Completion(""), failure="no_answer")
        if z is None
        else Rollout("a", Completion(""), anchor(None if z == "absent" else z))
        for z in slices
    ]
    return [replace(rollout, case_id=f"case {i}") for i, rollout in enumerate(said)]


def in_order(followed):
    found = dict(followed)
    assert sorted(found) == list(range(len(found)))
    return [found[place] for place in range(len(found))]


def test_equal_anchors_are_followed_once_in_one_call_within_their_own_range(volume):
    counting, depth = Counting(), volume.shape[0]
    read = rollouts_at(2, 2, 1, None, "absent", 2)
    followed = in_order(follow(volume, read, counting, 1))
    assert counting.calls == [[2, 1, None]]
    assert counting.asked == [(2, (1, 4)), (1, (0, 3)), (None, None)]
    masks = [rollout.mask for rollout in followed]
    assert masks[0] is masks[1] is masks[5]
    assert not masks[4].any()
    filled = np.flatnonzero(masks[0].any(axis=(1, 2)))
    assert (filled[0], filled[-1]) == (1, min(depth - 1, 3))
    assert followed[3] is read[3]
    assert [rollout.case_id for rollout in followed] == [rollout.case_id for rollout in read]


def test_without_a_delta_the_whole_volume_is_followed(volume):
    counting = Counting()
    (rollout,) = in_order(follow(volume, rollouts_at(2), counting))
    assert counting.asked == [(2, None)]
    assert rollout.mask.any(axis=(1, 2)).all()


def test_a_range_ends_with_the_volume(volume):
    counting = Counting(fails_at=None)
    assert volume.shape[0] == 9
    list(follow(volume, rollouts_at(0, 8), counting, 3))
    assert counting.asked == [(0, (0, 4)), (8, (5, 9))]


def test_one_failed_propagation_fails_alone_and_is_named(volume, caplog):
    counting = Counting()
    first, second, same = in_order(follow(volume, rollouts_at(8, 1, 8), counting, 2))
    assert counting.calls == [[8, 1], [8], [1]]
    assert second.mask.any()
    assert first.failure == same.failure == PROPAGATION_FAILED
    assert first.evidence.key_slice == 8
    assert first.mask is None
    assert "the propagator Counting of" in first.detail
    assert "slice 8 is out of order" in first.detail
    assert isinstance(first.error, PropagationError)
    warn_of_failures([first, second, same])
    assert [record.message for record in caplog.records if "out of order" in record.message] == [
        f"case case 2: {first.detail}"
    ]


def test_what_failed_before_is_not_followed(volume):
    counting = Counting()
    (refused,) = [replace(rollout, failure="refused") for rollout in rollouts_at(2)]
    assert in_order(follow(volume, [refused], counting)) == [refused]
    assert counting.calls == []


def test_what_tells_of_the_set_up_stops_everything(volume):
    with pytest.raises(CheckpointError, match="gone"):
        list(follow(volume, rollouts_at(1, 8), Counting(error=CheckpointError("gone"))))


def test_a_volume_that_was_changed_is_not_followed_again(volume):
    class Sneaky(Counting):
        def propagate(self, volume, evidence, z_range=None):
            volume.voxels.setflags(write=True)
            volume.voxels[:] = 7
            return super().propagate(volume, evidence, z_range)

    for propagator in (Sneaky(), Counting()):
        with pytest.raises(InvalidComponentError, match=r"Sneaky .* changed what it was given"):
            list(follow(volume, rollouts_at(1, 2), propagator))


def test_masks_are_made_when_they_are_asked_for_and_only_so_many(volume):
    counting = Counting()
    two_masks_mib = 2.5 * np.prod(volume.shape) / 2**20
    places = []
    for place, _ in follow(volume, rollouts_at(1, 2, 3, 1, 4, None, 5), counting, held_mib=two_masks_mib):
        places.append(place)
        assert len(counting.calls) == {5: 0, 0: 1, 3: 1, 1: 1, 2: 2, 4: 2, 6: 3}[place]
    assert counting.calls == [[1, 2], [3, 4], [5]]
    assert places == [5, 0, 3, 1, 2, 4, 6]
    counting.calls.clear()
    assert len(list(follow(volume, rollouts_at(1, 2), counting, held_mib=0))) == 2
    assert counting.calls == [[1], [2]]


def test_anchors_differ_by_their_range(volume):
    counting = Counting()
    found = list(follow_anchors(volume, [anchor(1), anchor(1), anchor(1)], counting, [(0, 2), (0, 3), (0, 2)]))
    assert [places for places, _ in found] == [[0, 2], [1]]
    assert [int(np.flatnonzero(mask.any(axis=(1, 2)))[-1]) for _, mask in found] == [1, 2]
    assert list(follow_anchors(volume, [], counting)) == []
    assert counting.calls == [[1, 1]]


def answer_at(*slices):
    return Rollout("a", Completion(""), join_anchors([anchor(z) for z in slices]), max_anchors=4)


def test_the_mask_of_several_anchors_is_the_union_of_theirs(volume):
    counting = Counting(fails_at=None)
    short = ExtrudePropagator(half_depth_slices=1)
    counting.propagate = lambda volume, evidence, z_range=None: short.propagate(volume, evidence, z_range)
    alone = {z: short.propagate(volume, anchor(z)) for z in (0, 3, 7)}
    followed = in_order(follow(volume, [answer_at(3, 7), answer_at(0), answer_at(7, 3), answer_at(7, 0)], counting))
    for rollout, keys in zip(followed, ((3, 7), (0,), (7, 3), (7, 0)), strict=True):
        np.testing.assert_array_equal(rollout.mask, np.logical_or.reduce([alone[z] for z in keys]))
    assert counting.calls == [[3, 7, 0]], "each anchor is followed once, and alone"


def test_a_propagator_sees_single_anchors(volume):
    seen = []

    class Watching(Counting):
        def propagate(self, volume, evidence, z_range=None):
            seen.append(evidence.further)
            return super().propagate(volume, evidence, z_range)

    in_order(follow(volume, [answer_at(3, 7), answer_at(1)], Watching(None)))
    assert seen == [(), (), ()]


def test_an_answer_fails_with_one_of_its_anchors_and_harms_no_other(volume):
    failed, fine = in_order(follow(volume, [answer_at(3, 8), answer_at(3, 7)], Counting(fails_at=8)))
    assert (failed.failure, failed.mask) == (PROPAGATION_FAILED, None)
    assert fine.failure is None
    assert fine.mask.any()


@pytest.mark.parametrize(("delta", "wanted"), [(1, (1, 9)), (2, (0, 9)), (None, None)])
def test_the_range_of_several_anchors_spans_them(volume, delta, wanted):
    counting = Counting(None)
    in_order(follow(volume, [answer_at(7, 2)], counting, delta))
    assert counting.asked == [(7, wanted), (2, wanted)]


@pytest.mark.parametrize(("masks", "sizes"), [(1, [2, 2]), (3, [2, 2]), (4, [4])])
def test_memory_counts_the_masks_of_all_anchors(volume, masks, sizes):
    counting = Counting(None)
    held_mib = masks * np.prod(volume.shape) / 2**20
    in_order(follow(volume, [answer_at(1, 2), answer_at(3, 4)], counting, held_mib=held_mib))
    assert [len(call) for call in counting.calls] == sizes


class Refilling(ExtrudePropagator):
    """Fills one array again and again, and hands it out each time."""

    buffer = None

    def propagate(self, volume, evidence, z_range=None):
        mask = super().propagate(volume, evidence, z_range)
        self.buffer = np.empty_like(mask) if self.buffer is None else self.buffer
        self.buffer[:] = mask
        return self.buffer


def test_masks_in_one_array_are_kept_apart(volume):
    refilling, plain = Refilling(half_depth_slices=1), ExtrudePropagator(half_depth_slices=1)
    both = join_anchors([anchor(2), anchor(6)])
    asked = [anchor(2), anchor(6), both]
    found, right = [
        {places[0]: mask for places, mask in follow_anchors(volume, asked, one)} for one in (refilling, plain)
    ]
    assert np.flatnonzero(right[2].any(axis=(1, 2))).tolist() == [1, 2, 3, 5, 6, 7]
    for place in range(3):
        np.testing.assert_array_equal(found[place], right[place])
