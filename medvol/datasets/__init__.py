"""Data sets: they yield cases.

Components are found by name: ``medvol.datasets.X`` imports the registered component ``X``.
"""

from medvol.core.registry import DATASETS, lazy_components

__getattr__ = lazy_components(DATASETS)
