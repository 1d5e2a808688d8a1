"""The feature cache: what is computed, what is kept, what is thrown away."""

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from medvol.core.errors import ConfigError
from medvol.propagators import feature_cache
from medvol.propagators.feature_cache import (
    EmbeddingCache,
    describe_encoder,
    embedding_key,
    restore_features,
    round_features,
)

SHAPE = (4, 8, 8)
ENTRY_BYTES = 2 * 4 * 8 * 8


class Encoder:
    """Counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return np.random.default_rng(self.calls).normal(size=SHAPE).astype(np.float32)


def test_second_request_is_not_computed():
    cache, encoder = EmbeddingCache(10 * ENTRY_BYTES), Encoder()
    first, second = cache.get("a", SHAPE, encoder), cache.get("a", SHAPE, encoder)
    assert encoder.calls == 1
    assert np.array_equal(first, second)
    assert first.dtype == np.float16


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 6))
def test_bytes_are_bounded_and_the_latest_are_kept(requests, entries):
    cache, encoder = EmbeddingCache(entries * ENTRY_BYTES + ENTRY_BYTES // 2), Encoder()
    recent = []
    for number in requests:
        expected = encoder.calls + (number not in recent[:entries])
        cache.get(str(number), SHAPE, encoder)
        assert encoder.calls == expected
        assert cache.bytes_held <= cache.max_bytes
        recent = [number, *(n for n in recent if n != number)]
    assert cache.bytes_held == ENTRY_BYTES * min(entries, len(recent))


def test_folder_outlives_the_cache(tmp_path):
    encoder = Encoder()
    first = EmbeddingCache(0, tmp_path / "kept").get("a", SHAPE, encoder)
    second = EmbeddingCache(0, tmp_path / "kept").get("a", SHAPE, encoder)
    assert encoder.calls == 1
    assert np.array_equal(first, second)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a.float16.safetensors"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content.replace(b"F16", b"I16"),
        lambda content: save({"other": np.zeros(SHAPE, np.float16)}),
    ],
)
def test_damaged_file_is_computed_again_and_replaced(tmp_path, damage):
    encoder = Encoder()
    EmbeddingCache(0, tmp_path).get("a", SHAPE, encoder)
    file = tmp_path / "a.float16.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    again = EmbeddingCache(0, tmp_path).get("a", SHAPE, encoder)
    assert encoder.calls == 2
    assert np.array_equal(EmbeddingCache(0, tmp_path).get("a", SHAPE, encoder), again)
    assert encoder.calls == 2


def test_files_are_safetensors_of_the_features(tmp_path):
    stored = EmbeddingCache(0, tmp_path).get("a", SHAPE, Encoder())
    tensors = load_file(tmp_path / "a.float16.safetensors")
    assert np.array_equal(tensors["features"], stored)
    assert bytes(tensors["blake2b"]) == hashlib.blake2b(stored.tobytes(), digest_size=32).digest()


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="No space left"):
        EmbeddingCache(0, tmp_path).get("a", SHAPE, Encoder())
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"cache\.folder.*cannot be written"):
        EmbeddingCache(0, tmp_path / "file" / "cache").get("a", SHAPE, Encoder())


def test_key_depends_on_every_pixel_and_on_the_weights():
    pixels = np.zeros((8, 8), np.float32)
    other = pixels.copy()
    other[7, 7] = np.float32(1e-6)
    keys = {embedding_key(pixels, "w"), embedding_key(other, "w"), embedding_key(pixels, "v")}
    assert len(keys) == 3
    assert embedding_key(pixels.copy(), "w") in keys


def test_the_encoder_is_named_by_all_that_changes_features(monkeypatch):
    named = [describe_encoder(*of) for of in (("w", "float32"), ("v", "float32"), ("w", "bfloat16"))]
    named.append(describe_encoder("w", "float32", "transformers"))
    monkeypatch.setattr(feature_cache, "version", lambda name: "99" if name == "torch" else "1")
    named.append(describe_encoder("w", "float32"))
    assert len(set(named)) == 5


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_bfloat16_is_torchs(values):
    exact = np.array(values, np.float32)
    stored = round_features(exact, "bfloat16")
    assert stored.dtype == np.uint16
    assert np.array_equal(restore_features(stored), torch.from_numpy(exact).to(torch.bfloat16).float().numpy())


@pytest.mark.parametrize(("rounding", "error"), [("float32", 0), ("bfloat16", 2**-8)])
def test_other_roundings_are_kept_on_disk(tmp_path, rounding, error):
    encoder = Encoder()
    exact = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    first = EmbeddingCache(0, tmp_path, rounding).get("a", SHAPE, encoder)
    second = EmbeddingCache(0, tmp_path, rounding).get("a", SHAPE, encoder)
    assert encoder.calls == 1
    assert np.array_equal(first, second)
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{rounding}.safetensors"]
    assert (np.abs(restore_features(second) - exact) <= error * np.abs(exact)).all()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOENT])
def test_a_file_that_cannot_be_read_is_computed_again(tmp_path, monkeypatch, number):
    encoder = Encoder()
    EmbeddingCache(0, tmp_path).get("a", SHAPE, encoder)

    def refuse(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    EmbeddingCache(0, tmp_path).get("a", SHAPE, encoder)
    assert encoder.calls == 2


def test_a_damaged_file_that_cannot_be_replaced_names_the_folder(tmp_path, monkeypatch):
    encoder = Encoder()
    EmbeddingCache(0, tmp_path).get("a", SHAPE, encoder)
    (tmp_path / "a.float16.safetensors").write_bytes(b"")

    def refuse(path, missing_ok=False):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ConfigError, match=r"cache\.folder .* cannot be written"):
        EmbeddingCache(0, tmp_path).get("a", SHAPE, encoder)
