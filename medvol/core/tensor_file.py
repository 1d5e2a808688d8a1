"""Files of tensors, read without running anything in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from medvol.core.errors import CheckpointError


def read_tensors(path: Path) -> Any:
    """Plain values and tensors of a file that ``torch.save`` wrote, on the CPU.

    Raises:
        OSError: The system does not read it.
        CheckpointError: It is no such file, or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # bytes that are no pickle are followed until anything at all goes wrong
        raise CheckpointError(
            f"{str(path)!r} is not a file of plain values and tensors, and no other is loaded; give another file"
        ) from error
