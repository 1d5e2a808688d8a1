"""Policies: they read slices and a query and write an answer.

Components are found by name: ``medvol.policies.X`` imports the registered component ``X``.
"""

from medvol.core.registry import POLICIES, lazy_components

__getattr__ = lazy_components(POLICIES)
