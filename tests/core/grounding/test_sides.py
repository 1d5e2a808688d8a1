"""Sides from the affine, and relations that must be unique."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medvol.core.errors import GeometryError
from medvol.core.grounding.relations import RELATIONS, check_sides, kidney_relations, ranked_kidneys

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


def kidney(x, z, height=2, shape=(12, 20, 40)):
    mask = np.zeros(shape, bool)
    mask[z : z + height, 8:12, x : x + 4] = True
    return mask


def test_the_larger_and_the_higher_kidney():
    left, right = kidney(30, 4, height=4), kidney(4, 3)
    ranked = ranked_kidneys(left, right, LPS)
    assert ranked["larger kidney"] is ranked["higher kidney"] is left
    assert ranked["smaller kidney"] is ranked["lower kidney"] is right
    assert set(ranked) == set(RELATIONS) - {"kidney with lesion", "kidney without lesion"}


def test_higher_follows_the_affine():
    upside_down = LPS @ np.diag([1, 1, -1, 1])
    left, right = kidney(30, 6), kidney(4, 3)
    assert ranked_kidneys(left, right, LPS) == {"higher kidney": left, "lower kidney": right}
    assert ranked_kidneys(left, right, upside_down) == {"higher kidney": right, "lower kidney": left}


@pytest.mark.parametrize(("height", "ranked"), [(7, False), (8, True)])
def test_larger_means_clearly_larger(height, ranked):
    left, right = kidney(30, 2, height=height, shape=(20, 20, 40)), kidney(4, 2, height=7, shape=(20, 20, 40))
    right[2, 8, 4] = False
    assert ("larger kidney" in ranked_kidneys(left, right, LPS)) == ranked


@pytest.mark.parametrize(("thickness_mm", "ranked"), [(4.9, False), (5.0, True)])
def test_higher_means_clearly_higher(thickness_mm, ranked):
    affine = np.diag([-2.0, -2.0, thickness_mm, 1.0])
    assert bool(ranked_kidneys(kidney(30, 4), kidney(4, 3), affine)) == ranked


def test_a_kidney_that_is_cut_or_missing_is_not_ranked():
    assert ranked_kidneys(kidney(30, 0), kidney(4, 5), LPS) == {}
    assert ranked_kidneys(kidney(30, 2), kidney(4, 10), LPS) == {}
    assert ranked_kidneys(np.zeros((12, 20, 40), bool), kidney(4, 5), LPS) == {}


@pytest.mark.real
def test_real_kidneys_with_and_without_a_tumour(shared_data):
    unique = 0
    for path in sorted((shared_data / "kits19_masks").glob("*.nii.gz")):
        labels = np.asarray(nib.load(path).dataobj)[:, ::4, ::4]
        parts, _ = ndimage.label(labels > 0, np.ones((3, 3, 3)))
        first, second = np.argsort(-np.bincount(parts.ravel())[1:])[:2] + 1
        tumours = [int(((parts == part) & (labels == 2)).sum()) for part in (first, second)]
        kidneys = [(parts == part) & (labels == 1) for part in (first, second)]
        relations = kidney_relations(*kidneys, (labels == 2) & np.isin(parts, [first, second]))
        if min(tumours) == 0 and all(kidney.any() for kidney in kidneys):
            bearing = kidneys[int(np.argmax(tumours))]
            assert relations["kidney with lesion"] is bearing, path.name
            unique += 1
        else:
            assert relations == {}, path.name
    assert unique >= 5
