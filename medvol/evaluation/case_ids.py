"""Ids of cases, by which scores, masks and answers are told apart."""

from __future__ import annotations

from collections.abc import Container

from medvol.core.errors import DatasetError


def require_new(case_id: str, known: Container[str]) -> None:
    """Refuse a second case of one id, so that neither takes the place of the other.

    Args:
        case_id: Of the case that comes.
        known: Ids of the cases that came before.

    Raises:
        DatasetError: There is one of this id.
    """
    if case_id in known:
        raise DatasetError(f"several cases have the id {case_id!r}; ids must be unique within a data set")
