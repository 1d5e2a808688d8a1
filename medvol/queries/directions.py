"""Words of a query that name a direction in the body, by the axis that they run along."""

from __future__ import annotations

from medvol.core.words import split_words

DIRECTIONS: dict[str, frozenset[str]] = {
    "LR": frozenset(
        {"left", "right", "leftmost", "rightmost", "side", "sides", "sided", "lateral", "medial", "l", "r"}
        | {"leftsided", "rightsided", "ipsilateral", "contralateral", "lll", "lul", "rll", "rml", "rul"}
    ),
    "AP": frozenset(
        {"front", "back", "foremost", "rear", "rearmost", "hind", "hindmost", "behind", "before"}
        | {"anterior", "posterior", "dorsal", "ventral", "frontal"}
    ),
    "SI": frozenset(
        {"upper", "uppermost", "top", "topmost", "high", "higher", "highest", "above", "over"}
        | {"lower", "lowermost", "bottom", "bottommost", "low", "lowest", "below", "under", "underneath", "beneath"}
        | {"superior", "inferior", "cranial", "caudal", "cephalad", "caudad", "apical", "basal", "basilar"}
        | {"head", "feet", "foot", "downward", "downwards", "upward", "upwards"}
    ),
}
"""``LR`` from side to side, ``AP`` from front to back, ``SI`` along the body; in lower case."""


def find_direction(text: str, axis: str) -> str | None:
    """The first word of a text that names a direction along an axis, in lower case; None without one.

    Args:
        text: A query, or the name of a target.
        axis: ``LR``, ``AP`` or ``SI``.
    """
    return next((word for word in split_words(text) if word in DIRECTIONS[axis]), None)
