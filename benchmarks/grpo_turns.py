"""One GRPO step of GRPOModule, and one of TRL's GRPOTrainer, each when it is asked for: same prompt, group and lengths.

A step is generation, rewards, log-probabilities, backward and optimiser. The reward is the same cheap function.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import numpy as np
import torch
from meter import Meter
from torch.utils.data import DataLoader

from medvol.core.prompts import Prompt
from medvol.core.roles import RewardTerm
from medvol.core.types import Case
from medvol.evaluation.settings import EvaluationSettings
from medvol.grounding.prompts import build_prompts
from medvol.policies.vlm.policy import VLMPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.grpo import GRPOModule
from medvol.training.settings import GRPOOptimizerSettings, LossSettings, RolloutSettings, StartSettings

QUERY = "the liver"
PARTS = ("vision", "prefill", "decode", "log-probs", "backward", "optimiser", "rest")
"""Parts of a step."""


def letters(text: str) -> float:
    """A reward of no cost that differs between completions."""
    return len(set(text)) / 100


class Letters(RewardTerm):
    """Number of different letters, over a hundred."""

    needs: ClassVar = frozenset({"text"})

    def __call__(self, rollout: Any, case: Case) -> float:
        """Score a rollout."""
        return letters(rollout.completion.text)


class _MeasuredModule(GRPOModule):
    """GRPO that waits before every step until it is asked for one, and writes no model at the end."""

    def __init__(self, meter: Meter, **settings: Any) -> None:
        super().__init__(**settings)
        self.meter = meter
        self.wanted, self.taken = threading.Semaphore(0), threading.Semaphore(0)
        self.over = False

    def configure_optimizers(self) -> Any:
        """Measure the optimiser, too."""
        found: Any = super().configure_optimizers()
        self.meter.wrap(found["optimizer"], "step", "optimiser")
        return found

    def on_train_batch_start(self, *arguments: Any) -> int | None:
        """Wait, then start the clock."""
        self.wanted.acquire()
        if self.over:
            self.trainer.should_stop = True
            return -1
        self.meter.start()
        super().on_train_batch_start(*arguments)
        return None

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Stop the clock."""
        self.meter.stop()
        self.taken.release()

    def on_fit_end(self) -> None:
        """Write nothing."""

    def cpu(self) -> _MeasuredModule:
        """Stay on the device: other programs use the same frozen weights, which a trainer would move at its end."""
        return self


class OurSteps:
    """Steps of GRPOModule in Lightning's trainer, which waits in a thread of its own.

    The first step of a run also looks at the prompt before it starts, so it is not one to count.

    Args:
        policy: Trained; its answers never end early.
        case: Asked about.
        group: Completions of a step.
        length: Tokens of each.
        meter: Measures the steps.
        folder: Of the run.
        accelerator: Of the trainer.
    """

    def __init__(
        self, policy: VLMPolicy, case: Case, group: int, length: int, meter: Meter, folder: Path, accelerator: str
    ) -> None:
        self.meter = meter
        network = policy.load()
        meter.wrap(policy, "generate", "decode")
        meter.wrap(policy, "log_probs", "log-probs")
        meter.wrap(network, "hidden_states", "prefill", within="decode")
        meter.wrap(network, "_encode", "vision")
        self._module = _MeasuredModule(
            meter,
            policy=policy,
            propagator=ExtrudePropagator(),
            rewards=[Letters()],
            rollouts=RolloutSettings(group_size=group),
            loss=LossSettings(beta=0.0),
            optimizer=GRPOOptimizerSettings(learning_rate=1e-5),
            start=StartSettings(min_parse_rate=0.0),
            evaluation=EvaluationSettings(max_new_tokens=length),
        )
        meter.wrap(self._module, "manual_backward", "backward")
        self._trainer = pl.Trainer(
            max_steps=1000,
            max_epochs=-1,
            accelerator=accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        self._loader = DataLoader([[case]], batch_size=1, collate_fn=list)
        self.error: BaseException | None = None
        """What a step raised; there are no further ones."""
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._fit, daemon=True)
        self._thread.start()

    def take(self) -> None:
        """Let one step happen.

        Raises:
            BaseException: What this step, or an earlier one, raised.
        """
        if self.error is None:
            self._module.wanted.release()
            self._module.taken.acquire()
        if self.error is not None:
            raise self.error

    def finish(self) -> None:
        """End the run."""
        self._module.over = True
        self._module.wanted.release()
        self._thread.join()

    def _fit(self) -> None:
        torch.set_num_threads(self._threads)
        try:
            self._trainer.fit(self._module, self._loader)
        except BaseException as error:
            self.error = error
            self._module.taken.release()


