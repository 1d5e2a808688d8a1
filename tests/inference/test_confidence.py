"""What an answer says about itself: probabilities, samples, new words, unlike scans; and what strictness refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvol.core.errors import UntrustedAnswerError
from medvol.core.training_data import Cases, Stage, TrainingData
from medvol.core.types import Completion
from medvol.inference.confidence import read_warnings
from medvol.inference.records import read_record
from medvol.inference.repropagation import repropagate
from medvol.inference.segmenter import Segmenter
from medvol.policies.scripted import ScriptedPolicy
from medvol.propagators.extrude import ExtrudePropagator

BOX = '<think>bright</think><answer>[{"slice": 3, "bbox_2d_list": [[250, 200, 750, 600]]}]</answer>'


class Sure(ScriptedPolicy):
    """Gives log-probabilities of two tokens, and notes what it was asked."""

    def __init__(self, given=(-0.1, -0.3), answers=(BOX,)) -> None:
        super().__init__(answers)
        self.given = given
        self.calls: list = []

    def identity(self):
        return {"name": "Sure"}  # what it was given may be no number, which no identity holds

    def generate(self, prompts, n=1, sampling=None):
        self.calls.append((prompts, n, sampling))
        ids, log_probs = np.arange(len(self.given)), np.array(self.given, np.float32)
        rows = super().generate(prompts, n, sampling)
        return [[replace(one, token_ids=ids, log_probs=log_probs) for one in row] for row in rows]


@pytest.fixture
def known(volume) -> TrainingData:
    """Trained on the block's own scan."""
    data = TrainingData(stages=(Stage("SFTModule", 1, train=Cases("Blocks")),))
    data.meet_query("show me the block")
    data.meet_scan(volume)
    return data


def make(known=None, samples=0, strict=False, **options) -> Segmenter:
    policy = Sure(**options)
    policy.training_data = known
    return Segmenter(policy, ExtrudePropagator(half_depth_slices=1), samples, strict)


def confidence(segmenter: Segmenter, volume, query="the block"):
    return segmenter.segment(volume, query).confidence


def test_a_familiar_question_has_no_warning(volume, known):
    found = confidence(make(known), volume)
    assert found.mean_log_prob == pytest.approx(-0.2)
    assert (found.warnings, found.unknown, found.agreement) == ((), (), None)
    assert found.sentences() == ["confidence: mean token log-probability -0.200"]


@pytest.mark.parametrize("given", [(), (-0.1, np.nan), (-np.inf,)])
def test_probabilities_that_are_none_are_unknown(volume, known, given):
    found = confidence(make(known, given=given), volume)
    assert found.mean_log_prob is None
    assert "Sure gives no token probabilities" in found.unknown[0]


def test_a_policy_that_tells_nothing_stays_usable_and_says_so(segmenter, volume, tmp_path: Path):
    result = segmenter.segment(volume, "the block")
    assert int(result.mask.sum()) == 720
    assert len(result.confidence.unknown) == 2
    assert "trained on" in result.confidence.sentences()[1]
    block = json.loads(result.save(tmp_path)["record"].read_text())["confidence"]
    assert block["mean_log_prob"] is None
    assert block["training_known"] is False
    assert block["warnings"] == []


def test_new_words_are_named_once_and_in_order(volume, known):
    (warning,) = confidence(make(known), volume, "Das Auto, the BLOCK, das Auto meines Onkels").warnings
    assert warning.code == "new_words"
    assert warning.detail == "no training query had these words of the query: das, auto, meines, onkels"


def test_many_new_words_make_a_short_sentence(volume, known):
    (warning,) = confidence(make(known), volume, " ".join(f"w{i}" for i in range(100))).warnings
    assert warning.detail.endswith("w7 and 92 more")


def test_a_query_without_words(volume, known):
    assert [w.code for w in confidence(make(known), volume, "?!").warnings] == ["no_words"]


def test_words_that_were_too_many_are_unknown(volume, known):
    found = confidence(make(replace(known, words=None)), volume, "das Auto")
    assert found.warnings == ()
    assert "words" in found.unknown[0]


def test_another_modality(volume):
    known = TrainingData({"the", "block"})
    known.meet_scan(replace(volume, modality="CT"))
    (warning,) = confidence(make(known), replace(volume, modality="MR")).warnings
    assert warning.code == "other_modality"
    assert warning.detail == "the scan's modality is MR, and the policy was trained on CT only"
    assert "--modality" in confidence(make(known), replace(volume, modality="other")).warnings[0].detail
    assert confidence(make(known), replace(volume, modality="CT")).warnings == ()


