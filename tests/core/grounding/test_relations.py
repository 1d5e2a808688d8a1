"""Sides from the affine, and relations that must be unique."""

import numpy as np
import pytest

from medvol.core.errors import GeometryError
from medvol.core.grounding.relations import check_sides, kidney_relations

LPS = np.diag([-2.0, -2.0, 5.0, 1.0])


def block(x, shape=(6, 20, 40)):
    mask = np.zeros(shape, bool)
    mask[2:4, 8:12, x : x + 4] = True
    return mask


def test_left_grows_with_x_in_lps_and_not_in_a_mirrored_affine():
    check_sides(block(30), block(4), LPS)
    check_sides(block(4), block(30), np.diag([2.0, -2.0, 5.0, 1.0]))
    with pytest.raises(GeometryError, match=r"left has its centre at x = -11\.0 mm"):
        check_sides(block(4), block(30), LPS)


def test_sides_follow_an_oblique_affine():
    turn = np.deg2rad(25)
    affine = LPS.copy()
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]] @ affine[:2, :2]
    check_sides(block(30), block(4), affine)


def test_the_side_of_nothing_cannot_be_told():
    with pytest.raises(GeometryError, match="empty mask"):
        check_sides(np.zeros((6, 20, 40), bool), block(4), LPS)


def test_the_kidney_that_touches_the_lesion_bears_it():
    left, right = block(30), block(4)
    relations = kidney_relations(left, right, block(26))
    assert relations["kidney with lesion"] is left
    assert relations["kidney without lesion"] is right
    relations = kidney_relations(left, right, block(9))
    assert relations["kidney with lesion"] is right
    assert relations["kidney without lesion"] is left


@pytest.mark.parametrize("lesion", ["none", "both", "elsewhere"])
def test_no_relation_without_a_unique_answer(lesion):
    places = {"none": np.zeros((6, 20, 40), bool), "both": block(9) | block(26), "elsewhere": block(18)}
    assert kidney_relations(block(30), block(4), places[lesion]) == {}


def test_no_relation_with_one_kidney():
    nothing = np.zeros((6, 20, 40), bool)
    assert kidney_relations(block(30), nothing, block(26)) == {}
    assert kidney_relations(nothing, block(4), block(9)) == {}
