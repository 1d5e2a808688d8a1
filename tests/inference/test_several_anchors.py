"""Answers with several anchors: record, picture, page and re-propagation hold them all; of one nothing changes."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medvol.core.errors import EvidenceParseError, RecordError
from medvol.core.types import Completion, Evidence
from medvol.grounding.anchors import join_anchors
from medvol.imaging.reading import read_mask
from medvol.inference.agreement import measure_agreement
from medvol.inference.answer_page import show_answer
from medvol.inference.overlay import render_key_slice
from medvol.inference.overlay_marks import BOX_COLOUR
from medvol.inference.page_stack import make_stack
from medvol.inference.records import read_record
from medvol.inference.repropagation import repropagate, same_anchor
from medvol.inference.segmentation import describe_segmentation
from medvol.inference.segmenter import Segmenter
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator

TWO = (
    '<think>bright</think><answer>[{"slice": 9, "bbox_2d_list": [[250, 200, 750, 600]]}, '
    '{"slice": 3, "bbox_2d_list": [[0, 0, 100, 200], [500, 500, 600, 700]]}]</answer>'
)
"""On a slice of 40 columns and 30 rows: x 10 to 30, y 6 to 18; x 0 to 4, y 0 to 6; x 20 to 24, y 15 to 21."""
SHORT = ExtrudePropagator(half_depth_slices=1)


def segmenter_of(text: str = TWO, most: int = 3) -> Segmenter:
    return Segmenter(ScriptedPolicy([text], max_anchors=most), SHORT)


@pytest.fixture
def answer(volume):
    return segmenter_of().segment(volume, "the blocks")


@pytest.fixture
def record(answer, tmp_path: Path) -> Path:
    return answer.save(tmp_path / "out", "answer")["record"]


def edit(path: Path, change) -> Path:
    content = json.loads(path.read_text())
    change(content["evidence"])
    path.write_text(json.dumps(content))
    return path


def test_the_mask_is_the_union(answer, volume):
    expected = np.zeros(volume.shape, bool)
    expected[8:11, 6:18, 10:30] = True
    expected[2:5, 0:6, 0:4] = True
    expected[2:5, 15:21, 20:24] = True
    np.testing.assert_array_equal(answer.mask, expected)


def test_several_anchors_are_refused_where_the_prompt_allows_one(volume):
    with pytest.raises(EvidenceParseError, match="not_one_object"):
        segmenter_of(most=1).segment(volume, "the blocks")
    with pytest.raises(EvidenceParseError, match="bad_anchor_list"):
        segmenter_of(TWO.replace("[{", '[{"slice": 5, "bbox_2d_list": [[1, 1, 9, 9]]}, {', 1), most=2).segment(
            volume, "the blocks"
        )


def test_the_record_reads_back(record, answer, volume):
    content = json.loads(record.read_text())["evidence"]
    assert [content["key_slice"], *(anchor["key_slice"] for anchor in content["further"])] == [9, 3]
    assert content["further"][0]["boxes_px"] == [[0, 0, 4, 6], [20, 15, 24, 21]]
    assert content["further"][0]["boxes_norm"] == [[0, 0, 100, 200], [500, 500, 600, 700]]
    assert content["further"][0].keys() == content.keys() - {"absent", "rationale", "further"}
    read = read_record(record)
    assert same_anchor(read.evidence, answer.evidence)
    assert (read.evidence.rationale, read.evidence.further[0].rationale) == ("bright", "")
    again = repropagate(volume, read, SHORT)
    np.testing.assert_array_equal(again.mask, answer.mask)
    assert not again.provenance["edited"]


def test_one_anchor_is_written_as_before(volume):
    one = TWO[: TWO.index(", {")] + "]</answer>"
    first, second = (segmenter_of(one, most).segment(volume, "the block") for most in (1, 3))
    records = [describe_segmentation(answer, "m.nii.gz", "o.png") for answer in (first, second)]
    assert records[0]["evidence"] == records[1]["evidence"]
    assert list(records[0]["evidence"]) == [
        "absent", "key_slice", "boxes_px", "rationale", "stored_slice", "slice_centre_mm", "boxes_norm",
        "box_corners_mm",
    ]  # fmt: skip
    pictures = [render_key_slice(answer.picture) for answer in (first, second)]
    assert pictures[0] == pictures[1]
    stacks = [make_stack(volume, "q", answer.mask, answer.evidence)[0].to_dict() for answer in (first, second)]
    assert stacks[0] == stacks[1]
    assert "further" not in stacks[0]


def test_an_edited_anchor_counts(record, volume):
    edit(record, lambda evidence: evidence["further"][0].update(key_slice=6, boxes_px=[[1, 1, 3, 3]]))
    again = repropagate(volume, read_record(record), SHORT)
    assert again.mask[5:8].sum() == 3 * 4
    assert again.provenance["edited"]
    edit(record, lambda evidence: evidence.pop("further"))
    alone = repropagate(volume, read_record(record), SHORT)
    assert [anchor.key_slice for anchor in alone.evidence.anchors] == [9]
    assert not alone.mask[:8].any()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda e: e.update(further={}), r"evidence\.further is \{\}"),
        (lambda e: e.update(further=e["further"] * 16), r"at most 15 anchors"),
        (lambda e: e["further"][0].update(key_slice=9), "each names another slice"),
        (lambda e: e["further"][0].update(key_slice=None, boxes_px=[]), "each names another slice"),
        (lambda e: e["further"][0].update(key_slice=-1), r"evidence\.further\[0\]\.key_slice is -1"),
        (lambda e: e["further"][0].update(boxes_px=[[5, 5, 5, 9]]), r"evidence\.further\[0\]\.boxes_px\[0\] is"),
        (lambda e: e["further"][0].pop("boxes_px"), r"evidence\.further\[0\]\.boxes_px is missing"),
        (lambda e: e.update(key_slice=None, boxes_px=[]), r"beside a first one"),
        (lambda e: e["further"].append(7), "the field"),
    ],
)
def test_a_record_that_cannot_be_used_says_so(record, change, problem):
    with pytest.raises(RecordError, match=problem):
        read_record(edit(record, change))


def test_an_anchor_outside_the_scan_is_refused(record, volume):
    edit(record, lambda evidence: evidence["further"][0].update(key_slice=12))
    with pytest.raises(RecordError, match="key_slice is 12; the scan has the slices 0 to 11"):
        repropagate(volume, read_record(record), SHORT)


def test_the_picture_shows_every_key_slice(answer):
    """Side by side, from feet to head: slice 3 with two small boxes, slice 9 with one of 20 x 12 pixels."""
    bare = replace(answer.picture, mask=np.zeros_like(answer.mask))
    shown = np.asarray(Image.open(io.BytesIO(render_key_slice(bare))).convert("RGB")).astype(int)
    colour = np.array([int(BOX_COLOUR[i : i + 2], 16) for i in (1, 3, 5)])
    yellow = np.abs(shown - colour).sum(axis=2) < 40
    half = shown.shape[1] // 2
    per_px = shown.shape[1] / 2 / 40
    found = [np.flatnonzero(side.any(axis=0)) for side in (yellow[:, :half], yellow[:, half:])]
    assert [own.max() / per_px for own in found] == pytest.approx([24, 30], abs=0.7)
    assert [own.min() / per_px for own in found] == pytest.approx([0, 10], abs=0.7)


def test_the_page_tells_of_every_key_slice(answer, volume):
    page = show_answer(volume, answer.mask, answer.evidence, describe_segmentation(answer, "m", "o"), "r.json")
    assert page.facts[0].label == "Key slices"
    assert page.facts[0].value == "3, 9"
    assert page.facts[0].note.startswith("3 boxes")
    assert page.verdict.startswith("Found on key slices 3, 9; the mask has")
    assert "key slices 3, 9" in page.caption
    assert page.picture_text.count("Axial slice") == 2
    assert page.stack is not None
    assert (page.stack.key, page.stack.further[0][0]) == (9, 3)
    assert page.stack.to_dict()["further"] == [{"key": 3, "boxes": [[0.0, 0.0, 4.0, 6.0], [20.0, 15.0, 24.0, 21.0]]}]


def test_order_does_not_matter_for_what_is_the_same(answer):
    first, second = answer.evidence.anchors
    assert same_anchor(join_anchors([second, first]), answer.evidence)
    assert not same_anchor(first, answer.evidence)
    moved = replace(second, boxes=second.boxes + 0.1)
    assert not same_anchor(join_anchors([first, moved]), answer.evidence)


def test_agreement_pairs_anchors(volume):
    swapped = (
        "<answer>["
        + TWO[TWO.index("}, {") + 3 : -len("]</answer>")]
        + ", "
        + TWO[TWO.index("[{") + 1 : TWO.index("}, {") + 1]
        + "]</answer>"
    )
    one = TWO[: TWO.index(", {")] + "]</answer>"
    whole = measure_agreement([Completion(TWO), Completion(swapped)], volume, 3)
    assert (whole.key_slice, whole.boxes, whole.anchors, whole.parsed) == (1, 1, 1, 2)
    half = measure_agreement([Completion(TWO), Completion(one)], volume, 3)
    assert (half.key_slice, half.boxes, half.anchors) == (0.5, 0.5, 0.5)
    assert measure_agreement([Completion(TWO), Completion(TWO)], volume).parsed == 0


def test_the_mask_on_the_disk_is_the_union(record, volume, answer):
    np.testing.assert_array_equal(read_mask(record.with_name("answer.nii.gz"), volume), answer.mask)


def test_samples_of_several_anchors_are_read(volume):
    sampling = Segmenter(ScriptedPolicy([TWO], max_anchors=3), SHORT, samples=2)
    found = sampling.segment(volume, "the blocks").confidence
    assert found is not None
    assert found.agreement is not None
    assert (found.agreement.parsed, found.agreement.anchors) == (2, 1)


def test_anchors_of_an_answer():
    absent = Evidence(None, np.empty((0, 4)))
    assert absent.anchors == (absent,)
    assert join_anchors([]).absent