@dataclass(frozen=True)
class Arrangement:
    """How TRL works through a group.

    Args:
        rows: Completions in one forward pass; gradients are added up over the group.
        checkpointing: Layers are computed again in the backward pass.
    """

    rows: int
    checkpointing: bool

    def __str__(self) -> str:
        return f"{self.rows} at a time{', checkpointing' if self.checkpointing else ''}"


def ask(policy: VLMPolicy, case: Case) -> Prompt:
    """The prompt of a case."""
    return build_prompts(case.volume, [QUERY], policy.template)[0]


def make_row(prompt: Prompt) -> dict[str, Any]:
    """A prompt as TRL's trainer takes it: the same text and slices in the same order."""
    from PIL import Image

    template, slices = prompt.template, prompt.slices
    tags = [template.slice_tag.format(index=index) for index in slices.indices]
    content = [part for tag in tags for part in ({"type": "text", "text": tag}, {"type": "image"})]
    content.append({"type": "text", "text": f"{template.instruction}\n{prompt.query}"})
    pixels = np.round(slices.pixels * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return {"prompt": [{"role": "user", "content": content}], "images": [Image.fromarray(one) for one in pixels]}


def make_trainer(
    policy: VLMPolicy,
    model: Any,
    prompt: Prompt,
    group: int,
    length: int,
    arrangement: Arrangement,
    steps: int,
    folder: Path,
    meter: Meter,
) -> Any:
    """A GRPOTrainer of TRL for the model of a policy.

    Args:
        policy: Lends its processor, and the rank of its adapters.
        model: Trained.
        prompt: Asked in every step.
        group: Completions of a step.
        length: Tokens of each; none ends early.
        arrangement: How the group is worked through.
        steps: Of the run.
        folder: Of the run.
        meter: Measures the steps.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    cpu = model.device.type == "cpu"
    config = GRPOConfig(
        output_dir=str(folder),
        use_cpu=cpu,
        bf16=not cpu,
        report_to=[],
        per_device_train_batch_size=arrangement.rows,
        gradient_accumulation_steps=group // arrangement.rows,
        num_generations=group,
        max_completion_length=length,
        max_steps=steps,
        save_strategy="no",
        beta=0.0,
        loss_type="grpo",
        top_k=0,
        gradient_checkpointing=arrangement.checkpointing,
        generation_kwargs={"min_new_tokens": length},
        disable_tqdm=True,
        learning_rate=1e-5,
        shuffle_dataset=False,
    )
    adapters = None
    if policy.lora_rank:
        from medvol.policies.vlm.low_rank import adapter_config

        adapters = adapter_config(policy.load())
    processor = policy.load().processor
    processor.tokenizer.padding_side = "left"
    meter.wrap(model.model.visual, "forward", "vision")
    meter.wrap(model, "_prefill", "prefill", within="decode")

    def reward(completions: list[Any], **_: Any) -> list[float]:
        return [letters(completion[0]["content"]) for completion in completions]

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list([make_row(prompt)] * steps),
        processing_class=processor,
        peft_config=adapters,
    )
    meter.wrap(trainer, "_generate_single_turn", "decode")
    meter.wrap(trainer, "_get_per_token_logps_and_entropies", "log-probs")
    meter.wrap(trainer.accelerator, "backward", "backward")
    return trainer


def train_in_turns(trainer: Any, meter: Meter, between: Callable[[], None]) -> None:
    """Run a trainer of TRL to its end; ``between`` is called after every step."""
    from transformers import PrinterCallback, TrainerCallback

    class Turns(TrainerCallback):
        def on_train_begin(self, *arguments: Any, optimizer: Any = None, **named: Any) -> None:
            meter.wrap(optimizer, "step", "optimiser")

        def on_step_begin(self, *arguments: Any, **named: Any) -> None:
            meter.start()

        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            meter.stop()
            between()

    trainer.add_callback(Turns())
    trainer.remove_callback(PrinterCallback)
    trainer.train()
