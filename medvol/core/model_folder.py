"""Model folders: written as a whole, and judged before any library opens them.

A folder may come from anywhere. Its JSON is read with bounds, its weights are measured by their headers alone, and
nothing in it may name a file outside, code, or another model. A folder that medvol wrote also lists the SHA-256 of its
files, so that one number changed in its configuration does not go unnoticed.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from medvol.core.atomic_files import write_whole_folder
from medvol.core.errors import CheckpointError
from medvol.core.json_file import parse_json
from medvol.core.sidecar import SIDECAR, require_seal, write_sidecar
from medvol.core.training_data import TrainingData, write_training_data

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"

_INDEX = "model.safetensors.index.json"
_WEIGHTS = ".safetensors"
_MAX_TEXT = 128 * 1024**2
_MAX_HEADER = 100 * 1024**2
_MAX_CONFIG = 2 * 1024**2
_MAX_TENSORS = 10_000
_MAX_AXES = 8
_DTYPE_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
"""Kinds of numbers that weights are; others would be turned into these without a word."""
_FOREIGN = {
    ADAPTER_CONFIG: "adapters on another model; merge them into one folder first",
    "quantization_config": "quantised weights, which are not run here; give the model in bfloat16 or float32",
}


def write_model_folder(
    folder: Path,
    write_weights: Callable[[Path], None],
    spec: Mapping[str, Any],
    template: Mapping[str, Any],
    training_data: TrainingData | None,
) -> None:
    """Write a model folder under a temporary name, then rename it.

    Args:
        folder: An older model folder of that name is replaced.
        write_weights: Writes the policy's own files.
        spec: The policy, with the settings that open the folder again.
        template: Layout of its prompts, as plain values.
        training_data: What the weights were trained on; nothing is written of it when None.

    Raises:
        CheckpointError: There is something of that name that is no model folder.
    """
    require_replaceable(folder)
    with write_whole_folder(folder) as partial:
        write_weights(partial)
        if training_data is not None:
            write_training_data(partial, training_data)
        write_sidecar(partial, {"policy": spec, "template": template})


def require_replaceable(folder: Path) -> None:
    """Refuse to replace what is no model folder.

    Raises:
        CheckpointError: There is something else of that name.
    """
    if folder.exists() and not is_model_folder(folder):
        raise CheckpointError(f"{str(folder)!r} is there already and is no model folder; choose another folder")


def is_model_folder(folder: Path) -> bool:
    """Whether a folder looks like one, whatever its files hold."""
    return any((folder / mark).is_file() for mark in (CONFIG, SIDECAR))


def judge_folder(folder: Path, weights: bool = True) -> dict[str, Any]:
    """Look at a model folder without loading it.

    Args:
        folder: The folder.
        weights: False where its weights are not wanted and may be absent.

    Returns:
        Its ``config.json``.

    Raises:
        CheckpointError: Something in it is damaged, is not what its name says, or reaches outside the folder.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{str(folder)!r} is not a model folder: it has no {CONFIG}")
    texts: dict[str, Any] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", _WEIGHTS):
            if not stat.S_ISREG(file.stat().st_mode):
                raise CheckpointError(f"{str(file)!r} is not a file; a model folder holds files only")
            if file.suffix == ".json":
                texts[file.name] = _read(file)
    if ADAPTER_CONFIG in texts:
        raise CheckpointError(f"{str(folder)!r} holds {_FOREIGN[ADAPTER_CONFIG]}")
    config = texts[CONFIG]
    if not isinstance(config, dict):
        raise CheckpointError(f"{str(folder / CONFIG)!r} holds no keys and values; give another folder")
    _judge_config(config, folder / CONFIG)
    if not weights:
        _judge_depth(config, folder, _MAX_TENSORS)
        return config
    _judge_weights(folder, texts.get(_INDEX))
    _judge_depth(config, folder, sum(len(_header(file)) for file in sorted(folder.glob(f"*{_WEIGHTS}"))))
    require_seal(folder, texts.get(SIDECAR))
    return config


