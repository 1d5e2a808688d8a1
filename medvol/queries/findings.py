"""Which names of targets speak of a finding: a growth of which a scan may show several."""

from __future__ import annotations

import re

_GROWTH = re.compile(
    r"(?<![^\W_])(tumou?r|cancer|cyst|lesion|metastas[ie]s|nodule|mass)(s|es)?(?![^\W_])", re.IGNORECASE
)
"""A whole word, also between the underscores of ``liver_tumor``."""


def find_growth(name: str) -> str:
    """The word for a growth in the name of a target, in lower case and singular; empty where there is none."""
    growth = _GROWTH.search(name)
    return "" if growth is None else re.sub("ases$", "asis", growth[1].lower())
