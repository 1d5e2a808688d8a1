"""Arrays are locked while a component works, and free again afterwards, whatever they look at."""

import numpy as np
import pytest
import torch

from medvol.core.types import Evidence
from medvol.datasets.labelled_case import LabelledCase
from medvol.guarding.guard import propagate_many, score_terms
from medvol.guarding.snapshots import locked
from medvol.propagators.extrude import ExtrudePropagator
from medvol.rewards.format import FormatReward
from medvol.testing import make_case, make_rollout


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_views_of_one_array_are_locked_and_free_again(order: tuple[int, ...]) -> None:
    whole = np.zeros((4, 4), np.uint8)
    arrays = [whole, whole.view(bool), whole[:2][:, 1:]]
    given = {f"array{i}": arrays[i] for i in order}
    with locked(given):
        assert not any(array.flags.writeable for array in arrays)
    assert all(array.flags.writeable for array in arrays)


def test_memory_that_stays_locked_keeps_nothing_else_locked() -> None:
    """NumPy does not free an array on the memory of a tensor again."""
    plain, lent = np.zeros(3), torch.zeros(3).numpy()
    for given in ({"lent": lent, "plain": plain}, {"plain": plain, "lent": lent}):
        with locked(given):
            assert not plain.flags.writeable
        assert plain.flags.writeable


def test_a_target_may_be_a_view_of_the_labels() -> None:
    case = make_case()
    labels = case.target.astype(np.uint8)
    own = LabelledCase(case.case_id, case.volume, case.query, labels.view(bool), labels=labels)
    assert score_terms({"form": FormatReward()}, make_rollout(own), own)["form"] == 1.0
    assert labels.flags.writeable
    assert own.target.flags.writeable


def test_anchors_may_share_their_boxes() -> None:
    volume = make_case().volume
    boxes = np.array([[2.0, 2.0, 6.0, 6.0], [8.0, 8.0, 12.0, 12.0]])
    anchors = [Evidence(2, boxes[:1]), Evidence(3, boxes)]
    masks = propagate_many(ExtrudePropagator(), volume, anchors, [None, None])
    assert [mask.any() for mask in masks] == [True, True]
    assert boxes.flags.writeable