def test_both_values_are_in_the_sentence(volume, known):
    """The block's scan is 12 slices of 4 mm, 48 mm high; twice that is beyond 1.3 times it."""
    high = replace(volume, voxels=np.concatenate([volume.voxels, volume.voxels]))
    (warning,) = confidence(make(known), high).warnings
    assert warning.code == "other_field_of_view"
    assert "height of the field of view is 96 mm, its training scans had 48 mm" in warning.detail


def test_drawn_scans_are_called_so(volume, known):
    drawn = replace(known, stages=(Stage("SFTModule", 1, train=Cases("PhantomDataset", drawn=True)),))
    high = replace(volume, voxels=np.concatenate([volume.voxels, volume.voxels]))
    first, second = confidence(make(drawn), high).warnings
    assert (first.code, second.code) == ("drawn_scans_only", "other_field_of_view")
    assert "the synthetic scans of its training had 48 mm" in second.detail
    assert [warning.code for warning in confidence(make(drawn), volume).warnings] == ["drawn_scans_only"]
    with pytest.raises(UntrustedAnswerError, match="synthetic scans only"):
        make(drawn, strict=True).segment(volume, "the block")


def test_samples_are_drawn_in_one_call_from_the_same_slices(volume, known):
    segmenter = make(known, samples=5)
    results = segmenter.segment_many(volume, ["the block", "show the block"])
    (greedy, one, _), (drawn, five, sampling) = segmenter.policy.calls
    assert (one, five, sampling.temperature, sampling.seed) == (1, 5, 1.0, 0)
    assert len({id(prompt.slices) for prompt in [*greedy, *drawn]}) == 1
    assert [result.confidence.agreement.anchors for result in results] == [1, 1]
    assert "5 sampled answers agree 1.00" in results[0].confidence.sentences()[-1]


def test_samples_that_disagree_are_warned_of(volume, known):
    """Two answers a slice of 4 mm apart with boxes that do not meet: no pair of different ones agrees."""
    other = '<answer>[{"slice": 4, "bbox_2d_list": [[0, 0, 100, 100]]}]</answer>'
    found = confidence(make(known, samples=4, answers=(BOX, other)), volume)
    assert found.agreement.anchors == pytest.approx(2 / 6)
    assert found.agreement.key_slice == pytest.approx((2 + 4 * (1 - 4 / 50)) / 6)
    assert [warning.code for warning in found.warnings] == ["samples_disagree"]
    assert "0.33" in found.warnings[0].detail


@pytest.mark.parametrize("samples", [1, -1, 2.0, True, "3"])
def test_samples_that_compare_nothing_are_refused(samples):
    with pytest.raises(ValueError, match="samples is"):
        Segmenter(ScriptedPolicy(), ExtrudePropagator(), samples)


def test_strict_refuses_with_every_reason_before_anything_is_propagated(volume, known, monkeypatch):
    segmenter = make(known, strict=True)
    assert segmenter.segment(volume, "the block").mask.any()
    monkeypatch.setattr(ExtrudePropagator, "propagate", lambda *rest: pytest.fail("propagated"))
    with pytest.raises(UntrustedAnswerError) as caught:
        segmenter.segment(replace(volume, modality="MR"), "das Auto")
    assert "das, auto" in str(caught.value)
    assert "MR" in str(caught.value)


def test_strict_refuses_what_is_not_known(volume):
    with pytest.raises(UntrustedAnswerError, match="not known what the policy was trained on"):
        make(strict=True).segment(volume, "the block")


def test_the_record_keeps_it_and_an_earlier_answer_counts_only_if_it_says_as_much(volume, known, tmp_path: Path):
    plain = read_record(make(known).segment(volume, "das Auto").save(tmp_path, "plain")["record"])
    assert read_warnings(plain.confidence) == ("no training query had these words of the query: das, auto",)
    assert make(known).accepts(plain)
    assert not make(known, samples=3).accepts(plain)
    assert not make(known, strict=True).accepts(plain)
    sampled = read_record(make(known, samples=3).segment(volume, "the block").save(tmp_path, "sampled")["record"])
    assert make(known, samples=3, strict=True).accepts(sampled)
    assert not make(known, samples=4).accepts(sampled)
    again = repropagate(volume, plain, ExtrudePropagator())
    assert again.confidence is None
    assert read_record(again.save(tmp_path, "again")["record"]).confidence == {}


def test_the_picture_shows_warnings(volume, known):
    from medvol.inference.overlay import render_overlay

    result = make(known).segment(volume, "das Auto")
    quiet = replace(result, confidence=replace(result.confidence, warnings=()))
    loud = render_overlay(result.picture)
    assert loud == render_overlay(result.picture)
    height = [int.from_bytes(picture[20:24]) for picture in (loud, render_overlay(quiet.picture))]
    assert height[0] > height[1], "the banner has a place of its own"


def test_a_completion_keeps_its_samples():
    assert Completion("x").samples == ()
