"""Policies without weights: what they write, read back by the grammar."""

import numpy as np
import pytest

from medvol.core.errors import ConfigError
from medvol.core.types import Evidence, Sampling
from medvol.grounding.grammar import parse_evidence
from medvol.grounding.prompts import build_prompt, build_prompts
from medvol.imaging.geometry import make_volume
from medvol.policies.centre import CentreBoxPolicy
from medvol.policies.oracle import OraclePolicy
from medvol.policies.scripted import ScriptedPolicy

SHAPE = (31, 50, 80)


@pytest.fixture
def volume():
    return make_volume(np.zeros(SHAPE, np.float32), (5, 1, 1))


def test_a_script_starts_over_for_every_prompt_and_at_its_end(volume):
    policy = ScriptedPolicy(["a", "b"])
    prompts = build_prompts(volume, ["one", "two"], policy.template)
    written = policy.generate(prompts, 3, Sampling(temperature=1.0))
    assert [[completion.text for completion in row] for row in written] == [["a", "b", "a"]] * 2


def test_a_query_of_its_own_has_an_answer_of_its_own(volume):
    policy = ScriptedPolicy(["a"], {"the spleen": "s"})
    prompts = build_prompts(volume, ["the spleen", "the Spleen"], policy.template)
    assert [row[0].text for row in policy.generate(prompts)] == ["s", "a"]
    said = policy.identity()
    assert (said["name"], said["answers"], said["by_query"]) == ("ScriptedPolicy", ["a"], {"the spleen": "s"})


def test_the_default_script_says_that_nothing_is_there(volume):
    policy = ScriptedPolicy()
    (row,) = policy.generate([build_prompt(volume, "x", policy.template)])
    assert parse_evidence(row[0].text, SHAPE).absent


def test_an_empty_script_is_refused():
    with pytest.raises(ConfigError, match="answers is empty"):
        ScriptedPolicy([])


@pytest.mark.parametrize(("step", "tolerance_px"), [(1, 0.5 / 1000 * 80), (20, 10 / 1000 * 80)])
def test_an_oracle_writes_the_truth_up_to_its_step(volume, step, tolerance_px):
    policy = OraclePolicy(coordinate_step=step)
    truth = Evidence(7, np.array([[3.0, 4.0, 30.0, 45.0], [41.0, 2.0, 79.0, 49.0]]), "because")
    (row,) = policy.generate([build_prompt(volume, "x", policy.template, truth)], 2)
    assert policy.template.coordinate_step == step
    assert len(row) == 2
    found = parse_evidence(row[1].text, SHAPE)
    assert (found.key_slice, found.rationale) == (7, "because")
    assert np.abs(found.boxes - truth.boxes).max() <= tolerance_px + 1e-9


def test_an_oracle_knows_what_is_absent_and_refuses_to_guess(volume):
    policy = OraclePolicy()
    (row,) = policy.generate([build_prompt(volume, "x", policy.template, Evidence(None, np.empty((0, 4))))])
    assert parse_evidence(row[0].text, SHAPE).absent
    with pytest.raises(ConfigError, match="without a mask"):
        policy.generate([build_prompt(volume, "x", policy.template)])


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_centre_box_is_centred_and_has_its_share(volume, share):
    policy = CentreBoxPolicy(share, num_slices=5)
    (row,) = policy.generate([build_prompt(volume, "anything", policy.template)])
    found = parse_evidence(row[0].text, SHAPE)
    assert found.key_slice == 15
    expected = [[40 - 40 * share, 25 - 25 * share, 40 + 40 * share, 25 + 25 * share]]
    np.testing.assert_allclose(found.boxes, expected, atol=0.05)


@pytest.mark.parametrize("share", [0, 1.2, -1])
def test_a_share_is_a_share(share):
    with pytest.raises(ConfigError, match=f"share is {share}; it must be above 0 and at most 1"):
        CentreBoxPolicy(share)
