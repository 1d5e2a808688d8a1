"""Policies that break their contract are caught, each by the check that is about it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medvol.core.prompts import PromptTemplate
from medvol.core.roles import TrainablePolicy
from medvol.core.types import Completion
from medvol.policies.scripted import ScriptedPolicy
from medvol.testing import policy_checks as checks
from medvol.testing import trainable_checks


class Letters(TrainablePolicy):
    """Scores the letters of an answer by a table, after the mean of the slices."""

    def __init__(self, seed: int = 0, model: str | None = None) -> None:
        self.seed = seed
        self.model = model
        self._network: torch.nn.Module | None = None
        self._start: torch.Tensor | None = None

    def load(self):
        if self._network is None:
            generator = torch.Generator().manual_seed(self.seed)
            self._network = torch.nn.ParameterDict(
                {
                    "table": torch.nn.Parameter(torch.randn(128, generator=generator)),
                    "frozen": torch.nn.Parameter(torch.ones(()), requires_grad=False),
                }
            )
            if self.model is not None:
                self._network.load_state_dict(load_file(f"{self.model}/letters.safetensors"))
            self._start = self._network["table"].detach().clone()
        return self._network

    def generate(self, prompts, n=1, sampling=None):
        seed = sampling.seed if sampling is not None and sampling.temperature > 0 else 0
        rng = np.random.default_rng(seed)
        longest = 16 if sampling is None else sampling.max_new_tokens
        answers = [f"slice {rng.integers(99)}"[: longest - 1] for _ in range(n)]
        return [[self.encode(answer) for answer in answers] for _ in prompts]

    def encode(self, text):
        return Completion(text, np.array([*text.encode(), 0], np.int64))

    def log_probs(self, prompts, completions, temperature=1.0):
        return [[self.score(prompt, c) for c in row] for prompt, row in zip(prompts, completions, strict=True)]

    def score(self, prompt, completion):
        scores = torch.log_softmax(self.load()["table"] * self.load()["frozen"], 0)
        return scores[torch.from_numpy(completion.token_ids)]

    def reference_log_probs(self, prompts, completions, temperature=1.0):
        self.load()
        scores = torch.log_softmax(self._start, 0)
        return [[scores[torch.from_numpy(c.token_ids)] for c in row] for row in completions]

    def trainable_parameters(self):
        return [self.load()["table"]]

    def write_weights(self, folder):
        save_file(self.load().state_dict(), folder / "letters.safetensors")


class Closed(Letters):
    """Keeps with its folder what its constructor does not take."""

    def folder_settings(self):
        return {"colour": "red"}


class Single(ScriptedPolicy):
    """Answers once, however often it is asked."""

    def generate(self, prompts, n=1, sampling=None):
        return super().generate(prompts, 1, sampling)


class Bare(ScriptedPolicy):
    """Answers in plain texts."""

    def generate(self, prompts, n=1, sampling=None):
        return [[completion.text for completion in row] for row in super().generate(prompts, n, sampling)]


class Doubtful(Letters):
    """Says probabilities where logarithms belong."""

    def generate(self, prompts, n=1, sampling=None):
        rows = super().generate(prompts, n, sampling)
        return [[replace(c, log_probs=np.ones(len(c.token_ids), np.float32)) for c in row] for row in rows]


class Floating(Letters):
    """Token ids are floats."""

    def encode(self, text):
        completion = super().encode(text)
        return replace(completion, token_ids=completion.token_ids.astype(np.float64))


class Verbose(Letters):
    """Does not stop."""

    def generate(self, prompts, n=1, sampling=None):
        return super().generate(prompts, n)


class Overhearing(ScriptedPolicy):
    """Answers the first prompt for all."""

    def generate(self, prompts, n=1, sampling=None):
        return [[Completion(prompts[0].query)] * n for _ in prompts]


class Smearing(ScriptedPolicy):
    """Normalises the slices in place."""

    def generate(self, prompts, n=1, sampling=None):
        prompts[0].slices.pixels[:] = 0
        return super().generate(prompts, n, sampling)


class Silent(ScriptedPolicy):
    """Answers nothing."""

    def generate(self, prompts, n=1, sampling=None):
        return None


class Encoded(ScriptedPolicy):
    """Answers in bytes."""

    def generate(self, prompts, n=1, sampling=None):
        return [[Completion(b"a")] * n for _ in prompts]


class Popping(ScriptedPolicy):
    """Takes the prompts out of their list."""

    def generate(self, prompts, n=1, sampling=None):
        answers = super().generate(prompts, n, sampling)
        prompts.pop()
        return answers


class Counting(ScriptedPolicy):
    """Never says the same twice."""

    calls = 0

    def generate(self, prompts, n=1, sampling=None):
        self.calls += 1
        return [[Completion(str(self.calls))] * n for _ in prompts]


class Unseeded(Letters):
    """Draws on from where it was."""

    rng = np.random.default_rng(0)

    def generate(self, prompts, n=1, sampling=None):
        return [[self.encode(str(self.rng.integers(10**9))) for _ in range(n)] for _ in prompts]


class Restless(ScriptedPolicy):
    """Changes its template."""

    calls = 0

    @property
    def template(self):
        self.calls += 1
        return PromptTemplate(num_slices=self.calls)


class Rewriting(Letters):
    """Encodes another text than it was given."""

    def encode(self, text):
        return super().encode(text.upper())


class WholeSequence(Letters):
    """Scores the prompt as well."""

    def score(self, prompt, completion):
        return torch.cat([torch.zeros(5), super().score(prompt, completion)])


class Logits(Letters):
    """Returns logits."""

    def score(self, prompt, completion):
        return super().score(prompt, completion) + 9


class Batching(Letters):
    """Scores depend on what else is in the batch."""

    def log_probs(self, prompts, completions, temperature=1.0):
        return [[row / len(prompts) for row in rows] for rows in super().log_probs(prompts, completions)]


class Rebuilding(Letters):
    """Builds the network anew each time."""

    def load(self):
        self._network = None
        return super().load()


class Detached(Letters):
    """Cuts the graph."""

    def score(self, prompt, completion):
        return super().score(prompt, completion).detach()


class Elsewhere(Letters):
    """Trains something that the scores do not depend on."""

    def trainable_parameters(self):
        return [torch.nn.Parameter(torch.zeros(3))]


class Leaking(Letters):
    """Also changes what should be frozen."""

    def load(self):
        network = super().load()
        network["frozen"].requires_grad_(True)
        return network


class Tracked(Letters):
    """The reference is trained too."""

    def reference_log_probs(self, prompts, completions, temperature=1.0):
        return self.log_probs(prompts, completions)


class Following(Letters):
    """The reference is the policy itself, without gradient."""

    def reference_log_probs(self, prompts, completions, temperature=1.0):
        return [[row.detach() for row in rows] for rows in self.log_probs(prompts, completions)]


class Lukewarm(Letters):
    """Draws at a temperature and tells the log-probabilities of another one."""

    def generate(self, prompts, n=1, sampling=None):
        rows = super().generate(prompts, n, sampling)
        table = self.load()["table"].detach()
        scores = torch.log_softmax(table / 0.35, 0)
        return [[replace(c, log_probs=scores[torch.from_numpy(c.token_ids)].numpy()) for c in row] for row in rows]


BROKEN = [
    (checks.check_completions, Single()),
    (checks.check_completions, Bare()),
    (checks.check_completions, Silent()),
    (checks.check_completions, Encoded()),
    (checks.check_token_form, Doubtful()),
    (checks.check_token_form, Floating()),
    (checks.check_length_is_bounded, Verbose()),
    (checks.check_prompts_are_kept_apart, Overhearing()),
    (checks.check_prompt_unchanged, Smearing()),
    (checks.check_prompt_unchanged, Popping()),
    (checks.check_greedy_is_deterministic, Counting()),
    (checks.check_seed_is_obeyed, Unseeded()),
    (checks.check_template, Restless()),
]

BROKEN_TRAINABLE = [
    (trainable_checks.check_encode, Rewriting()),
    (trainable_checks.check_encode, Floating()),
    (trainable_checks.check_log_probs_form, WholeSequence()),
    (trainable_checks.check_log_probs_are_logarithms, Logits()),
    (trainable_checks.check_packing_changes_nothing, Batching()),
    (trainable_checks.check_loads_once, Rebuilding()),
    (trainable_checks.check_gradient_reaches_parameters, Detached()),
    (trainable_checks.check_gradient_reaches_parameters, Elsewhere()),
    (trainable_checks.check_gradient_stays_in_trainable_parameters, Leaking()),
    (trainable_checks.check_reference_has_no_gradient, Tracked()),
    (trainable_checks.check_reference_stays, Following()),
    (trainable_checks.check_log_probs_are_those_of_the_draw, Lukewarm()),
    (trainable_checks.check_folder_opens, Closed()),
]


@pytest.mark.parametrize(
    ("check", "policy"), [*BROKEN, *BROKEN_TRAINABLE], ids=lambda value: getattr(value, "__name__", None)
)
def test_caught(assert_caught, check, policy):
    assert_caught(check, policy)


def test_every_check_catches_something():
    assert {check for check, _ in BROKEN} == set(checks.POLICY_CHECKS)
    assert {check for check, _ in BROKEN_TRAINABLE} == set(trainable_checks.TRAINABLE_CHECKS)


@pytest.mark.parametrize(
    "check", [*checks.POLICY_CHECKS, *trainable_checks.TRAINABLE_CHECKS], ids=lambda check: check.__name__
)
def test_a_sound_policy_passes(check):
    check(Letters())
