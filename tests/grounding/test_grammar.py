"""The answer grammar: named hard cases, round trips, and any text at all."""

import gc
import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.errors import EvidenceParseError
from medvol.core.types import Evidence
from medvol.grounding.anchors import anchor_key, join_anchors
from medvol.grounding.grammar import FAILURES, MAX_BOXES, MAX_CHARACTERS, format_evidence, parse_evidence

SHAPE = (20, 100, 200)
BOX = "[100, 200, 300, 400]"
BOX_PX = [20.0, 20.0, 60.0, 40.0]
ONE = f'[{{"slice": 7, "bbox_2d_list": [{BOX}]}}]'
GOOD = f"<think>It is there.</think><answer>{ONE}</answer>"


def answer(text):
    return f"<answer>{text}</answer>"


def boxes(text):
    return answer(f'[{{"slice": 7, "bbox_2d_list": {text}}}]')


def key(text):
    return answer(f'[{{"slice": {text}, "bbox_2d_list": [{BOX}]}}]')


def outcome(text):
    """``read``, or the name of the failure; any other exception passes through."""
    try:
        evidence = parse_evidence(text, SHAPE)
    except EvidenceParseError as error:
        str(error).encode()
        return error.failure
    in_range = evidence.absent or 0 <= evidence.key_slice < SHAPE[0]
    has_area = (evidence.boxes[:, 2:] > evidence.boxes[:, :2]).all()
    return "read" if in_range and has_area else "out of range"


ACCEPTED = {
    "plain": (GOOD, 7, [BOX_PX], "It is there."),
    "no_think": (answer(ONE), 7, [BOX_PX], ""),
    "blanks_around": (f"\n <think>a</think>\t<answer>\n{ONE} </answer>\n", 7, [BOX_PX], "a"),
    "empty_think": (f"<think></think>{answer(ONE)}", 7, [BOX_PX], ""),
    "think_over_lines": (f"<think>a\nb</think>{answer(ONE)}", 7, [BOX_PX], "a\nb"),
    "think_with_json": (f'<think>[{{"slice": 1}}]</think>{answer(ONE)}', 7, [BOX_PX], '[{"slice": 1}]'),
    "unicode_think": (f"<think>Niere ✓ 腎</think>{answer(ONE)}", 7, [BOX_PX], "Niere ✓ 腎"),
    "other_tags_in_think": (f"<think><b>x</b></think>{answer(ONE)}", 7, [BOX_PX], "<b>x</b>"),
    "key_order": (answer(f'[{{"bbox_2d_list": [{BOX}], "slice": 7}}]'), 7, [BOX_PX], ""),
    "json_over_lines": (answer(ONE.replace(" ", "\n ")), 7, [BOX_PX], ""),
    "no_blanks": (answer(ONE.replace(" ", "")), 7, [BOX_PX], ""),
    "escaped_key": (answer(ONE.replace("slice", "sl\\u0069ce")), 7, [BOX_PX], ""),
    "first_slice": (key("0"), 0, [BOX_PX], ""),
    "last_slice": (key("19"), 19, [BOX_PX], ""),
    "two_boxes": (boxes(f"[{BOX}, [0, 0, 1000, 1000]]"), 7, [BOX_PX, [0, 0, 200, 100]], ""),
    "repeated_box": (boxes(f"[{BOX}, {BOX}]"), 7, [BOX_PX, BOX_PX], ""),
    "smallest_box": (boxes("[[0, 0, 1, 1]]"), 7, [[0, 0, 0.2, 0.1]], ""),
    "last_corner": (boxes("[[999, 999, 1000, 1000]]"), 7, [[199.8, 99.9, 200, 100]], ""),
    "most_boxes": (boxes("[" + ", ".join([BOX] * MAX_BOXES) + "]"), 7, [BOX_PX] * MAX_BOXES, ""),
    "absent": (answer("[]"), None, [], ""),
    "absent_with_blanks": (answer(" [ ] "), None, [], ""),
    "absent_with_think": ("<think>none</think><answer>[]</answer>", None, [], "none"),
    "minus_zero": (key("-0"), 0, [BOX_PX], ""),
}

