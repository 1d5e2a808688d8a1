"""SecondLookPolicy: what is asked twice, what is told of it, and what happens when a look fails."""

import json

import numpy as np
import pytest

from medvol.core.errors import ConfigError, EvidenceParseError, PolicyError
from medvol.core.roles import Policy
from medvol.core.specs import describe_component, rebuild
from medvol.core.types import Completion, Sampling
from medvol.grounding.regions import RegionSettings
from medvol.inference.records import read_record
from medvol.inference.repropagation import repropagate
from medvol.inference.segmenter import Segmenter
from medvol.policies.centre import CentreBoxPolicy
from medvol.policies.oracle import OraclePolicy
from medvol.policies.second_look import SecondLookPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.rollouts.groups import ask
from medvol.testing import check_policy, make_case

FIRST = '<answer>[{"slice": 4, "bbox_2d_list": [[500, 250, 750, 500]]}]</answer>'
SECOND = '<think>a closer box</think><answer>[{"slice": 5, "bbox_2d_list": [[250, 250, 750, 750]]}]</answer>'
REGION = RegionSettings(margin_mm=5.0, range_mm=3.0)


class TwoWords(Policy):
    """Says one thing about a whole scan and another about a region, and remembers its prompts."""

    def __init__(self, first=FIRST, second=SECOND, spread=False):
        self.first, self.second, self.spread = first, second, spread
        self.prompts = []

    def generate(self, prompts, n=1, sampling=None):
        self.prompts += prompts
        whole = make_case().volume.shape
        rows = []
        for prompt in prompts:
            if prompt.slices.volume_shape == whole:
                rows.append([Completion(self._first(i)) for i in range(n)])
            else:
                said = Completion(self.second, np.arange(3), np.full(3, -0.5, np.float32))
                rows.append([said] * n)
        return rows

    def _first(self, i):
        return self.first.replace("500, 250", f"{500 + 10 * i}, 250") if self.spread else self.first


def answer(inner, **settings):
    policy = SecondLookPolicy(inner, REGION, **settings)
    (group,) = ask(policy, [make_case()])
    return group.answer


def test_answer_of_the_second_look_in_the_whole_scan():
    """The first box is x 28..42, y 12..24 of 56 x 48; with 5 mm around it and the slice's proportions 25.67 x 22."""
    inner = TwoWords()
    rollout = answer(inner)
    first, second = rollout.completion.looks
    assert first.region.z == (0, 9)
    assert first.answer == FIRST
    assert second.answer == SECOND
    assert (second.region.z, second.region.y, second.region.x) == ((3, 6), (7, 29), (22, 48))
    assert inner.prompts[1].slices.indices == (3, 4, 5)
    # a quarter and three quarters of 26 x 22 pixels from (22, 7); the grammar rounds to half a thousandth
    assert rollout.evidence.key_slice == 5
    assert np.allclose(rollout.evidence.boxes, [[28.5, 12.5, 41.5, 23.5]], atol=0.03)
    assert rollout.evidence.rationale == "a closer box"
    assert rollout.completion.log_probs.tolist() == [-0.5] * 3


def test_second_prompt_shows_the_region_and_nothing_else():
    inner = TwoWords()
    answer(inner)
    case, region = make_case(), (slice(7, 29), slice(22, 48))
    pixels = inner.prompts[1].slices.pixels
    first, last = case.volume.voxels[3][region], case.volume.voxels[5][region]
    assert len(pixels) == 3
    for drawn, true in ((pixels[0, 2], first), (pixels[2, 2], last)):
        assert drawn.mean() == pytest.approx(np.clip((true + 900) / 1400, 0, 1).mean(), abs=0.01)


@pytest.mark.parametrize("said", ["<answer>[]</answer>", "no answer at all"])
def test_a_first_look_without_a_place_is_not_followed(said):
    inner = TwoWords(first=said)
    rollout = answer(inner)
    assert len(inner.prompts) == 1
    assert rollout.completion.text == said
    assert len(rollout.completion.looks) == 1
    assert (rollout.failure is None) == (said != "no answer at all")


def test_a_second_look_may_say_that_nothing_is_there():
    rollout = answer(TwoWords(second="<answer>[]</answer>"))
    assert rollout.evidence.absent


def test_a_second_look_that_cannot_be_read_is_a_failure():
    rollout = answer(TwoWords(second="<answer>[1]</answer>"))
    assert rollout.failure == "not_one_object"
    assert rollout.completion.looks[1].failure == "not_one_object"


def test_the_first_answer_counts_only_where_a_setting_says_so(tmp_path):
    inner = TwoWords(second="<answer>[1]</answer>")
    rollout = answer(inner, on_failure="first")
    assert rollout.completion.text == FIRST
    assert rollout.completion.looks[1].failure == "not_one_object"
    case = make_case()
    segmenter = Segmenter(SecondLookPolicy(inner, REGION, on_failure="first"), ExtrudePropagator())
    said = segmenter.segment(case.volume, "the mass")
    assert [warning.code for warning in said.confidence.warnings] == ["second_look_failed"]
    with pytest.raises(EvidenceParseError, match="not_one_object"):
        Segmenter(SecondLookPolicy(inner, REGION), ExtrudePropagator()).segment(case.volume, "the mass")


def test_queries_with_one_first_answer_share_the_second_drawing():
    inner = TwoWords()
    cases = [make_case(), make_case()]
    ask(SecondLookPolicy(inner, REGION), cases)
    first, second = inner.prompts[:2], inner.prompts[2:]
    assert first[0].slices is first[1].slices
    assert len(second) == 2
    assert second[0].slices is second[1].slices


