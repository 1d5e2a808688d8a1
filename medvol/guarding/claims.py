"""What a reward says of itself: what it reads, how far it reads the mask, and what it judges."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, get_args

from medvol.core.containment import say
from medvol.core.errors import InvalidComponentError
from medvol.core.roles import Aspect, Need, RewardTerm
from medvol.guarding.guard import guarded
from medvol.guarding.promises import BreachError


@dataclass(frozen=True)
class Claims:
    """What a reward says of itself; see ``RewardTerm``.

    Args:
        needs: What it reads.
        judges: Aspects in which a worse answer has to score less; None leaves them to what it reacts to.
        mask_delta: Slices beside the key slice in which it reads the mask; None for the whole volume.
    """

    needs: frozenset[Need]
    judges: frozenset[Aspect] | None
    mask_delta: int | None


def read_claims(term: RewardTerm) -> Claims:
    """Ask a reward for its ``needs``, ``judges`` and ``mask_delta``.

    Raises:
        InvalidComponentError: One of them is something else than the role says, or asking for it failed.
    """
    with guarded(term, InvalidComponentError):
        judges: object = term.judges
        return Claims(
            needs=_read_set("needs", term.needs, Need),
            judges=None if judges is None else _read_set("judges", judges, Aspect),
            mask_delta=_read_delta(term.mask_delta),
        )


def _read_set(name: str, said: object, known: Any) -> frozenset[Any]:
    words = get_args(known)
    if not (isinstance(said, set | frozenset) and said <= set(words)):
        raise BreachError(f"has {name} {say(said)}; it is a frozenset out of {', '.join(words)}")
    return frozenset(said)


def _read_delta(said: object) -> int | None:
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, Integral) or said < 0:
        raise BreachError(f"has the mask_delta {say(said)}; it is a whole number of slices, 0 or more, or None")
    return int(said)