REFUSED = {
    "empty": ("", "no_answer"),
    "prose": ("The liver is on slice 7.", "no_answer"),
    "json_without_tags": (ONE, "no_answer"),
    "only_think": ("<think>hm</think>", "no_answer"),
    "upper_case_tag": (f"<ANSWER>{ONE}</ANSWER>", "no_answer"),
    "tag_with_blank": (f"< answer>{ONE}</answer>", "no_answer"),
    "only_closing_tag": (f"{ONE}</answer>", "no_answer"),
    "two_answers": (answer(ONE) * 2, "many_answers"),
    "unclosed_answer": (f"<answer>{ONE}", "many_answers"),
    "answer_in_answer": (answer(answer(ONE)), "many_answers"),
    "answer_in_think": (f"<think>{answer('[]')}</think>{answer(ONE)}", "many_answers"),
    "two_thinks": (f"<think>a</think><think>b</think>{answer(ONE)}", "bad_think"),
    "unclosed_think": (f"<think>a{answer(ONE)}", "bad_think"),
    "unopened_think": (f"a</think>{answer(ONE)}", "bad_think"),
    "closing_answer_first": (f"</answer>{ONE}<answer>", "stray_text"),
    "think_after_answer": (f"{answer(ONE)}<think>a</think>", "stray_text"),
    "think_inside_answer": (answer(f"<think>a</think>{ONE}"), "bad_json"),
    "closed_before_open": (f"</think>a<think>{answer(ONE)}", "stray_text"),
    "text_before": (f"Sure! {GOOD}", "stray_text"),
    "text_between": (f"<think>a</think>so {answer(ONE)}", "stray_text"),
    "text_after": (f"{GOOD} Done.", "stray_text"),
    "end_token_left": (f"{GOOD}<|im_end|>", "stray_text"),
    "code_fence_around": (f"```{GOOD}```", "stray_text"),
    "code_fence_inside": (answer(f"```json{ONE}```"), "bad_json"),
    "empty_answer": (answer(""), "bad_json"),
    "blank_answer": (answer("  "), "bad_json"),
    "cut_json": (answer(ONE[:-3]), "bad_json"),
    "surplus_bracket": (answer(ONE + "]"), "bad_json"),
    "single_quotes": (answer(ONE.replace('"', "'")), "bad_json"),
    "trailing_comma": (answer(ONE[:-1] + ",]"), "bad_json"),
    "comment": (answer(ONE + "// right"), "bad_json"),
    "unquoted_key": (answer(ONE.replace('"slice"', "slice")), "bad_json"),
    "repeated_key": (answer(ONE.replace('"slice": 7', '"slice": 7, "slice": 8')), "bad_json"),
    "nan": (key("NaN"), "bad_json"),
    "infinity": (key("-Infinity"), "bad_json"),
    "leading_zero": (key("07"), "bad_json"),
    "plus_sign": (key("+7"), "bad_json"),
    "hex": (key("0x7"), "bad_json"),
    "arabic_digits": (key("\u0667"), "bad_json"),
    "long_number": (key("1" * 10), "bad_json"),
    "very_long_number": (key("9" * 5000), "bad_json"),
    "python_none": (answer("None"), "bad_json"),
    "byte_order_mark": (answer("\ufeff" + ONE), "bad_json"),
    "nul_character": (answer("\0" + ONE), "bad_json"),
    "null": (answer("null"), "not_one_object"),
    "number": (answer("7"), "not_one_object"),
    "string": (answer('"liver"'), "not_one_object"),
    "bare_object": (answer(ONE[1:-1]), "not_one_object"),
    "empty_object": (answer("{}"), "not_one_object"),
    "two_objects": (answer(f"[{ONE[1:-1]}, {ONE[1:-1]}]"), "not_one_object"),
    "list_in_list": (answer(f"[{ONE}]"), "too_deep"),
    "list_of_number": (answer("[7]"), "not_one_object"),
    "no_keys": (answer("[{}]"), "bad_keys"),
    "slice_missing": (answer(f'[{{"bbox_2d_list": [{BOX}]}}]'), "bad_keys"),
    "boxes_missing": (answer('[{"slice": 7}]'), "bad_keys"),
    "surplus_key": (answer(ONE.replace('"slice": 7', '"slice": 7, "label": "liver"')), "bad_keys"),
    "misspelt_key": (answer(ONE.replace("bbox_2d_list", "bbox_2d")), "bad_keys"),
    "capital_key": (answer(ONE.replace("slice", "Slice")), "bad_keys"),
    "half_pair_key": (answer('[{"\\ud800": 7}]'), "bad_keys"),
    "key_over_lines": (answer('[{"a\\nb": 7}]'), "bad_keys"),
    "slice_too_large": (key("20"), "bad_slice"),
    "slice_negative": (key("-1"), "bad_slice"),
    "slice_float": (key("7.0"), "bad_slice"),
    "slice_exponent": (key("7e0"), "bad_slice"),
    "slice_huge_exponent": (key("1e999"), "bad_slice"),
    "slice_text": (key('"7"'), "bad_slice"),
    "slice_true": (key("true"), "bad_slice"),
    "slice_null": (key("null"), "bad_slice"),
    "slice_list": (key("[7]"), "bad_slice"),
    "no_boxes": (boxes("[]"), "bad_box_list"),
    "boxes_null": (boxes("null"), "bad_box_list"),
    "boxes_object": (boxes('{"x": 1}'), "bad_box_list"),
    "boxes_text": (boxes('"[[1, 2, 3, 4]]"'), "bad_box_list"),
    "too_many_boxes": (boxes("[" + ", ".join([BOX] * (MAX_BOXES + 1)) + "]"), "bad_box_list"),
    "flat_box": (boxes("[100, 200, 300, 400]"), "bad_box"),
    "three_numbers": (boxes("[[1, 2, 3]]"), "bad_box"),
    "five_numbers": (boxes("[[1, 2, 3, 4, 5]]"), "bad_box"),
    "box_above_range": (boxes("[[0, 0, 1001, 10]]"), "bad_box"),
    "box_below_range": (boxes("[[-1, 0, 10, 10]]"), "bad_box"),
    "box_float": (boxes("[[0.5, 0, 10, 10]]"), "bad_box"),
    "box_true": (boxes("[[false, false, true, true]]"), "bad_box"),
    "box_null": (boxes("[[null, 0, 10, 10]]"), "bad_box"),
    "box_text": (boxes('[["1", "2", "3", "4"]]'), "bad_box"),
    "box_without_width": (boxes("[[10, 0, 10, 10]]"), "bad_box"),
    "box_without_height": (boxes("[[0, 10, 10, 10]]"), "bad_box"),
    "box_turned": (boxes("[[300, 200, 100, 400]]"), "bad_box"),
    "second_box_bad": (boxes(f"[{BOX}, [5, 5, 5, 5]]"), "bad_box"),
    "nested_deep": (boxes("[[[1, 2, 3, 4]]]"), "too_deep"),
    "nested_very_deep": (answer("[" * 3000), "too_deep"),
    "nested_objects": (answer('{"a":' * 1000), "too_deep"),
    "too_long": (answer(" " * MAX_CHARACTERS + ONE), "too_long"),
    "too_long_think": (f"<think>{'a' * MAX_CHARACTERS}</think>{answer(ONE)}", "too_long"),
    "megabyte": ("<think>" * 150_000, "too_long"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts(name):
    text, key_slice, expected, rationale = ACCEPTED[name]
    evidence = parse_evidence(text, SHAPE)
    assert evidence.key_slice == key_slice
    assert evidence.absent == (key_slice is None)
    assert evidence.boxes.shape == (len(expected), 4)
    assert evidence.boxes.dtype == np.float64
    np.testing.assert_allclose(evidence.boxes, np.reshape(expected, (-1, 4)), atol=1e-12)
    assert evidence.rationale == rationale


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_the_name_of_the_failure(name):
    text, failure = REFUSED[name]
    with pytest.raises(EvidenceParseError) as caught:
        parse_evidence(text, SHAPE)
    assert caught.value.failure == failure
    message = str(caught.value)
    assert len(message.encode()) < 600
    assert "\n" not in message


def anchors(*slices, boxes=f"[{BOX}]"):
    return answer("[" + ", ".join(f'{{"slice": {z}, "bbox_2d_list": {boxes}}}' for z in slices) + "]")


REFUSED_OF_THREE = {
    "too many": (anchors(1, 2, 3, 4), "bad_anchor_list"),
    "no list": (answer(ONE[1:-1]), "bad_anchor_list"),
    "a number among them": (answer(f"[{ONE[1:-1]}, 7]"), "bad_anchor_list"),
    "too many boxes in all": (anchors(1, 2, 3, boxes="[" + ", ".join([BOX] * 43) + "]"), "bad_anchor_list"),
    "a slice twice": (anchors(7, 3, 7), "repeated_slice"),
    "the second without boxes": (answer(f'[{ONE[1:-1]}, {{"slice": 0}}]'), "bad_keys"),
    "the second outside the volume": (anchors(7, 20), "bad_slice"),
    "the second with a bad box": (answer(f'[{ONE[1:-1]}, {{"slice": 0, "bbox_2d_list": [[5, 5, 5, 9]]}}]'), "bad_box"),
    "the second without a box": (answer(f'[{ONE[1:-1]}, {{"slice": 0, "bbox_2d_list": []}}]'), "bad_box_list"),
}


@pytest.mark.parametrize("name", REFUSED_OF_THREE)
def test_refuses_answers_where_three_anchors_are_allowed(name):
    text, failure = REFUSED_OF_THREE[name]
    with pytest.raises(EvidenceParseError) as caught:
        parse_evidence(text, SHAPE, max_anchors=3)
    assert caught.value.failure == failure


def test_several_anchors_are_read_in_their_order():
    read = parse_evidence(anchors(7, 2, 11), SHAPE, max_anchors=3)
    assert [anchor.key_slice for anchor in read.anchors] == [7, 2, 11]
    assert all(anchor.boxes.tolist() == [BOX_PX] and not anchor.further for anchor in read.anchors)


@pytest.mark.parametrize("name", ACCEPTED)
def test_one_anchor_is_read_alike_where_several_are_allowed(name):
    text = ACCEPTED[name][0]
    one, several = parse_evidence(text, SHAPE), parse_evidence(text, SHAPE, max_anchors=4)
    assert (one.key_slice, one.rationale, one.further) == (several.key_slice, several.rationale, several.further)
    np.testing.assert_array_equal(one.boxes, several.boxes)


def test_every_declared_failure_is_reached():
    reached = {failure for _, failure in (*REFUSED.values(), *REFUSED_OF_THREE.values())}
    assert reached == set(FAILURES)


def test_says_what_was_received():
    with pytest.raises(EvidenceParseError, match=r"bad_slice: .*20, the volume has slices 0\.\.19"):
        parse_evidence(key("20"), SHAPE)


units = st.integers(0, 1000)
spans = st.tuples(units, units).filter(lambda pair: pair[0] != pair[1]).map(sorted)
unit_boxes = st.tuples(spans, spans).map(lambda s: [s[0][0], s[1][0], s[0][1], s[1][1]])
rationales = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]), max_size=60).map(str.strip)