def test_every_completion_has_two_looks_of_its_own():
    inner = TwoWords(spread=True)
    (group,) = ask(SecondLookPolicy(inner, REGION), [make_case()], Sampling(1.0), n=3)
    regions = [rollout.completion.looks[1].region for rollout in group.rollouts]
    assert [rollout.completion.looks[0].answer for rollout in group.rollouts] == [inner._first(i) for i in range(3)]
    assert len(set(regions)) > 1


def test_inner_policy_that_raises_is_named():
    class Broken(TwoWords):
        def generate(self, prompts, n=1, sampling=None):
            raise ValueError("out of paper")

    rollout = answer(Broken())
    assert isinstance(rollout.error, PolicyError)
    assert "Broken" in str(rollout.error)
    assert "out of paper" in str(rollout.error)


def test_a_second_look_that_gets_no_answer_costs_the_others_nothing():
    """Two queries share a second drawing: they are asked together, and where that fails each alone; no look again."""

    class Broken(TwoWords):
        def generate(self, prompts, n=1, sampling=None):
            rows = super().generate(prompts, n, sampling)
            if any(prompt.query == "the lost one" and prompt.slices.volume_shape != whole for prompt in prompts):
                raise ValueError("out of paper")
            return rows

    inner, case = Broken(), make_case()
    whole = case.volume.shape
    policy = SecondLookPolicy(inner, REGION)
    found, lost = ask(policy, [case, case], queries=["the mass", "the lost one"])
    assert [look.answer for look in found.answer.completion.looks] == [FIRST, SECOND]
    assert "out of paper" in str(lost.answer.error)
    firsts = [prompt.query for prompt in inner.prompts if prompt.slices.volume_shape == whole]
    assert firsts == ["the mass", "the lost one"]
    seconds = [prompt.query for prompt in inner.prompts if prompt.slices.volume_shape != whole]
    assert seconds == [*firsts, *firsts], "together, then each alone"
    again, _ = ask(policy, [case, case], queries=["the mass", "the mass"])
    assert len(inner.prompts) == 6 + 4, "what was kept is used up"
    assert again.answer.evidence is not None


def test_record_and_page_tell_both_looks(tmp_path):
    case = make_case()
    segmenter = Segmenter(SecondLookPolicy(TwoWords(), REGION), ExtrudePropagator())
    segmentation = segmenter.segment(case.volume, "the mass")
    assert segmentation.picture.region == segmentation.completion.looks[1].region
    written = segmentation.save(tmp_path, html=True)
    content = json.loads(written["record"].read_text())
    assert content["looks"][0] == {
        "region": {"z": [0, 9], "y": [0, 48], "x": [0, 56]},
        "answer": FIRST,
        "failure": None,
    }
    assert content["looks"][1]["region"] == {"z": [3, 6], "y": [7, 29], "x": [22, 48]}
    assert content["looks"][1]["answer"] == SECOND
    assert "Second look" in written["page"].read_text()
    record = read_record(written["record"])
    again = repropagate(case.volume, record, ExtrudePropagator())
    assert again.completion.looks == segmentation.completion.looks
    assert np.array_equal(again.mask, segmentation.mask)
    assert not again.provenance["edited"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"looks": 3}, "looks is 3; it must be a list of 1 to 8 looks"),
        ({"looks": [{"answer": "a", "failure": None}]}, r"looks\[0\].region.z is missing"),
        (
            {"looks": [{"region": {"z": [4, 4], "y": [0, 1], "x": [0, 1]}, "answer": "a", "failure": None}]},
            r"looks\[0\].region.z is \[4, 4\]; it must be two indices",
        ),
        (
            {"looks": [{"region": {"z": [0, 99], "y": [0, 1], "x": [0, 1]}, "answer": "a", "failure": None}]},
            r"looks\[0\].region.z is \[0, 99\]; the scan has 9 voxels there",
        ),
    ],
)
def test_looks_of_an_edited_record_are_judged(tmp_path, change, message):
    case = make_case()
    segmenter = Segmenter(SecondLookPolicy(TwoWords(), REGION), ExtrudePropagator())
    path = segmenter.segment(case.volume, "the mass").save(tmp_path)["record"]
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(Exception, match=message):
        repropagate(case.volume, read_record(path), ExtrudePropagator())


def test_other_policies_write_no_looks(tmp_path):
    segmentation = Segmenter(CentreBoxPolicy(), ExtrudePropagator()).segment(make_case().volume, "the mass")
    assert "looks" not in json.loads(segmentation.save(tmp_path)["record"].read_text())


def test_oracles_are_refused():
    with pytest.raises(ConfigError, match="OraclePolicy answers with the true anchor"):
        SecondLookPolicy(OraclePolicy())
    with pytest.raises(ConfigError, match="SecondLookPolicy looks at the scan itself"):
        SecondLookPolicy(SecondLookPolicy(CentreBoxPolicy()))
    with pytest.raises(ConfigError, match="on_failure is one of fail, first; got 'never'"):
        SecondLookPolicy(CentreBoxPolicy(), on_failure="never")


def test_settings_and_identity_hold_the_policy():
    policy = SecondLookPolicy(CentreBoxPolicy(share=0.3), RegionSettings(12.0, 8.0), "first")
    copy = rebuild(describe_component(policy))
    assert isinstance(copy.policy, CentreBoxPolicy)
    assert (copy.region, copy.on_failure) == (RegionSettings(12.0, 8.0), "first")
    identity = policy.identity()
    assert identity["policy"]["name"] == "CentreBoxPolicy"
    assert identity["region"] == {"margin_mm": 12.0, "range_mm": 8.0}


def test_contract():
    check_policy(SecondLookPolicy(TwoWords(), REGION))


@pytest.mark.slow
def test_contract_with_a_network():
    check_policy(SecondLookPolicy(TinyPolicy(model="bundled:best")))
