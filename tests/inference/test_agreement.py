"""Agreement of sampled answers, in closed form."""

import itertools

import numpy as np
import pytest

from medvol.core.types import Completion
from medvol.imaging.geometry import make_volume
from medvol.inference.agreement import measure_agreement

VOLUME = make_volume(np.zeros((30, 100, 100), np.float32), (10.0, 1.0, 1.0))
ABSENT = "<answer>[]</answer>"


def answer(key_slice: int, x1: int = 0, x2: int = 500) -> Completion:
    """A box from x1 to x2 thousandths of the width, over the upper half."""
    box = f"[{x1}, 0, {x2}, 500]"
    return Completion(f'<answer>[{{"slice": {key_slice}, "bbox_2d_list": [{box}]}}]</answer>')


def measure(*completions: Completion) -> tuple[float, float, float]:
    found = measure_agreement(completions, VOLUME)
    assert found.samples == len(completions)
    return found.key_slice, found.boxes, found.anchors


def test_equal_answers_agree_fully() -> None:
    assert measure(answer(3), answer(3), answer(3)) == (1, 1, 1)


def test_two_answers() -> None:
    """Slices 2 cm apart of 5: 0.6. Boxes [0, 50) and [25, 75): 25 of 75."""
    assert measure(answer(3), answer(5, 250, 750)) == pytest.approx((0.6, 1 / 3, 0.2))
    assert measure(answer(3), answer(8)) == pytest.approx((0, 1, 0))
    assert measure(answer(3), answer(29)) == pytest.approx((0, 1, 0)), "never below 0"
    assert measure(answer(3), answer(3, 500, 1000)) == pytest.approx((1, 0, 0))


def test_three_answers_are_three_pairs() -> None:
    """Two the same, one a slice of 1 cm away: pairs of 1, 0.8 and 0.8."""
    assert measure(answer(3), answer(3), answer(4)) == pytest.approx((2.6 / 3, 1, 2.6 / 3))


def test_absent_and_unparsable_answers() -> None:
    absent, garbled = Completion(ABSENT), Completion("I cannot tell")
    assert measure(absent, absent) == (1, 1, 1)
    assert measure(absent, answer(3)) == (0, 0, 0)
    assert measure(garbled, garbled) == (0, 0, 0)
    assert measure(answer(3), answer(3), garbled) == pytest.approx((1 / 3,) * 3)
    assert measure_agreement([answer(3), garbled], VOLUME).parsed == 1


def test_order_does_not_count() -> None:
    answers = [answer(3), answer(4, 100, 500), answer(6), Completion(ABSENT)]
    first = measure(*answers)
    for order in itertools.permutations(answers):
        assert measure(*order) == pytest.approx(first)
