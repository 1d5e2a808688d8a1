"""Frozen parts compute in the precision of their own settings, whichever one a trainer runs in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_DEVICES = ("cpu", "cuda")


@contextmanager
def own_precision() -> Iterator[None]:
    """Switch the autocast of a trainer off for the length of the block.

    Inside of it a network that says float32 would compute in bfloat16, and keep such features as those of float32.
    """
    torch: Any = sys.modules.get("torch")
    with ExitStack() as switched:
        for device in _DEVICES if torch is not None else ():  # where nobody has imported it there is no autocast
            if torch.is_autocast_enabled(device):
                switched.enter_context(torch.autocast(device, enabled=False))
        yield
