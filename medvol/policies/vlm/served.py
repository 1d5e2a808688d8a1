"""A network of the Qwen kind as an inference server sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isclose
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medvol.core.errors import ConfigError
from medvol.core.prompts import Prompt
from medvol.core.served_form import ServedForm, SlicePatches
from medvol.core.types import Completion
from medvol.policies.vlm.adapter_folder import write_layers
from medvol.policies.vlm.decoding import as_completion
from medvol.policies.vlm.folder import write_network
from medvol.policies.vlm.network import VLMNetwork


class ServedNetwork(ServedForm):
    """Token ids, pictures and weights of a network.

    Args:
        network: Its image processor gives ``pixel_values`` and ``image_grid_thw``.
        adapter_rank: Rank of its adapters; 0 where it has none.
    """

    def __init__(self, network: VLMNetwork, adapter_rank: int) -> None:
        self.network = network
        self.adapter_rank = adapter_rank
        self.end_id = network.end_id
        self.image_id = network.image_id
        own: torch.dtype = network.narrow or network.model.dtype
        self.kind = str(own).removeprefix("torch.")

    @property
    def allowed_ids(self) -> list[int]:
        """All but special tokens, image tokens and rows of the vocabulary without a token; and the end token."""
        ids: list[int] = (~self.network.suppressed).nonzero()[:, 0].tolist()
        return ids

    def spell(self, prompt: Prompt) -> list[int]:
        """Token ids, as the network reads them itself."""
        ids: list[int] = self.network.prefix(prompt.slices).ids.tolist()
        return [*ids, *self.network.encode_query(prompt.query)]

    def pictures(self, prompt: Prompt) -> list[NDArray[np.float32]]:
        """Slices with values as the processor leaves them before it normalises."""
        template, seen = self.network.template, self.network.seen_size()
        if seen != (template.height_px, template.width_px):
            raise ConfigError(
                f"the image processor would resize slices of {template.height_px} x {template.width_px} px to "
                f"{seen[0]} x {seen[1]}; set template.height_px and template.width_px to those"
            )
        images = self.network.processor.image_processor
        scale = 255 * (images.rescale_factor if images.do_rescale else 1)
        pixels = prompt.slices.pixels
        return list(np.array(pixels) if isclose(scale, 1, rel_tol=1e-6) else pixels * np.float32(scale))

    def patches(self, prompt: Prompt) -> list[SlicePatches]:
        """Patches of all slices, cut and normalised here, exactly as for the network itself."""
        images = self.network.prepare(torch.from_numpy(np.array(prompt.slices.pixels)))
        grids = images["image_grid_thw"]
        cut = images["pixel_values"].split(grids.prod(dim=1).tolist())
        return [
            SlicePatches(values.numpy(), (int(grid[0]), int(grid[1]), int(grid[2])))
            for values, grid in zip(cut, grids, strict=True)
        ]

    def read(self, token_ids: Sequence[int], log_probs: Sequence[float]) -> Completion:
        """Text in the grammar's units, with ids and log-probabilities."""
        return as_completion(self.network, token_ids, log_probs)

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Weights where they lie, in the type that is computed in; of those that share memory the first."""
        kind = getattr(torch, self.kind)
        seen: set[tuple[int, torch.Size]] = set()
        for name, tensor in self.network.model.state_dict().items():
            place = tensor.data_ptr(), tensor.shape
            if place not in seen:
                seen.add(place)
                yield name, tensor.to(kind) if tensor.is_floating_point() else tensor

    def write_base(self, folder: Path) -> None:
        """Weights, configuration and processor as transformers keeps them."""
        write_network(self.network, folder, adapters=False)

    def write_adapter(self, folder: Path) -> None:
        """The adapters as peft keeps them."""
        write_layers(self.network, folder, "", {})