@given(st.lists(unit_boxes, min_size=1, max_size=8), st.integers(0, 19), rationales)
def test_reads_back_what_it_writes(norm, key_slice, rationale):
    px = np.array(norm, np.float64) * [0.2, 0.1, 0.2, 0.1]
    read = parse_evidence(format_evidence(Evidence(key_slice, px, rationale), 100, 200), SHAPE)
    assert (read.key_slice, read.rationale) == (key_slice, rationale)
    np.testing.assert_allclose(read.boxes, px, atol=1e-9)


@given(
    st.dictionaries(st.integers(0, 19), st.lists(unit_boxes, min_size=1, max_size=3), min_size=1, max_size=5),
    rationales,
)
def test_reads_back_several_anchors(norm, rationale):
    px = {key: np.array(own, np.float64) * [0.2, 0.1, 0.2, 0.1] for key, own in norm.items()}
    written = join_anchors([Evidence(key, own) for key, own in px.items()], rationale)
    read = parse_evidence(format_evidence(written, 100, 200), SHAPE, max_anchors=5)
    assert read.rationale == rationale
    assert [anchor.key_slice for anchor in read.anchors] == list(px)
    for anchor, own in zip(read.anchors, px.values(), strict=True):
        np.testing.assert_allclose(anchor.boxes, own, atol=1e-9)
    assert anchor_key(read) == anchor_key(join_anchors(read.anchors[::-1]))


