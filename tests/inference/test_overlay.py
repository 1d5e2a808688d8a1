"""The picture of the key slice, looked at pixel by pixel."""

import io
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from medvol.core.types import Completion, Evidence
from medvol.imaging.geometry import make_volume
from medvol.inference.overlay import Picture, render_key_slice, render_overlay
from medvol.inference.overlay_marks import BOX_COLOUR, MASK_COLOUR, TRUTH_COLOUR
from medvol.inference.segmentation import Segmentation

SHAPE = (9, 60, 80)


def colour(name: str) -> np.ndarray:
    return np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)])


def make_answer(boxes=((20.0, 15.0, 40.0, 45.0),), key=4, spacing=(4.0, 1.0, 1.0), query="the block") -> Segmentation:
    voxels = np.full(SHAPE, -1000, np.float32)
    voxels[:, 5:55, 5:75] = 0
    mask = np.zeros(SHAPE, bool)
    if key is not None:
        mask[2:7, 18:42, 24:36] = True
        voxels[mask] = 150
    evidence = Evidence(key, np.array(boxes, np.float64).reshape(-1, 4) if key is not None else np.empty((0, 4)))
    return Segmentation(make_volume(voxels, spacing), query, mask, evidence, Completion(""))


def pixels(answer: Segmentation, context: bool = False) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(render_overlay(answer.picture, context))).convert("RGB")).astype(int)


def find(picture: np.ndarray, name: str) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a colour, in slice pixels (60 rows on 660 picture rows at the bottom)."""
    rows, columns = np.nonzero(np.abs(picture - colour(name)).sum(axis=2) < 40)
    top = picture.shape[0] - 660
    return columns.min() / 11, (rows.min() - top) / 11, (columns.max() + 1) / 11, (rows.max() + 1 - top) / 11


def test_box_and_contour_lie_where_the_answer_says():
    picture = pixels(make_answer())
    np.testing.assert_allclose(find(picture, BOX_COLOUR), (20, 15, 40, 45), atol=0.3)
    np.testing.assert_allclose(find(picture, MASK_COLOUR), (24, 18, 36, 42), atol=0.3)


def test_slice_is_shown_upright_and_unflipped():
    answer = make_answer(key=None)
    answer.volume.voxels[4, 6:20, 60:74] = 240  # front, towards the patient's left
    picture = pixels(answer)
    top = picture.shape[0] - 660
    assert picture[top + 13 * 11, 67 * 11].tolist() == [255, 255, 255]
    assert picture[top + 47 * 11, 12 * 11].mean() < 120


def test_pixels_that_are_not_square_keep_their_shape():
    wide, square = pixels(make_answer(spacing=(4.0, 1.0, 2.0))), pixels(make_answer())
    assert wide.shape[1] == pytest.approx(660 * 2, abs=2)  # 160 mm by 60 mm, cut off at two to one
    assert square.shape[1] == pytest.approx(660 * 80 / 60, abs=2)


def test_same_answer_gives_the_same_bytes_whatever_pyplot_does():
    first = render_overlay(make_answer().picture)
    with mpl.rc_context({"image.origin": "lower", "lines.linewidth": 9.0}):
        assert render_overlay(make_answer().picture) == first
    assert plt.get_fignums() == []
    assert b"Software" not in first


@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize(
    "query",
    ["$\\frac{broken", "脾臓", "a " * 400, "x" * 500, "line\nbreak\ttab", "100% of $5 and $6", "\U0001f9e0 brain"],
)
def test_any_query_can_be_a_title(query, context):
    picture = pixels(make_answer(query=query), context)
    assert picture[:60].max() > 150


def test_absent_answer_shows_the_middle_slice():
    picture = pixels(make_answer(key=None), context=True)
    assert not (np.abs(picture - colour(MASK_COLOUR)).sum(axis=2) < 40).any()


def test_context_shows_three_slices_of_the_mask():
    plain, full = pixels(make_answer()), pixels(make_answer(), context=True)
    assert full.shape[1] > plain.shape[1]
    right = full[:, plain.shape[1] + 10 :]
    for part in np.array_split(right[-660:], 3):
        assert (np.abs(part - colour(MASK_COLOUR)).sum(axis=2) < 60).any()


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 200, 9), (3, 9, 200), (2, 1, 1)])
def test_any_shape_and_a_full_mask(shape):
    volume = make_volume(np.zeros(shape, np.float32), (5.0, 0.7, 0.7), "other")
    evidence = Evidence(0, np.array([[0.0, 0.0, shape[2], shape[1]]]))
    answer = Segmentation(volume, "all", np.ones(shape, bool), evidence, Completion(""))
    assert pixels(answer, context=True).size
    assert pixels(replace(answer, mask=~answer.mask)).size


def test_a_true_mask_is_outlined_on_the_slice_that_is_asked_for():
    answer = make_answer()
    truth = np.zeros_like(answer.mask)
    truth[2, 30:40, 50:60] = True
    absent = Evidence(None, np.empty((0, 4)))
    picture = Picture(answer.volume, "the block", ~truth & truth, absent, truth=truth, shown_slice=2)
    shown = np.asarray(Image.open(io.BytesIO(render_key_slice(picture))).convert("RGB")).astype(int)
    np.testing.assert_allclose(find(shown, TRUTH_COLOUR), (50, 30, 60, 40), atol=0.3)
    other = io.BytesIO(render_key_slice(replace(picture, shown_slice=5)))
    elsewhere = np.asarray(Image.open(other).convert("RGB")).astype(int)
    assert not (np.abs(elsewhere - colour(TRUTH_COLOUR)).sum(axis=2) < 40).any()
