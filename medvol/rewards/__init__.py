"""Reward terms: they score one rollout against its case.

Components are found by name: ``medvol.rewards.X`` imports the registered component ``X``.
"""

from medvol.core.registry import REWARDS, lazy_components

__getattr__ = lazy_components(REWARDS)