@given(st.sampled_from([1, 5, 10, 20]), st.lists(unit_boxes, min_size=1, max_size=4))
def test_writes_multiples_of_the_step(step, norm):
    px = np.array(norm, np.float64) * [0.2, 0.1, 0.2, 0.1]
    text = format_evidence(Evidence(3, px), 100, 200, step)
    read = parse_evidence(text, SHAPE).boxes / [0.2, 0.1, 0.2, 0.1]
    np.testing.assert_allclose(read / step, np.rint(read / step), atol=1e-9)
    boxes = np.array(norm)
    collapsible = (boxes[:, 2:] - boxes[:, :2] < step).any(axis=1, keepdims=True)
    assert (np.abs(read - boxes) <= np.where(collapsible, 1.5, 0.5) * step + 1e-9).all()


def test_absent_reads_back():
    text = format_evidence(Evidence(None, np.empty((0, 4)), "none"), 100, 200)
    assert text == "<think>none</think><answer>[]</answer>"
    assert parse_evidence(text, SHAPE).absent


@given(st.text(max_size=400))
def test_any_text_is_read_or_refused(text):
    for whole in (text, answer(text), f"<think>{text}</think>{answer(ONE)}"):
        assert outcome(whole) in {"read", *FAILURES}


@pytest.fixture
def own_time():
    """No garbage collection: the parser is not charged for what other tests left."""
    gc.disable()
    yield
    gc.enable()


