"""Sides from the affine."""

import numpy as np
import pytest

from medvol.core.errors import GeometryError
from medvol.queries.sides import check_sides

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
