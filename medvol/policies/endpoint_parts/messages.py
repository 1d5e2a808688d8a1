"""A prompt as a chat: slices first, each after its tag, then the instruction and the query."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from medvol.core.prompts import Prompt
from medvol.core.types import SliceStack


def draw_images(slices: SliceStack) -> list[str]:
    """Each slice as a PNG in a data URL; the three windows are red, green and blue in 0..255."""
    return [_as_url(pixels) for pixels in np.rint(slices.pixels * 255).astype(np.uint8).transpose(0, 2, 3, 1)]


def write_messages(prompt: Prompt, images: Sequence[str]) -> bytes:
    """The messages of a request, as JSON: one turn of the user, laid out as the template says.

    Args:
        prompt: The question.
        images: Its slices, from ``draw_images``.
    """
    parts: list[dict[str, Any]] = []
    for index, image in zip(prompt.slices.indices, images, strict=True):
        parts.append({"type": "text", "text": prompt.template.slice_tag.format(index=index)})
        parts.append({"type": "image_url", "image_url": {"url": image}})
    parts.append({"type": "text", "text": f"{prompt.template.request}\n{prompt.query}"})
    return json.dumps([{"role": "user", "content": parts}]).encode()


def _as_url(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    """Pixels (Y, X, 3) as a data URL."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
