"""Loss and advantages against TRL's own code, closed forms and sums worked out by hand."""

import math
import types
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medvol.core.errors import ConfigError
from medvol.training.advantages import group_advantages, zero_spread
from medvol.training.losses import divergence, policy_loss, token_weights
from medvol.training.settings import LossSettings

LONGEST = 9


def draw(seed: int, lengths=(9, 1, 4, 6)):
    """Log-probabilities of four ragged completions under three policies, and their advantages."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(LONGEST) < torch.tensor(lengths)[:, None]).double()
    new = -torch.rand(4, LONGEST, generator=generator, dtype=torch.float64) * 3
    old, reference = (new + 0.4 * torch.randn(4, LONGEST, generator=generator, dtype=torch.float64) for _ in range(2))
    advantages = torch.randn(4, generator=generator, dtype=torch.float64)
    return new.requires_grad_(), old, reference, advantages, mask


def trl_loss(config, new, old, reference, advantages, mask):
    """TRL's loss on given log-probabilities: its method, called on a stand-in for its trainer."""
    from trl import GRPOTrainer

    def same(x, **_):
        return x

    trainer = SimpleNamespace(
        args=config,
        beta=config.beta,
        loss_type=config.loss_type,
        epsilon_low=config.epsilon,
        epsilon_high=config.epsilon_high,
        importance_sampling_level=config.importance_sampling_level,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        max_completion_length=LONGEST,
        current_gradient_accumulation_steps=1,
        accelerator=SimpleNamespace(
            num_processes=1, gather=same, gather_for_metrics=same, reduce=same, sync_gradients=True
        ),
        model=SimpleNamespace(training=True),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, torch.zeros_like(new), None),
    )
    trainer.get_high_entropy_mask = types.MethodType(GRPOTrainer.get_high_entropy_mask, trainer)
    prompt = torch.ones(4, 2, dtype=torch.long)
    inputs = {
        "prompt_ids": prompt,
        "prompt_mask": prompt,
        "completion_ids": mask.long(),
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs)


@pytest.mark.filterwarnings("ignore")  # TRL and what it imports warn of their own affairs
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("corrected_kl", [False, True])
@pytest.mark.parametrize("cap", [None, 1.4])
@pytest.mark.parametrize("epsilons", [(0.2, 0.2), (0.1, 0.3)])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("kind", ["grpo", "bnpo", "dr_grpo", "dapo"])
def test_equals_trl(kind, ratio, beta, epsilons, cap, corrected_kl, seed, tmp_path):
    trl = pytest.importorskip("trl", reason="TRL is not installed (extra trl)")
    config = trl.GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        loss_type=kind,
        importance_sampling_level=ratio,
        beta=beta,
        epsilon=epsilons[0],
        epsilon_high=epsilons[1],
        delta=cap,
        use_bias_correction_kl=corrected_kl,
        max_completion_length=LONGEST,
        per_device_train_batch_size=4,
        num_generations=4,
        steps_per_generation=1,
        gradient_accumulation_steps=1,
    )
    new, old, reference, advantages, mask = draw(seed)
    theirs = trl_loss(config, new, old, reference, advantages, mask)
    (their_gradient,) = torch.autograd.grad(theirs, new)
    chosen = LossSettings(kind, ratio, *epsilons, cap, beta, corrected_kl)
    weights = token_weights(mask, kind, LONGEST)
    ours = policy_loss(new, old, advantages, mask, weights, chosen, reference if beta else None).loss
    (our_gradient,) = torch.autograd.grad(ours, new)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["grpo", "bnpo", "dr_grpo", "dapo"])
def test_pieces_of_a_batch_add_up(kind):
    new, old, reference, advantages, mask = draw(3)
    chosen = LossSettings(kind, beta=0.1)
    weights = token_weights(mask, kind, LONGEST)
    whole = policy_loss(new, old, advantages, mask, weights, chosen, reference).loss
    pieces = [
        policy_loss(new[i], old[i], advantages[i], mask[i], weights[i], chosen, reference[i]).loss
        for i in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(pieces), whole)


def test_on_policy_gradient_is_the_advantage_by_hand():
    """With equal old and new log-probabilities the ratio is 1, and a token's gradient is -advantage x weight."""
    new, _, _, advantages, mask = draw(4, lengths=(2, 1, 3, 4))
    weights = token_weights(mask, "grpo", LONGEST)
    loss = policy_loss(new, new.detach(), advantages, mask, weights, LossSettings(beta=0.0)).loss
    (gradient,) = torch.autograd.grad(loss, new)
    assert gradient[0, 0].item() == pytest.approx(-advantages[0].item() / 2 / 4)
    assert gradient[3, 3].item() == pytest.approx(-advantages[3].item() / 4 / 4)
    assert not gradient[1, 1:].any()