def count_numbers(folder: Path) -> int:
    """Numbers that the weights of a folder hold, by their headers."""
    return sum(prod(entry["shape"]) for file in sorted(folder.glob(f"*{_WEIGHTS}")) for entry in _header(file).values())


def _read(file: Path) -> Any:
    size, most = file.stat().st_size, _MAX_CONFIG if file.name == CONFIG else _MAX_TEXT
    if size > most:
        raise CheckpointError(f"{str(file)!r} has {size} bytes, and at most {most} are read; give another folder")
    try:
        return parse_json(file.read_text(encoding="utf-8"), repeats=True)  # as transformers reads it
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{str(file)!r} cannot be read as JSON ({error}); copy the folder again") from error


def _judge_config(config: Mapping[str, Any], place: Path) -> None:
    for key, value in _settings(config):
        if key == "quantization_config" and value is not None:
            raise CheckpointError(f"{str(place)!r} names {_FOREIGN[key]}")
        if key == "transformers_weights" and value is not None:
            raise CheckpointError(f"{str(place)!r} names other weights under {key}; remove it")
        if key.endswith("implementation") and value is not None and not re.fullmatch(r"\w+", str(value)):
            raise CheckpointError(f"{str(place)!r} sets {key} to {str(value)[:80]!r}, which would load code; remove it")


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key with its value, those of nested parts too."""
    for key, value in config.items():
        yield key, value
        if isinstance(value, dict):
            yield from _settings(value)


def _judge_weights(folder: Path, index: Any) -> None:
    """Every shard is named plainly and there, and every header fits its file."""
    if index is not None:
        named = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise CheckpointError(f"{str(folder / _INDEX)!r} has no weight_map of file names; copy the folder again")
        for name in sorted(set(named.values())):
            if Path(name).name != name or "\\" in name or not (folder / name).is_file():
                raise CheckpointError(f"{str(folder / _INDEX)!r} names the file {name!r}, which is not in the folder")
        _hold_to_index(folder, named)


def _judge_depth(config: Mapping[str, Any], folder: Path, tensors: int) -> None:
    """No part has more layers than there are tensors."""
    for key, value in _settings(config):
        if re.fullmatch(r"(num|n)_\w*layers|depth", key) and isinstance(value, int) and value > max(tensors, 1):
            raise CheckpointError(
                f"{str(folder / CONFIG)!r} sets {key} to {str(value)[:20]}, and the folder holds {tensors} tensors"
            )


def _hold_to_index(folder: Path, named: Mapping[str, str]) -> None:
    """Every tensor lies in the one shard that the index names for it: of two, either could be taken."""
    for name in sorted(set(named.values())):
        for tensor in _header(folder / name):
            if named.get(tensor) != name:
                raise CheckpointError(
                    f"{str(folder / name)!r} holds the tensor {tensor[:80]!r}, which {_INDEX} does not look for there"
                )


def _header(file: Path) -> dict[str, Any]:
    """Tensors of a safetensors file by name: type, shape and place, held to the size of the file."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise CheckpointError(f"{str(file)!r} is cut or is no safetensors file; copy it again")
        text = stream.read(length)
    try:
        header = parse_json(text.decode("utf-8"))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        sound = len(entries) <= _MAX_TENSORS and all(_is_sound(entry, size - 8 - length) for entry in entries.values())
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise CheckpointError(f"{str(file)!r} has a damaged header; copy it again") from error
    if not sound:
        raise CheckpointError(
            f"{str(file)!r} names tensors that its {size} bytes do not hold, or that are no floating-point numbers, or "
            f"more than {_MAX_TENSORS:,}; copy it again"
        )
    return entries


def _is_sound(entry: Mapping[str, Any], available: int) -> bool:
    first, last = entry["data_offsets"]
    shape = entry["shape"]
    if len(shape) > _MAX_AXES or not all(type(value) is int and 0 <= value < 2**63 for value in (first, last, *shape)):
        return False
    bits = _DTYPE_BITS.get(entry["dtype"])
    return bits is not None and first <= last <= available and prod(shape) * bits == (last - first) * 8
