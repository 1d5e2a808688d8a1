"""Files of tensors, read without running anything in them and judged before they are used."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from medvol.core.errors import CheckpointError

MAX_DEPTH = 64
"""Values that are nested deeper than this are not settings."""

MAX_VALUES = 200_000
"""Most values beside the tensors' own; one that is named twice counts twice."""

_PLAIN = (bool, int, float, complex, str, bytes, torch.Tensor, torch.Size, torch.dtype, torch.device, type(None))


def read_tensors(path: Path) -> Any:
    """Plain values and tensors of a file that ``torch.save`` wrote, on the CPU.

    ``weights_only`` is given here, so that no environment variable turns it off.

    Raises:
        OSError: The system does not read it.
        CheckpointError: It is no such file, holds anything else, or claims more than it holds.
    """
    _require_stored(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # bytes that are no pickle are followed until anything at all goes wrong
        raise CheckpointError(
            f"{str(path)!r} is not a file of plain values and tensors, and no other is loaded; give another file"
        ) from error
    _judge(content, path)
    return content


def _require_stored(path: Path) -> None:
    """Refuse an archive whose members grow when they are read; ``torch.save`` compresses nothing."""
    if not path.is_file():
        return  # the system says what it is
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        if _begins_as_archive(path):  # torch reads more kinds of archives than can be judged here
            raise CheckpointError(
                f"{str(path)!r} is not a file of plain values and tensors but a damaged archive; copy or make it again"
            ) from error
        return  # not an archive: torch says what it is
    size = path.stat().st_size
    if sum(member.file_size for member in members) > size or any(member.compress_type for member in members):
        raise CheckpointError(
            f"{str(path)!r} is compressed, or claims more bytes than its {size}; torch.save writes no such file, "
            "so copy or make it again"
        )


def _begins_as_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _judge(content: Any, path: Path) -> None:
    """Walk through all values once: plain, not endless, and every tensor as large as its shape says."""
    waiting = [(content, 0)]
    seen = 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_VALUES:
            raise CheckpointError(
                f"{str(path)!r} holds more than {MAX_VALUES:,} values, or nests them more than {MAX_DEPTH} deep; "
                "give another file"
            )
        if isinstance(value, torch.Tensor):
            _judge_tensor(value, path)
        elif isinstance(value, dict):
            waiting += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(item, depth + 1) for item in value]
        elif not isinstance(value, _PLAIN):
            raise CheckpointError(
                f"{str(path)!r} holds a {type(value).__name__}; only plain values and tensors are read"
            )


def _judge_tensor(tensor: torch.Tensor, path: Path) -> None:
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise CheckpointError(
            f"{str(path)!r} holds a tensor of {tensor.layout} on {tensor.device}; only ordinary tensors are read"
        )
    held = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > held:
        raise CheckpointError(
            f"{str(path)!r} holds a tensor of shape {tuple(tensor.shape)} in {held} bytes; "
            "the file is damaged or made up, give another"
        )