def test_clipping_stops_the_gradient_on_one_side_only():
    new = torch.log(torch.tensor([[0.9], [0.9], [0.1], [0.1]])).requires_grad_()
    old = torch.log(torch.full((4, 1), 0.5))
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    mask = torch.ones(4, 1)
    terms = policy_loss(new, old, advantages, mask, token_weights(mask, "grpo", 1), LossSettings(beta=0.0))
    (gradient,) = torch.autograd.grad(terms.loss, new)
    assert terms.clipped[:, 0].tolist() == [True, False, False, True]
    assert (gradient[:, 0] == 0).tolist() == [True, False, False, True]


def test_a_token_that_the_cap_cuts_off_counts_as_clipped():
    """Ratios 2 and 8 with a negative advantage: the cap of 3 makes the second loss a constant, and not the first."""
    new = torch.log(torch.tensor([[0.5], [0.8]])).requires_grad_()
    old = torch.log(torch.tensor([[0.25], [0.1]]))
    mask = torch.ones(2, 1)
    own = LossSettings(beta=0.0, ratio_cap=3.0)
    terms = policy_loss(new, old, torch.tensor([-1.0, -1.0]), mask, token_weights(mask, "grpo", 1), own)
    (gradient,) = torch.autograd.grad(terms.loss, new)
    assert terms.clipped[:, 0].tolist() == [False, True]
    assert (gradient[:, 0] == 0).tolist() == [False, True]


@settings(deadline=None)
@given(st.lists(st.floats(-20, 0), min_size=1, max_size=5), st.floats(-3, 3))
def test_divergence_is_never_negative(values, gap):
    new = torch.tensor([values], dtype=torch.float64)
    kl = divergence(new, new + gap)
    assert (kl >= -1e-15).all()
    assert kl[0, 0].item() == pytest.approx(math.exp(gap) - gap - 1, rel=1e-9, abs=1e-12)


def test_divergence_is_unbiased():
    """Over all tokens of a small vocabulary, weighted by the policy, it is the Kullback-Leibler divergence."""
    policy, reference = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.2, 0.6]).double()
    estimate = (policy * divergence(policy.log()[None], reference.log()[None])[0]).sum()
    truth = torch.nn.functional.kl_div(reference.log(), policy, reduction="sum")
    torch.testing.assert_close(estimate, truth)


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.5], [2.0, 2.0, 2.0, 2.0]])
    spread = math.sqrt((0.25 + 0.25) / 3)
    expected = [0.5 / (spread + 1e-4), -0.5 / (spread + 1e-4), 0.0, 0.0]
    assert group_advantages(rewards)[0].tolist() == pytest.approx(expected)
    assert group_advantages(rewards)[1].tolist() == [0.0] * 4
    assert group_advantages(rewards, "none")[0].tolist() == [0.5, -0.5, 0.0, 0.0]
    everyone = torch.tensor([1.0, 0, 0.5, 0.5, 2, 2, 2, 2]).std().item()
    assert group_advantages(rewards, "batch")[0, 0].item() == pytest.approx(0.5 / (everyone + 1e-4))
    assert zero_spread(rewards).tolist() == [False, True]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=4),
    st.sampled_from(["group", "batch", "none"]),
)
def test_advantages_of_a_group_sum_to_nothing(rewards, scale):
    advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64), scale)
    assert advantages.sum(dim=1).abs().max() < 1e-6 * (1 + advantages.abs().max())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"beta": -1.0}, "beta is -1.0"),
        ({"epsilon_low": float("nan")}, "epsilon_low"),
        ({"ratio_cap": 1.1}, "ratio_cap"),
    ],
)
def test_settings_without_meaning(setting, message):
    with pytest.raises(ConfigError, match=message):
        LossSettings(**setting)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_have_no_advantage_at_all(scale, dtype):
    """The mean of eight times 0.1 is another number than 0.1 in float32, and the difference is divided by 1e-4."""
    assert torch.full((1, 8), 0.1).mean().item() != torch.tensor(0.1).item()
    for size in range(2, 17):
        rewards = torch.linspace(0.01, 1, 100, dtype=dtype)[:, None].expand(-1, size)
        assert zero_spread(rewards).all()
        assert not group_advantages(rewards, scale).any()


def test_a_divergence_needs_a_reference():
    new, old, _, advantages, mask = draw(5)
    with pytest.raises(ValueError, match="reference"):
        policy_loss(new, old, advantages, mask, mask, LossSettings(beta=0.1))
