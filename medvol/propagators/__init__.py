"""Propagators: they turn an evidence anchor into a 3D mask.

Components are found by name: ``medvol.propagators.X`` imports the registered component ``X``.
"""

from medvol.core.registry import PROPAGATORS, lazy_components

__getattr__ = lazy_components(PROPAGATORS)
