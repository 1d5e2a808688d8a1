"""Engines that break their contract are caught, in the words of what is wrong."""

from dataclasses import replace

import numpy as np
import pytest

from medvol.core.roles import Policy, RolloutEngine
from medvol.core.types import Completion
from medvol.engines.in_process import InProcessEngine
from medvol.testing import engine_checks as checks


class Spoiling(RolloutEngine):
    """Lets the policy answer, and spoils its answers by a function."""

    def __init__(self, spoil) -> None:
        self.spoil = spoil

    def start(self, policy):
        spoil = self.spoil

        class Speaker(Policy):
            template = policy.template

            def generate(self, prompts, n=1, sampling=None):
                return spoil(policy.generate(prompts, n, sampling))

        return Speaker()


class Silent(RolloutEngine):
    """Does not say who is asked."""

    def start(self, policy):
        return None


def each(change):
    return lambda rows: [[change(one) for one in row] for row in rows]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (each(lambda one: replace(one, log_probs=None)), "each with a log-probability a token; got .*; keep those of"),
        (lambda rows: rows[:1], "got an engine that returned a list of 1; generate returns"),
        (lambda rows: [row[:2] for row in rows], "got an engine that returned a list of 2 for a prompt"),
        (lambda rows: None, "got an engine that returned None; generate returns"),
        (each(lambda one: one.text), "where a Completion belongs"),
        (each(lambda one: replace(one, log_probs=one.log_probs[:-1])), "log_probs are a NumPy array of"),
        (each(lambda one: replace(one, log_probs=one.log_probs - 1)), r"within 0\.01 of the policy's; got 1 after 0"),
        (
            each(lambda one: Completion("", np.repeat(one.token_ids[:1], 9), np.zeros(9, np.float32))),
            "at most 4 tokens; got 9; stop there",
        ),
    ],
)
def test_answers_that_are_none_are_caught(spoil, words, assert_caught):
    assert_caught(checks.check_completions, Spoiling(spoil))
    with pytest.raises(AssertionError, match=words):
        checks.check_completions(Spoiling(spoil))


def test_an_engine_without_an_answer_is_caught(assert_caught):
    assert_caught(checks.check_stop, Silent())


@pytest.mark.parametrize("check", checks.ENGINE_CHECKS)
def test_a_sound_engine_passes(check):
    check(InProcessEngine())
    check(Spoiling(list))
