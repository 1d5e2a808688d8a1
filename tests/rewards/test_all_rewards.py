"""What every reward promises: bounds, perfect answers, failures, absent targets, order of boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medvol.core.errors import DatasetError
from medvol.core.types import Case, Query, Rollout
from medvol.grounding.boxes import tight_boxes
from medvol.rewards.axial import AxialReward
from medvol.rewards.consistency import ConsistencyReward
from medvol.rewards.format import FormatReward
from medvol.rewards.spatial import SpatialReward
from medvol.rewards.volume_dice import VolumeDiceReward

GROUNDED = [
    AxialReward(),
    AxialReward("local", 2),
    SpatialReward(),
    SpatialReward(split_boxes=False),
    SpatialReward("labelled"),
    ConsistencyReward(),
    ConsistencyReward(None),
    ConsistencyReward(1, 1.0),
    VolumeDiceReward(),
]
EVERY = [FormatReward(), FormatReward(strict=True), *GROUNDED]

SHAPE = (5, 12, 16)
volumes = arrays(bool, SHAPE)
slices = st.integers(0, SHAPE[0] - 1)


@st.composite
def box_lists(draw):
    corners = st.tuples(st.integers(0, 15), st.integers(0, 11), st.integers(1, 16), st.integers(1, 12))
    boxes = draw(st.lists(corners, min_size=1, max_size=4))
    return [(min(a, c - 1), min(b, d - 1), c, d) for a, b, c, d in boxes]


@settings(max_examples=150, deadline=None)
@given(
    target=volumes, mask=volumes, key_slice=slices, boxes=box_lists(), kind=st.sampled_from(["boxes", "none", "bad"])
)
def test_scores_are_bounded_and_do_not_depend_on_the_order_of_boxes(
    make_case, make_rollout, write_answer, target, mask, key_slice, boxes, kind
):
    case = make_case(target)
    texts = {
        "boxes": [write_answer(SHAPE, key_slice, order) for order in (boxes, boxes[::-1])],
        "none": [write_answer(SHAPE)] * 2,
        "bad": ["<answer>?</answer>"] * 2,
    }[kind]
    for term in EVERY:
        first, second = (term(make_rollout(text, case, mask), case) for text in texts)
        assert isinstance(first, float)
        assert 0.0 <= first <= 1.0
        assert first == pytest.approx(second, abs=1e-12)


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(8, 2048), width=st.integers(8, 2048), data=st.data(), step=st.sampled_from([1, 5, 10, 20, 50])
)
def test_a_perfect_answer_scores_exactly_1_at_every_box_size(
    make_case, make_rollout, write_answer, height, width, data, step
):
    x1, y1 = data.draw(st.integers(0, width - 4)), data.draw(st.integers(0, height - 4))
    x2, y2 = data.draw(st.integers(x1 + 4, width)), data.draw(st.integers(y1 + 4, height))
    target = np.zeros((2, height, width), bool)
    target[1, y1:y2, x1:x2] = True
    case = make_case(target)
    text = write_answer(target.shape, 1, tight_boxes(target[1]), step)
    rollout = make_rollout(text, case, target)
    terms = [*EVERY, SpatialReward(coordinate_step=step), SpatialReward("labelled", coordinate_step=step)]
    for term in terms:
        if isinstance(term, SpatialReward) and term.coordinate_step != step:
            continue
        assert term(rollout, case) == 1.0, type(term).__name__


@pytest.mark.parametrize("size", [4, 5, 8, 12, 20, 40])
def test_two_small_boxes_score_exactly_1(make_case, make_rollout, write_answer, size):
    target = np.zeros((3, 512, 512), bool)
    target[1, 101 : 101 + size, 203 : 203 + size] = True
    target[1, 307 : 307 + size, 411 : 411 + size] = True
    case = make_case(target)
    rollout = make_rollout(write_answer(target.shape, 1, tight_boxes(target[1], split=True)), case, target)
    for term in (SpatialReward(), SpatialReward("labelled"), AxialReward(), ConsistencyReward(), FormatReward()):
        assert term(rollout, case) == 1.0


@pytest.mark.parametrize("term", GROUNDED, ids=lambda term: type(term).__name__)
def test_answers_about_presence(make_case, make_rollout, write_answer, term):
    present = np.zeros(SHAPE, bool)
    present[2, 2:8, 3:9] = True
    absent = np.zeros(SHAPE, bool)
    nothing, boxes = write_answer(SHAPE), write_answer(SHAPE, 2, [(3, 2, 9, 8)])
    expected = {(False, nothing): 1.0, (True, nothing): 0.0, (False, boxes): 0.0, (True, boxes): 1.0}
    for (there, text), score in expected.items():
        case = make_case(present if there else absent)
        mask = present if text == boxes and there else absent
        assert term(make_rollout(text, case, mask), case) == score


@pytest.mark.parametrize("term", GROUNDED, ids=lambda term: type(term).__name__)
@pytest.mark.parametrize("there", [True, False])
def test_unparsable_answers_score_0(make_case, make_rollout, term, there):
    case = make_case(np.full(SHAPE, there))
    assert term(make_rollout("I cannot tell", case), case) == 0.0


@pytest.mark.parametrize("term", GROUNDED, ids=lambda term: type(term).__name__)
def test_a_case_without_a_mask_is_refused(make_case, make_rollout, write_answer, term):
    case = make_case(np.ones(SHAPE, bool))
    bare = Case(case.case_id, case.volume, Query("the box"))
    with pytest.raises(DatasetError, match="no target mask"):
        term(make_rollout(write_answer(SHAPE, 1, [(0, 0, 4, 4)]), case), bare)


@pytest.mark.parametrize("term", EVERY, ids=lambda term: type(term).__name__)
def test_needs_are_declared_truthfully(make_case, make_rollout, write_answer, term):
    target = np.zeros(SHAPE, bool)
    target[2, 2:8, 3:9] = True
    case = make_case(target)
    full = make_rollout(write_answer(SHAPE, 2, [(3, 2, 9, 8)]), case, target)
    lean = Rollout(
        full.case_id,
        full.completion,
        full.evidence if "evidence" in term.needs else None,
        mask=full.mask if "mask" in term.needs else None,
    )
    assert term(lean, case) == term(full, case) == 1.0
