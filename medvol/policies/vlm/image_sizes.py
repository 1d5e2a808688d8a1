"""Sizes that a folder's image processor asks for, judged before a slice is made that large."""

from __future__ import annotations

from typing import Any

from medvol.core.errors import CheckpointError

_SIDE, _PIXELS = 2**13, 2**26
_TILES = 64


def require_sane_sizes(images: Any, in_pixels: bool) -> None:
    """Refuse an image processor that would make slices too large for any memory, or none at all.

    Args:
        images: Image processor of transformers.
        in_pixels: True when the edges of its ``size`` count all pixels of a slice; only the least matters then.

    Raises:
        CheckpointError: A size is out of range.
    """
    found = {
        f"{name}.{key}": value
        for name in ("size", "crop_size", "max_image_size")
        for key, value in dict(getattr(images, name, None) or {}).items()
        if value is not None and not (in_pixels and key == "longest_edge")
    }
    found |= {name: getattr(images, name) for name in ("patch_size", "merge_size") if hasattr(images, name)}
    limit = _PIXELS if in_pixels else _SIDE
    for name, value in found.items():
        if not (isinstance(value, int) and 1 <= value <= limit):
            raise CheckpointError(f"the image processor sets {name} to {str(value)[:20]}; a model takes 1 to {limit}")
    tiles = getattr(images, "max_patches", 1)
    if not (isinstance(tiles, int) and 1 <= tiles <= _TILES):
        raise CheckpointError(
            f"the image processor cuts up to {str(tiles)[:20]} tiles of a slice; 1 to {_TILES} are read"
        )
