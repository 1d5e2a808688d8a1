"""Where the completions of a training step come from. Engines are found by name; none of them imports another."""

from __future__ import annotations

from medvol.core.registry import ENGINES, lazy_components

__all__: list[str] = []
__getattr__ = lazy_components(ENGINES)
