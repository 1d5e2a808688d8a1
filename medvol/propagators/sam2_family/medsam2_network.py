"""The tracker of SAM 2 as functions on batches of tracks.

The library's own session follows one video with one object after another. Here every row of a batch is a track of its
own: its own slice, its own prompt, its own direction. What a step looks like depends only on how many steps a track has
taken, so rows at the same step run together, and a prompt is encoded once for both directions. Modules and weights are
those of ``Sam2VideoModel``; tests hold the steps to the ``sam2`` package. Gradients are the caller's business.

Source: Ravi et al., SAM 2 (arXiv 2408.00714), appendix on memory attention; behaviour as in ``sam2`` 1.1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from medvol.core.errors import ConfigError
from medvol.propagators.sam2_family.medsam2_attention import MemoryAttention

NO_OBJECT = -1024.0
"""Logit everywhere when the network says that the target is not on a slice."""
_MASK_SCALE, _MASK_BIAS = 20.0, -10.0
_MEAN_STD = {
    "sam2_video": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "sam3_tracker_video": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass(frozen=True)
class Features:
    """Image features of B slices.

    Args:
        fine: (B, C/8, S/4, S/4), for the mask decoder.
        middle: (B, C/4, S/8, S/8), for the mask decoder.
        coarse: (B, C, S/16, S/16).
        settled: (B, N, C), the coarse ones as tokens after the first self-attention of the memory attention.
    """

    fine: Tensor
    middle: Tensor
    coarse: Tensor
    settled: Tensor

    def first(self, count: int) -> Features:
        """The first rows."""
        return self.rows(slice(count))

    def rows(self, rows: slice | Tensor) -> Features:
        """Some rows."""
        return Features(self.fine[rows], self.middle[rows], self.coarse[rows], self.settled[rows])


@dataclass(frozen=True)
class Answer:
    """What the network says about B slices.

    Args:
        raw: (B, 1, S/4, S/4) logits of the target, whether it is there or not.
        pointer: (B, C) description of the target.
        score: (B, 1) logit of the target being on the slice at all.
    """

    raw: Tensor
    pointer: Tensor
    score: Tensor

    @property
    def logits(self) -> Tensor:
        """(B, 1, S/4, S/4) logits, ``NO_OBJECT`` everywhere when the target is not on the slice."""
        return torch.where(self.score[..., None, None] > 0, self.raw, NO_OBJECT)

    def first(self, count: int) -> Answer:
        """The first rows."""
        return Answer(self.raw[:count], self.pointer[:count], self.score[:count])


@dataclass(frozen=True)
class Memory:
    """What is remembered of one slice of B tracks.

    Args:
        tokens: (B, N, M) bfloat16, as upstream stores them.
        pointer: (B, C) description of the target.
    """

    tokens: Tensor
    pointer: Tensor

    @classmethod
    def stack(cls, memories: Sequence[Memory]) -> Memory:
        """Several memories as the rows of one."""
        return cls(torch.cat([m.tokens for m in memories]), torch.cat([m.pointer for m in memories]))

    def first(self, count: int) -> Memory:
        """The first rows."""
        return Memory(self.tokens[:count], self.pointer[:count])

    def row(self, index: int) -> Memory:
        """One row, as a batch of one."""
        return Memory(self.tokens[index : index + 1], self.pointer[index : index + 1])

    def forget_tokens(self) -> Memory:
        """The pointer alone, for slices too old to be attended to."""
        return Memory(self.tokens[:, :0], self.pointer)


class TrackerNetwork:
    """A frozen tracker.

    Args:
        model: ``Sam2VideoModel``, or another of transformers with the same parts.
        device: Where torch computes (``cpu``, ``cuda``).
        bfloat16: Encode slices in bfloat16.

    Raises:
        ConfigError: The device does not exist.
    """

    def __init__(self, model: Any, device: str = "cpu", bfloat16: bool = False) -> None:
        try:
            self.model = model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device {device!r} cannot be used: {error}") from error
        self.device, self._bfloat16 = device, bfloat16
        self.size: int = model.config.image_size
        """Side of the square that the network reads, in pixels."""
        sides = [tuple(side) for side in model.config.vision_config.backbone_feature_sizes]
        width = model.config.vision_config.fpn_hidden_size
        self._shapes: list[tuple[int, ...]] = [
            (c, *side) for c, side in zip((width // 8, width // 4, width), sides, strict=True)
        ]
        mean, std = _MEAN_STD[model.config.model_type]
        self._mean, self._std = (torch.tensor(v, device=device).reshape(1, 3, 1, 1) for v in (mean, std))
        with torch.no_grad():
            self._grid = model.get_image_wide_positional_embeddings()
            neck = model.vision_encoder.neck.position_encoding
            places = _tokens(neck((1, *self._shapes[2]), device, torch.float32))
            encoding = model.memory_encoder.position_encoding
            self._memory_places = _tokens(encoding((1, 0, *sides[2]), device, torch.float32))
        self._attention = MemoryAttention(model.memory_attention, places)
        self._shapes.append((sides[2][0] * sides[2][1], width))

    @property
    def feature_length(self) -> int:
        """Numbers that ``encode`` writes for one slice."""
        return sum(int(np.prod(shape)) for shape in self._shapes)

    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Slice (S, S) in 0..255 to its features as one row of numbers; the three channels are equal."""
        with torch.inference_mode():
            features = self.look(torch.tensor(pixels, device=self.device)[None])
            row: NDArray[np.float32] = torch.cat([part.flatten() for part in vars(features).values()]).cpu().numpy()
        return row

    def look(self, pixels: Tensor) -> Features:
        """Slices (B, S, S) in 0..255 to their features."""
        images = (pixels[:, None].float() / 255 - self._mean) / self._std
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self._bfloat16):
            maps = self.model.get_image_features(images, return_dict=True).fpn_hidden_states
        shapes = self._shapes[:3]
        fine, middle, coarse = (
            m.permute(1, 2, 0).reshape(-1, *shape).float() for m, shape in zip(maps, shapes, strict=True)
        )
        return Features(fine, middle, coarse, self._attention.settle(coarse))

    def features(self, rows: Sequence[NDArray[np.float32]]) -> Features:
        """Rows of ``encode`` to the features of a batch."""
        stacked = torch.from_numpy(np.stack(rows)).to(self.device)
        parts = stacked.split([int(np.prod(shape)) for shape in self._shapes], dim=1)
        return Features(*(part.reshape(-1, *shape) for part, shape in zip(parts, self._shapes, strict=True)))

    def click(self, features: Features, boxes: NDArray[np.float64]) -> Answer:
        """Answer one box a slice, (B, 4) in pixels of the network's square, without memory."""
        corners = torch.as_tensor(boxes, dtype=torch.float32, device=self.device).reshape(-1, 1, 2, 2)
        kinds = torch.tensor([2, 3], dtype=torch.int32, device=self.device).expand(len(corners), 1, 2)
        coarse = features.coarse + self.model.no_memory_embedding[0, 0, :, None, None]
        return self._decode(features, coarse, (corners, kinds), several=False)

    def accept(self, features: Features, masks: Tensor) -> Answer:
        """Take masks (B, 1, S, S) of 0 and 1 for the truth; the network only describes what they show."""
        logits = _resized(masks * _MASK_SCALE + _MASK_BIAS, self._mask_side)
        prompt = _resized(self.model.mask_downsample(masks), self._mask_side)
        described = self._decode(features, features.coarse, None, several=False, mask=prompt)
        present = masks.flatten(1).any(dim=1, keepdim=True)
        pointer = torch.where(present, described.pointer, self.model.no_object_pointer)
        return Answer(logits, pointer, present * _MASK_SCALE + _MASK_BIAS)

    def follow(self, features: Features, memories: Sequence[Memory], frames: int) -> Answer:
        """Find the targets on the next slice of every track.

        Args:
            features: The next slices.
            memories: Of the prompt and of every slice since, in order; only the latest tokens are read.
            frames: Slices in the whole series, which scales the age of pointers as upstream does.
        """
        config = self.model.config
        step, recent = len(memories), config.num_maskmem - 1
        ages = [age for age in range(recent, 0, -1) if age < step]
        kept = [(memories[0], -1), *((memories[step - age], age - 1) for age in ages)]
        times = self.model.memory_temporal_positional_encoding
        tokens = torch.cat([memory.tokens for memory, _ in kept], dim=1).float()
        places = torch.cat([self._memory_places + times[index, 0] for _, index in kept], dim=1)
        most = min(frames, config.max_object_pointers_in_encoder)
        pointed = [(memories[0], step), *((memories[step - age], age) for age in range(1, min(step, most)))]
        pointers, moments = self._pointers([m.pointer for m, _ in pointed], [age for _, age in pointed], most)
        memory, seen = torch.cat([tokens, pointers], dim=1), torch.cat([places, moments], dim=1)
        attended = self._attention.recall(features.settled, memory, seen, pointers.shape[1])
        coarse = attended.transpose(1, 2).reshape(features.coarse.shape)
        return self._decode(features, coarse, None, several=config.multimask_output_for_tracking)

    def remember(self, features: Features, answer: Answer, prompted: bool) -> Memory:
        """What later slices will know of these answers; a prompted mask is remembered as it is shown, without grey."""
        logits = F.interpolate(answer.logits, (self.size, self.size), mode="bilinear", align_corners=False)
        logits = _resized(logits, 4 * self._mask_side)
        mask = (logits > 0).float() if prompted else torch.sigmoid(logits)
        config = self.model.config
        mask = mask * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        maps, _ = self.model.memory_encoder(features.coarse, mask)
        absent = (answer.score <= 0).float()[..., None, None]
        maps = maps + absent * self.model.occlusion_spatial_embedding_parameter[..., None, None]
        return Memory(_tokens(maps).to(torch.bfloat16), answer.pointer)

    @property
    def _mask_side(self) -> int:
        return int(self._shapes[0][1])

    def _decode(
        self,
        features: Features,
        coarse: Tensor,
        points: tuple[Tensor, Tensor] | None,
        several: bool,
        mask: Tensor | None = None,
    ) -> Answer:
        """Decode one target a slice; with ``several`` the best of three masks by the network's own estimate."""
        if points is None:
            nowhere = torch.zeros(len(coarse), 1, 1, 2, device=self.device)
            points = nowhere, torch.full((len(coarse), 1, 1), -1, dtype=torch.int32, device=self.device)
        sparse, dense = self.model.prompt_encoder(
            input_points=points[0], input_labels=points[1], input_boxes=None, input_masks=mask
        )
        masks, quality, tokens, score = self.model.mask_decoder(
            image_embeddings=coarse,
            image_positional_embeddings=self._grid.expand(len(coarse), -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            high_resolution_features=[features.fine, features.middle],
        )
        rows = torch.arange(len(coarse), device=self.device)
        best = quality[:, 0].argmax(dim=-1) if several else torch.zeros_like(rows)
        pointer = self.model.object_pointer_proj(tokens[rows, 0, best])
        pointer = torch.where(score[:, 0] > 0, pointer, self.model.no_object_pointer)
        return Answer(masks[rows, 0, best][:, None].float(), pointer, score[:, 0])

    def _pointers(self, pointers: Sequence[Tensor], ages: Sequence[int], most: int) -> tuple[Tensor, Tensor]:
        """Pointers as tokens (B, T, M), several a pointer when it is wider than a memory, and their ages (1, T, M)."""
        stacked = torch.stack(list(pointers), dim=1)
        width = self.model.mem_dim
        split = stacked.shape[-1] // width
        scaled = torch.tensor(ages, dtype=torch.float32, device=self.device) / max(1, most - 1)
        moments = self.model.temporal_positional_encoding_projection_layer(_waves(scaled, stacked.shape[-1]))
        return stacked.reshape(len(stacked), -1, width), moments.repeat_interleave(split, dim=0)[None]


def _tokens(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H*W, C)."""
    return maps.flatten(2).transpose(1, 2)


def _resized(maps: Tensor, side: int) -> Tensor:
    """Maps (B, 1, H, W) on a square of another side; unchanged when they are of that side."""
    if maps.shape[-1] == side:
        return maps
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False, antialias=True)


def _waves(values: Tensor, width: int) -> Tensor:
    """Numbers (T,) as sines and cosines of falling frequency (T, width)."""
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=values.device)
    phases = values[:, None] / 10000 ** (2 * (index // 2) / half)
    return torch.cat([phases.sin(), phases.cos()], dim=-1)
