"""Bytes of a propagator's weights, which lie beside the policy while it is trained."""

from __future__ import annotations

from medvol.core.devices import AUTO
from medvol.core.roles import Propagator
from medvol.planning.shadow import Device

_SIZES = {"tiny": 39_000_000, "small": 46_000_000, "base_plus": 81_000_000, "large": 224_000_000}
"""Weights of SAM 2.1 by size, as its authors state them; MedSAM2 is of the tiny size."""

_LITE = 10_000_000
"""Weights of LiteMedSAM."""


def count_propagator(propagator: Propagator, device: Device, assumptions: list[str]) -> int:
    """Bytes of the weights, in float32; 0 where they lie on another device than the policy.

    Args:
        propagator: Of the experiment.
        device: Of the policy.
        assumptions: Gets a sentence where the weights of a propagator are not known.
    """
    name = type(propagator).__name__
    where = getattr(propagator, "device", "cpu")
    if (device if where == AUTO else where) == "cpu":
        return 0
    if name == "LiteMedSAMPropagator":
        return 4 * _LITE
    if name in ("MedSAM2Propagator", "SAM2Propagator"):
        checkpoint = str(getattr(propagator, "checkpoint", ""))
        size = next((number for key, number in _SIZES.items() if key in checkpoint), _SIZES["tiny"])
        assumptions.append("the propagator works while nothing else does; of its memory the weights are counted alone")
        return 4 * size
    assumptions.append(f"the weights of {name} are not known and not counted")
    return 0
