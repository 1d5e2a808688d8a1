"""What reads a phrasing as numbers, for the probe of ``unheard_words.py``: layer by layer, one row a phrasing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers import refuse
from transformers import AutoModelForCausalLM, AutoTokenizer

from medvol.core.bundled import BEST
from medvol.core.words import split_words
from medvol.datasets.phantom import PhantomDataset
from medvol.grounding.prompts import build_prompts
from medvol.policies.sentence_encoder import SentenceEncoder
from medvol.policies.tiny import TinyPolicy
from medvol.policies.vlm.packing import Branch, pack_tree

Layers = dict[str, NDArray[np.float64]]

SENTENCE = "In anatomy, {} is called the"
"""A phrasing as a language model of text is asked for its name."""

_ARCHITECTURES, _MOST_NUMBERS = ("llama", "gemma3"), 10**9


def read_all(
    texts: Sequence[str], known: NDArray[np.bool_], encoder: str, files: Sequence[Path]
) -> Iterator[tuple[str, Layers]]:
    """Name and layers of every reader, one after another.

    Args:
        texts: Phrasings.
        known: True for those of training.
        encoder: Sentence encoder.
        files: Language models in GGUF.
    """
    yield "bag of words", {"counts": count_words(texts, known)}
    yield "bundled:best", read_own(texts)
    yield "all-MiniLM-L6-v2", {"mean of tokens": SentenceEncoder(encoder).read(texts).double().numpy()}
    for file in files:
        yield file.stem, read_gguf(texts, file)


def count_words(texts: Sequence[str], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How often each word of training comes in a phrasing, rare words weighing more."""
    taught = [split_words(text) for text, own in zip(texts, known, strict=True) if own]
    words = sorted({word for own in taught for word in own})
    rarity = np.array([np.log(1 + len(taught) / sum(word in own for own in taught)) for word in words])
    return np.array([[split_words(text).count(word) for word in words] for text in texts]) * rarity


@torch.no_grad()
def read_own(texts: Sequence[str]) -> Layers:
    """The bundled policy: mean embedding of a query's tokens, and the state in which it begins its answer.

    The state is that behind one validation phantom.
    """
    network = TinyPolicy(model=BEST).load().eval()
    volume = PhantomDataset("val", 1, seed=7, lesion_share=1.0)[0].volume
    slices = build_prompts(volume, [texts[0]], network.template)[0].slices
    branches = [Branch(network.encode_query(text)) for text in texts]
    row = pack_tree(network.prefix(slices), branches)
    hidden = network.hidden_states([row], network.see([slices]))[0]
    last = [start + len(branch.ids) - 1 for start, branch in zip(row.starts, branches, strict=True)]
    table = network.model.get_input_embeddings().weight
    embedded = torch.stack([table[network.encode(text)].mean(0) for text in texts])
    return {"embeddings": embedded.double().numpy(), "state before the answer": hidden[last].double().numpy()}


@torch.no_grad()
def read_gguf(texts: Sequence[str], file: Path) -> Layers:
    """A language model: mean state of all tokens, and state of the last one, of three layers."""
    judge_gguf(file)
    place: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **place)
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **place).eval()
    depth = model.config.num_hidden_layers
    chosen = (depth // 3, 2 * depth // 3, depth)
    rows: dict[str, list[NDArray[np.float64]]] = {}
    for text in texts:
        ids = tokenizer(SENTENCE.format(text), return_tensors="pt").input_ids
        states = model.model(ids, output_hidden_states=True).hidden_states
        for layer in chosen:
            own = states[layer][0].double().numpy()
            rows.setdefault(f"layer {layer}, mean", []).append(own.mean(0))
            rows.setdefault(f"layer {layer}, last token", []).append(own[-1])
    return {name: np.stack(own) for name, own in rows.items()}


def judge_gguf(file: Path) -> None:
    """Refuse a file that is no language model of a known kind, before its tensors are read."""
    try:
        from gguf import GGUFReader
    except ImportError:
        refuse("--gguf needs the package gguf: pip install gguf")
    if not file.is_file():
        refuse(f"there is no file {file}")
    try:
        reader = GGUFReader(file)
        kind = str(reader.fields["general.architecture"].contents())
    except (ValueError, KeyError, IndexError) as error:
        refuse(f"{file} cannot be read as GGUF: {error}")
    numbers = sum(int(np.prod(tensor.shape)) for tensor in reader.tensors)
    if kind not in _ARCHITECTURES or numbers > _MOST_NUMBERS:
        refuse(
            f"{file} is a {kind!r} model of {numbers:,} numbers; known are {_ARCHITECTURES}, at most {_MOST_NUMBERS:,}"
        )
