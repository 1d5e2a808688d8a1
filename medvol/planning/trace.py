"""The phases of a training step, run without weights: the memory that each of them has alive at its peak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from medvol.core.errors import ConfigError, MedvolError
from medvol.core.prompts import Prompt
from medvol.core.types import Completion
from medvol.planning.live_bytes import LiveBytes
from medvol.planning.optimiser import adamw_workspace, moments_of
from medvol.planning.phases import DRAWING, LEARNING, REFERRING, STEPPING, WRITING, Phase, Trace
from medvol.planning.prompt_tokens import TRUE_ANSWER, PromptTokens, count_tokens, make_prompts
from medvol.planning.repeats import Repeat, UnlikeLayersError, counted_often, shorten
from medvol.planning.shadow import Device, shadow, take_form
from medvol.planning.step import Step
from medvol.planning.watching import watch_cache, watched
from medvol.policies.vlm.decoding import new_cache
from medvol.policies.vlm.folder import leave_weights_out
from medvol.policies.vlm.low_rank import folded_weights
from medvol.policies.vlm.network import VLMNetwork
from medvol.policies.vlm.packing import Branch, pack_tree
from medvol.policies.vlm.policy import VLMPolicy
from medvol.policies.vlm.precision import arithmetic, narrowed


def trace(policy: VLMPolicy, step: Step, device: Device, all_layers: bool = False) -> Trace:
    """Run the phases of a step without weights.

    Args:
        policy: Not loaded yet; it is of no use for anything else afterwards.
        step: Sizes of the step.
        device: Where it would run.
        all_layers: Run each layer, also where some of them can stand for others. It says the same and takes longer.

    Raises:
        ConfigError: The policy's network does something that needs its numbers, or prompt and drawn answer are longer
            than it takes.
        MedvolError: The policy's folder is missing or refused.
    """
    policy = policy.unloaded(feature_memory_gb=0.0)  # made-up volumes look all the same
    with leave_weights_out():
        network = policy.load_for_training()
        reference = policy.load_reference() if step.reference and not policy.lora_rank else None
    try:
        with ExitStack() as watching:
            live = watching.enter_context(shadow(device))
            repeats = []
            for known in filter(None, (network, reference)):
                watching.enter_context(watched(known, live, device))
                repeat = None if all_layers else shorten(known)
                if repeat is not None:
                    repeats.append(repeat)
                    watching.enter_context(counted_often(repeat, live))
            return _Tracer(policy, network, reference, step, live, device, repeats).run()
    except UnlikeLayersError:
        return trace(policy, step, device, all_layers=True)
    except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
        if isinstance(error, MedvolError):
            raise
        raise ConfigError(
            f"a step of {type(policy).__name__} cannot be planned: its network needs its numbers to go on "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''})"
        ) from error


class _Tracer:
    """Runs the phases of one step."""

    def __init__(
        self,
        policy: VLMPolicy,
        network: VLMNetwork,
        reference: VLMNetwork | None,
        step: Step,
        live: LiveBytes,
        device: Device,
        repeats: Sequence[Repeat],
    ) -> None:
        self.repeats = repeats
        self.policy, self.network, self.reference = policy, network, reference
        self.step, self.live, self.device = step, live, device
        self.answer_tokens = step.answer_tokens or len(network.encode(TRUE_ANSWER)) + 1
        self.trained: list[nn.Parameter] = []
        self.phases: list[Phase] = []

    def run(self) -> Trace:
        """All phases, in the order of a step that is not the first one."""
        self._place_weights()
        volumes = [make_prompts(self.network, self.step) for _ in range(self.step.volumes)]
        tokens = count_tokens(self.network, volumes[0], self.step)
        if self.step.draws:
            _require_room(tokens, self.answer_tokens)
        gradients = self.step.draws or self.step.accumulation > 1
        for parameter in self.trained:
            with self.live.naming("gradients"):
                parameter.grad = torch.empty_like(parameter)
            self.live.multiply(parameter.grad.untyped_storage(), self._times(parameter))
        if self.step.draws:
            with self._phase(DRAWING):
                self._draw(volumes)
            if self.step.reference:
                with self._phase(REFERRING):
                    for part in self._parts(volumes):
                        self.policy.reference_log_probs(*self._answered(part))
            self._drop_gradients()
        with self._phase(LEARNING):
            self._learn(volumes, gradients)
        with self._phase(STEPPING), self.live.naming("optimiser's workspace"):
            held = self._workspace()
        del held, volumes
        with self._phase(WRITING), self.live.naming("weights to write"), torch.no_grad():
            written = self._written()
        del written
        layers = _longest_stack(self.network)
        return Trace(
            tokens,
            self.answer_tokens,
            tuple(self.phases),
            self._bytes_of([parameter for layer in layers for parameter in layer.parameters()]),
            max((sum(p.nbytes for p in layer.parameters()) for layer in layers), default=0),
            sum(parameter.numel() * self._times(parameter) for parameter in self.trained),
        )

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.live.begin()
        yield
        self.phases.append(Phase(name, self.live.peak))

    def _place_weights(self) -> None:
        with self.live.naming("frozen weights"):
            take_form(self.network.model)
        self.trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        for parameter in self.trained:
            self.live.rename(parameter, "trained weights")
            parameter.register_post_accumulate_grad_hook(
                lambda own: self.live.rename(own.grad, "gradients") if own.grad is not None else None
            )
        if self.reference is not None:
            with self.live.naming("reference"):
                if self.policy.freeze_vision:
                    self.reference.share_vision(self.network)
                take_form(self.reference.model, {id(p) for p in self.network.parameters()})
        self.often = {key: times for repeat in self.repeats for key, times in repeat.times_of().items()}
        for parameter in (p for repeat in self.repeats for p in repeat.layers[1].parameters()):
            self.live.multiply(parameter.untyped_storage(), self._times(parameter))
        self.moments = []
        for parameter in self.trained:
            with self.live.naming("optimiser"), self.live.repeating(self._times(parameter)):
                self.moments += moments_of(parameter, self.step.moments, self.device)

    def _times(self, parameter: torch.Tensor) -> int:
        """Parameters that this one stands for."""
        return self.often.get(id(parameter), 1)

    def _bytes_of(self, layers: Sequence[nn.Parameter]) -> dict[str, int]:
        """Bytes of the shared-out layers by what they are for."""
        sizes = [(parameter.nbytes * self._times(parameter), parameter.requires_grad) for parameter in layers]
        trained = sum(size for size, learns in sizes if learns)
        frozen = sum(size for size, learns in sizes if not learns)
        parts = {"frozen weights": frozen, "trained weights": trained, "gradients": trained, "optimiser": 2 * trained}
        return {**parts, "optimiser's workspace": trained if self.device == "cuda" else 0}

    def _parts(self, volumes: Sequence[list[Prompt]]) -> list[Sequence[list[Prompt]]]:
        """Volumes that go through the network together; all passes after the second are like it."""
        size = self.step.at_once
        return [volumes[start : start + size] for start in range(0, len(volumes), size)][:2]

    def _answered(self, volumes: Sequence[list[Prompt]]) -> tuple[list[Prompt], list[list[Completion]]]:
        prompts = [prompt for volume in volumes for prompt in volume]
        word = self.network.encode("a")[0]
        answer = Completion("", np.full(self.answer_tokens, word, np.int64))
        return prompts, [[answer] * self.step.taught for _ in prompts]

    @torch.no_grad()
    def _draw(self, volumes: Sequence[list[Prompt]]) -> None:
        """Read each prompt into a cache, and write the last token of all of its answers."""
        self.network.eval()
        if self.network.features is None:  # nothing is kept of a volume: any after the second is like it
            volumes = volumes[:2]
        with arithmetic(self.network.device, self.network.narrow):
            for volume in volumes:
                if self.network.packs:
                    self._write_last(volume)
                else:
                    self._write_last(volume[:1])
        self.network.train()

    def _write_last(self, volume: Sequence[Prompt]) -> None:
        network, n = self.network, self.step.answers
        prefix, packs = network.prefix(volume[0].slices), network.packs
        branches = [Branch(network.encode_query(prompt.query)) for prompt in volume]
        row = pack_tree(prefix, branches)
        cache: Any = new_cache(network)
        watch_cache(cache, self.live)
        hidden = network.hidden_states([row], network.see([volume[0].slices]), cache)
        lines, width = len(volume) * n, 1 if packs else n
        if not packs:
            cache.reorder_cache(torch.zeros(n, dtype=torch.long))
        written = (self.answer_tokens - 1) * (lines if packs else 1)
        with self.live.naming("key and value cache"):
            for place, layer in enumerate(cache.layers):
                if getattr(layer, "keys", None) is not None:
                    with self.live.repeating(self._times_at(place)):
                        layer.keys, layer.values = (_longer(kept, written) for kept in (layer.keys, layer.values))
        size = len(row.ids) + written
        if packs:
            visible = torch.ones(1, 1, lines, size + lines, dtype=torch.bool)
            places = torch.zeros(1, size + lines, dtype=torch.long)
            mask = network.layer_masks(visible, places, torch.zeros(1, size + lines, dtype=torch.bool))
        else:
            mask = None
        ids = torch.zeros(width, lines // width, dtype=torch.long)
        states = network.run_on(ids, torch.zeros(3, *ids.shape, dtype=torch.long), mask, cache)
        network.token_log_probs(states.flatten(0, 1)).exp()
        del hidden

    def _times_at(self, place: int) -> int:
        """Layers of the network that the one at a place stands for."""
        own = next((repeat for repeat in self.repeats if repeat.layers[1] in self.network.modules()), None)
        return own.times if own is not None and own.place == place else 1

    def _learn(self, volumes: Sequence[list[Prompt]], gradients: bool) -> None:
        for number, part in enumerate(self._parts(volumes)):
            scores = self.policy.log_probs(*self._answered(part))
            flat = torch.cat([row for group in scores for row in group])
            loss = (flat - flat.detach()).exp().sum()
            if number == 0 and not gradients:
                self._drop_gradients()
            with self.live.naming("backward pass"):
                loss.backward()
            del scores, flat, loss

    def _drop_gradients(self) -> None:
        for parameter in self.trained:
            parameter.grad = None

    def _written(self) -> Sequence[torch.Tensor]:
        """Weights as they are written: in the memory of the host; on a GPU what is made of one of them on its way."""
        if self.device == "cuda" and self.policy.lora_rank:
            layers: list[Any] = [layer for layer in self.network.modules() if hasattr(layer, "lora_A")]
            return [torch.empty(2 * max(layer.in_features * layer.out_features for layer in layers))]
        if self.device == "cuda":
            largest = max(parameter.numel() for parameter in self.trained)
            return [torch.empty(largest, dtype=self.network.narrow)] if self.network.narrow else []
        self.live.inherits = True
        written = list(narrowed(folded_weights(self.network.model), self.network.narrow).values())
        self.live.inherits = False
        return written

    def _workspace(self) -> list[torch.Tensor]:
        """What AdamW makes on its way, and what sums gradients."""
        sizes = [parameter.numel() * self._times(parameter) for parameter in self.trained]
        largest = max((parameter.numel() for parameter in self.trained), default=0)
        made = adamw_workspace(sizes, largest, self.step.moments, self.device)
        if self.step.devices > 1:  # gradients are summed a bucket at a time
            made = [*made, min(sum(sizes), 2**26)]
        return [torch.empty(size) for size in made]


def _require_room(tokens: PromptTokens, answer_tokens: int) -> None:
    """Refuse what a training by drawn answers refuses when it starts."""
    if tokens.total + answer_tokens > tokens.limit:
        raise ConfigError(
            f"a prompt of {tokens.total:,} tokens and an answer of up to {answer_tokens:,} are more than the "
            f"{tokens.limit:,} that the model takes; show fewer or smaller slices in the template, or lower "
            "evaluation.max_new_tokens"
        )


def _longer(kept: torch.Tensor, more: int) -> torch.Tensor:
    shape = list(kept.shape)
    shape[2] += more
    return torch.empty(shape, dtype=kept.dtype)


def _longest_stack(network: nn.Module) -> list[nn.Module]:
    """Layers that sharding shares out, as training chooses them."""
    stacks = [stack for stack in network.modules() if isinstance(stack, nn.ModuleList) and len(stack) > 1]
    return list(max(stacks, key=lambda stack: sum(p.numel() for p in stack.parameters()), default=[]))