def mutate(text, rng):
    pieces = ["<think>", "</think>", "<answer>", "</answer>", "[", "]", "{", "}", '"', ",", ":", "-", "9" * 12, "NaN"]
    pieces += ["slice", "1e9", "null", "\\", "\\ud800", "\0", "\ud800", "\U0001d7d9", "[" * 500, "a" * 3000, " " * 3000]
    for _ in range(rng.randint(1, 6)):
        i, j = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        change = rng.randrange(5)
        if change == 0:
            text = text[:i] + text[j:]
        elif change == 1:
            text = text[:i] + rng.choice(pieces) + text[i:]
        elif change == 2:
            text = text[:i] + text[i:j] * 2 + text[j:]
        elif change == 3:
            text = text[:i] + chr(rng.randrange(1, 0x2FFF)) + text[i + 1 :]
        else:
            text = text[:i] + text[i:j][::-1] + text[j:]
    return text


@pytest.mark.usefixtures("own_time")
def test_ten_thousand_mutated_and_random_completions_fail_by_name_and_fast():
    rng = random.Random(20)
    seeds = [text for text, *_ in ACCEPTED.values()] + [text for text, _ in REFUSED.values() if len(text) < 2000]
    read, slowest = 0, 0.0
    for number in range(10_000):
        if number % 4:
            text = mutate(rng.choice(seeds), rng)
        else:
            text = "".join(chr(rng.randrange(0x250)) for _ in range(rng.randrange(300)))
        start = time.process_time()
        result = outcome(text)
        slowest = max(slowest, time.process_time() - start)
        assert result in {"read", *FAILURES}
        read += result == "read"
    assert slowest < 0.05
    assert 0 < read < 5_000


CRAFTED = {
    "blanks_before_stray_text": " " * 8000 + "x<answer></answer>",
    "blanks_before_think": " " * 8000 + "<think></think>x<answer></answer>",
    "blanks_after_think": "<think></think>" + "\n" * 8000 + "x<answer></answer>",
    "blanks_on_both_sides": " " * 3000 + "<think></think>" + " " * 3000 + "x<answer></answer>",
    "blanks_after_answer": answer("[]") + " " * 8000 + "x",
    "blanks_in_answer": answer(" " * 8000),
    "tag_starts": "<" * 8000 + answer("[]"),
    "think_starts": "<think" * 1300 + answer("[]"),
    "depth_hidden_in_text": answer('["' + "]" * 4000 + '",' + "[" * 4000),
    "escapes": answer('"' + "\\" * 8000),
    "numbers": answer("[" + "1," * 4000),
    "keys": answer("[{" + '"a":1,' * 1300),
    "long_fraction": key("0." + "1" * 8000),
    "long_exponent": key("1e" + "9" * 8000),
    "boxes": boxes("[" + "[0,0,1,1]," * 790 + "[0,0,1,1]]"),
}


@pytest.mark.usefixtures("own_time")
@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_completions_are_refused_fast(name):
    text = CRAFTED[name]
    assert 4000 < len(text) <= MAX_CHARACTERS
    start = time.process_time()
    assert outcome(text) in FAILURES
    assert time.process_time() - start < 0.05
