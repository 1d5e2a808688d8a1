"""Settings of the training modules: each group is one object, which YAML nests, as in ``model.loss.beta``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medvol.core.errors import ConfigError
from medvol.core.ranges import require_between, require_choice, require_least, require_share, require_whole
from medvol.grounding.anchors import KeySliceRule

AdvantageScale = Literal["group", "batch", "none"]
LossKind = Literal["grpo", "bnpo", "dr_grpo", "dapo"]
RatioLevel = Literal["token", "sequence"]
Moments = Literal["device", "host", "8bit"]


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, whose rate rises over a warm-up and then falls along a cosine.

    Args:
        learning_rate: Peak of the schedule.
        weight_decay: Of AdamW.
        warmup_steps: Optimiser steps of linear warm-up.
        final_share: The cosine ends at this share of the peak, which the step after the last one would have.
        moments: Where AdamW keeps two values for every trained weight: ``device`` beside the weights, ``host`` in the
            memory of the host, or ``8bit`` beside the weights and rounded to 8 bits (extra ``qlora``).
    """

    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    warmup_steps: int = 40
    final_share: float = 0.02
    moments: Moments = "device"

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        require_between("[0, inf)", "optimizer", learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        require_whole(0, "optimizer", warmup_steps=self.warmup_steps)
        require_share("optimizer", final_share=self.final_share)
        require_choice(Moments, "optimizer", moments=self.moments)


@dataclass(frozen=True)
class GRPOOptimizerSettings(OptimizerSettings):
    """``OptimizerSettings`` with other defaults for GRPO, which makes its own optimiser steps.

    Args:
        max_grad_norm: Gradients are scaled down to this norm.
        updates_per_rollout: Optimiser steps on the same rollouts; fewer on the last ones where ``trainer.max_steps``
            ends the fit.
        volumes_per_pass: Volumes that go through the network together; all of the batch when None. It changes memory
            and speed, not the gradient.
    """

    learning_rate: float = 1e-6
    weight_decay: float = 0.0
    warmup_steps: int = 0
    final_share: float = 0.1
    max_grad_norm: float = 1.0
    updates_per_rollout: int = 1
    volumes_per_pass: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        super().__post_init__()
        require_between("(0, inf]", "optimizer", max_grad_norm=self.max_grad_norm)
        require_whole(1, "optimizer", updates_per_rollout=self.updates_per_rollout)
        require_whole(1, "optimizer", volumes_per_pass=self.volumes_per_pass)


@dataclass(frozen=True)
class AnswerSettings:
    """How the true answers for SFT are made.

    Args:
        label_rule: How the key slice of a training answer is chosen among the slices shown.
        jitter: Move every edge of a training box by up to this share of its side, below one half: imperfect labels.
        think: Write a think block that names the target, or what a relational query means, and the slices it spans.
    """

    label_rule: KeySliceRule = "paper"
    jitter: float = 0.0
    think: bool = True

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        require_choice(KeySliceRule, "answers", label_rule=self.label_rule)
        require_between("[0, 0.5)", "answers", jitter=self.jitter)


@dataclass(frozen=True)
class RolloutSettings:
    """How the completions of a group are drawn.

    Args:
        group_size: Completions of each query, at least 2.
        temperature: Of sampling; log-probabilities are taken at it too.
        inspect_every: Draw a few rollouts to ``rollouts/`` in the run folder every so many optimiser steps; 0 never.
    """

    group_size: int = 8
    temperature: float = 1.0
    inspect_every: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        require_whole(2, "rollouts", group_size=self.group_size)
        require_whole(0, "rollouts", inspect_every=self.inspect_every)
        require_between("(0, inf)", "rollouts", temperature=self.temperature)


@dataclass(frozen=True)
class AdvantageSettings:
    """How the advantage of a completion over the others in its group is computed.

    Args:
        scale: Divide by the standard deviation of the ``group`` (DeepSeekMath, eq. 3), of the whole ``batch``, or by
            nothing (``none``, Dr. GRPO).
        skip_zero_spread: Leave groups out of the update if all of their completions have the same reward. Their only
            gradient is that of the divergence.
    """

    scale: AdvantageScale = "group"
    skip_zero_spread: bool = False

    def __post_init__(self) -> None:
        """Check the choice.

        Raises:
            ConfigError: The scale is none that is known.
        """
        require_choice(AdvantageScale, "advantages", scale=self.scale)


@dataclass(frozen=True)
class LossSettings:
    """What the GRPO loss is.

    Args:
        kind: How tokens are averaged. ``grpo``: within each completion, then over completions (DeepSeekMath). ``bnpo``
            and ``dapo``: over all tokens of the batch; they are one here, since the batch is never split before it is
            averaged. ``dr_grpo``: sums over the longest allowed length, so that length is not rewarded (Dr. GRPO).
        importance: Clip the probability ratio of each ``token``, or of the whole ``sequence`` (GSPO: its geometric
            mean).
        epsilon_low: Ratios below 1 minus this are clipped.
        epsilon_high: Ratios above 1 plus this are clipped.
        ratio_cap: Also bound the ratio of completions that are worse than their group, where clipping does not (dual
            clip; 3 in EasyR1, ``delta`` of TRL); None leaves it unbounded.
        beta: Weight of the divergence from the policy that training started from; 0 leaves the reference out.
        corrected_kl: Weight the divergence by the probability ratio, which makes its gradient unbiased after the first
            update (DeepSeek-V3.2; the default of TRL).
        sampler_cap: Largest weight of a token for the difference between the engine that sampled it and the policy that
            is trained, see ``sampler_weights``; None leaves the difference alone. Nothing is weighted where the policy
            itself samples.
        sampler_level: Weight each ``token``, or the whole ``sequence``.
    """

    kind: LossKind = "grpo"
    importance: RatioLevel = "token"
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    ratio_cap: float | None = None
    beta: float = 0.01
    corrected_kl: bool = False
    sampler_cap: float | None = 3.0
    sampler_level: RatioLevel = "token"

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        require_choice(LossKind, "loss", kind=self.kind)
        require_choice(RatioLevel, "loss", importance=self.importance, sampler_level=self.sampler_level)
        require_between("[0, inf)", "loss", beta=self.beta)
        require_least(0, "loss", epsilon_low=self.epsilon_low, epsilon_high=self.epsilon_high)
        if self.ratio_cap is not None and not self.ratio_cap > 1 + self.epsilon_high:
            raise ConfigError(f"loss.ratio_cap is {self.ratio_cap}; it must be above 1 + loss.epsilon_high, or null")
        if self.sampler_cap is not None and not self.sampler_cap >= 1:
            raise ConfigError(f"loss.sampler_cap is {self.sampler_cap}; it must be at least 1, or null")


@dataclass(frozen=True)
class StartSettings:
    """What must hold before the first update of GRPO; the run stops otherwise.

    Args:
        min_parse_rate: Least share of the first answers that follows the grammar. Without a cold start, GRPO does not
            converge (MedVol-R1, Table 2): without any reward there is nothing to learn from.
        max_prompt_tokens: Longest allowed prompt; None allows what the model does.
        max_sampler_gap: Largest mean difference between the log-probabilities of the engine and those of the policy, in
            nats a token; it holds for every later step too. None takes 0.01 where the network computes in float32, and
            0.1 where in a narrower type.
    """

    min_parse_rate: float = 0.5
    max_prompt_tokens: int | None = None
    max_sampler_gap: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A setting is out of range.
        """
        require_share("start", min_parse_rate=self.min_parse_rate)
        require_whole(1, "start", max_prompt_tokens=self.max_prompt_tokens)
        require_least(0, "start", max_sampler_gap=self.max_sampler_gap)
