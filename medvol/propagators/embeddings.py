"""Encoder features of slices: computed once, kept in memory up to a number of bytes, optionally on disk.

An entry is named by the content of the slice it was computed from (its windowed pixels) and by the weights, never by
a volume's name: equal pixels have equal features, so nothing can be mixed up and nothing has to be invalidated.
Features are rounded as they are stored before their first use, so an answer does not depend on where they came from.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medvol.core.errors import ConfigError

Rounding = Literal["float32", "bfloat16", "float16"]
"""How features are stored; ``bfloat16`` are the upper halves of float32 as uint16."""

Stored = NDArray[Any]

_DIGEST_BYTES = 32
_FORMS = {"float32": ("<f4", ".f32"), "bfloat16": ("<u2", ".bf16"), "float16": ("<f2", ".f16")}


class EmbeddingCache:
    """Features by slice content, least recently used out first.

    Args:
        max_bytes: Features kept in memory; 0 keeps none.
        folder: Folder for files that outlive the process, made when needed; None keeps memory only.
        rounding: How features are stored. Measured with LiteMedSAM on four organs and three lesions of real CT, float16
            changes at most 10 voxels of a mask (2 700 to 54 000 voxels), and its Dice score with the truth by at most
            0.0001.
    """

    def __init__(self, max_bytes: int, folder: Path | None = None, rounding: Rounding = "float16") -> None:
        self.max_bytes = max_bytes
        self.bytes_held = 0
        self.rounding = rounding
        self._folder = folder
        self._held: OrderedDict[str, Stored] = OrderedDict()

    def get(self, key: str, shape: tuple[int, ...], compute: Callable[[], NDArray[np.float32]]) -> Stored:
        """Return the stored features of a key, computing them when they are neither in memory nor readable on disk.

        Args:
            key: Name of the entry, see ``embedding_key``.
            shape: Shape of the features, to tell a damaged file.
            compute: Called at most once.
        """
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        features = self._read(key, shape)
        if features is None:
            features = round_features(compute(), self.rounding)
            self._write(key, features)
        self._hold(key, features)
        return features

    def _hold(self, key: str, features: Stored) -> None:
        if features.nbytes > self.max_bytes:
            return
        self._held[key] = features
        self.bytes_held += features.nbytes
        while self.bytes_held > self.max_bytes:
            _, dropped = self._held.popitem(last=False)
            self.bytes_held -= dropped.nbytes

    def _read(self, key: str, shape: tuple[int, ...]) -> Stored | None:
        """Features from disk; a file that is cut or altered is deleted and counts as absent."""
        if self._folder is None:
            return None
        dtype, suffix = _FORMS[self.rounding]
        path = self._folder / f"{key}{suffix}"
        if not path.is_file():
            return None
        content = path.read_bytes()
        digest, values = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if len(values) != np.dtype(dtype).itemsize * int(np.prod(shape)) or _digest(values) != digest:
            path.unlink(missing_ok=True)
            return None
        return np.frombuffer(values, dtype).reshape(shape)

    def _write(self, key: str, features: Stored) -> None:
        if self._folder is None:
            return
        dtype, suffix = _FORMS[self.rounding]
        values = np.ascontiguousarray(features, dtype).tobytes()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._folder, suffix=".part")
        except OSError as error:
            raise ConfigError(
                f"cache_folder {str(self._folder)!r} cannot be written ({error.strerror}); choose another folder"
            ) from error
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_digest(values) + values)
            os.replace(name, self._folder / f"{key}{suffix}")
        except OSError as error:
            Path(name).unlink(missing_ok=True)
            raise ConfigError(
                f"cache_folder {str(self._folder)!r} cannot be written ({error.strerror}); choose another folder"
            ) from error


def round_features(features: NDArray[np.float32], rounding: Rounding) -> Stored:
    """Features as they are stored, rounded to the nearest, ties to even; any shape."""
    if rounding != "bfloat16":
        return features.astype(rounding)
    bits = np.ascontiguousarray(features, np.float32).view(np.uint32)
    tie = (bits >> 16) & 1
    return ((bits + np.uint32(0x7FFF) + tie) >> 16).astype(np.uint16)


def restore_features(stored: Stored) -> NDArray[np.float32]:
    """Stored features as float32, same shape."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)


def embedding_key(pixels: NDArray[np.float32], weights: str) -> str:
    """Name an entry by what its features are computed from.

    Args:
        pixels: Windowed slice on the network's grid.
        weights: Content hash of the weights, with anything else that changes the features.
    """
    return hashlib.blake2b(
        np.ascontiguousarray(pixels, "<f4").tobytes(), digest_size=16, key=_digest(weights.encode())
    ).hexdigest()


def _digest(values: bytes) -> bytes:
    return hashlib.blake2b(values, digest_size=_DIGEST_BYTES).digest()
