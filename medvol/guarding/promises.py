"""What each role promises to return, and what is said when it returns something else."""

from __future__ import annotations

import math
from dataclasses import fields
from itertools import combinations
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from medvol.core.containment import say
from medvol.core.types import Case, Completion, Query, Volume

Mask = NDArray[np.bool_]

_ROUNDING = 1e-9
"""A sum of floats may leave [0, 1] by this much; it is brought back."""


class BreachError(Exception):
    """What a component returned is not what its role promises; the message goes on after the component's name."""


def read_answers(rows: object, count: int, n: int) -> list[list[Completion]]:
    """``n`` completions for each of ``count`` prompts."""
    promise = f"generate returns {count} list{'s'[: count > 1]} of {n} completion{'s'[: n > 1]}, one a prompt"
    if not isinstance(rows, list | tuple) or len(rows) != count:
        raise BreachError(f"returned {form_of(rows)}; {promise}")
    for row in rows:
        if not isinstance(row, list | tuple) or len(row) != n:
            raise BreachError(f"returned {form_of(row)} for a prompt; {promise}")
        for completion in row:
            _check_completion(completion)
    return [list(row) for row in rows]


def _check_completion(completion: object) -> None:
    if not isinstance(completion, Completion):
        raise BreachError(
            f"returned {form_of(completion)} where a Completion belongs; wrap the text in medvol.Completion"
        )
    text, ids, scores = completion.text, completion.token_ids, completion.log_probs
    if not isinstance(text, str):
        raise BreachError(f"returned a completion whose text is {form_of(text)}; it is a str")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BreachError(f"returned a text that is no Unicode, {say(text)}; decode it with errors='replace'") from None
    if not (isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind in "iu"):
        raise BreachError(f"returned a completion whose token_ids are {form_of(ids)}; they are int64 of shape (T,)")
    if scores is not None and not (
        isinstance(scores, np.ndarray) and scores.shape == ids.shape and scores.dtype.kind == "f"
    ):
        raise BreachError(
            f"returned a completion whose log_probs are {form_of(scores)}; they are one float a token, or None"
        )


def own_masks(masks: object, count: int, volume: Volume) -> list[Mask]:
    """One mask for each anchor, copied: a propagator may write to what it handed out when it is called again."""
    if not isinstance(masks, list | tuple) or len(masks) != count:
        raise BreachError(
            f"returned {form_of(masks)} for {count} anchors; propagate_many returns one mask each in a list"
        )
    for mask in masks:
        if not isinstance(mask, np.ndarray) or mask.shape != volume.shape or mask.dtype != np.bool_:
            raise BreachError(
                f"returned {form_of(mask)}; a mask is a NumPy array of bool of shape {volume.shape}: run "
                "medvol.testing.check_propagator on it"
            )
    if any(np.may_share_memory(one, other) for one, other in combinations(masks, 2)):
        raise BreachError(
            "returned one array for several anchors, which holds the last mask alone; return a new one each"
        )
    return [np.array(mask, subok=False) for mask in masks]


def read_case(case: object, index: int) -> Case:
    """A case of the right form."""
    wrong = _wrong_in_case(case)
    if wrong or not isinstance(case, Case):
        raise BreachError(f"gave as case {index} {wrong}; run medvol.testing.check_dataset on it")
    return case


def _wrong_in_case(case: object) -> str:
    """What is wrong with a case; empty when nothing is."""
    if not isinstance(case, Case):
        return f"{form_of(case)}, not a Case"
    for name, value, kind in (
        ("volume", case.volume, Volume),
        ("query", case.query, Query),
        ("text", getattr(case.query, "text", None), str),
        ("case_id", case.case_id, str),
        ("patient_id", case.patient_id, str),
    ):
        if not isinstance(value, kind):
            return f"a Case whose {name} is {form_of(value)}, which is a {kind.__name__}"
    voxels = vars(case.volume).get("voxels")  # one that is still on disk is not read for this
    fine = isinstance(voxels, np.ndarray) and voxels.ndim == 3 and voxels.dtype in (np.float32, np.float64)
    if voxels is not None and not fine:
        return f"a Case whose voxels are {form_of(voxels)}, which are float32 (Z, Y, X)"
    return _wrong_in_arrays(case)


def _wrong_in_arrays(case: Case) -> str:
    """What is wrong with the target of a case, and with the maps that a kind of case adds; empty when nothing is."""
    shape = case.volume.shape
    for field in fields(case):
        value = getattr(case, field.name)
        if field.name == "target":
            if value is not None and not (_is_map(value, shape) and value.dtype == np.bool_):
                return f"a Case whose target is {form_of(value)}, which is None or bool of the volume's shape {shape}"
        elif isinstance(value, np.ndarray) and value.ndim == 3 and not _is_map(value, shape):
            return f"a Case whose {field.name} is {form_of(value)}, which holds numbers of the volume's shape {shape}"
    return ""


def _is_map(value: object, shape: tuple[int, ...]) -> bool:
    return isinstance(value, np.ndarray) and value.shape == shape and value.dtype.kind in "biuf"


def read_score(score: object) -> float:
    """A score in [0, 1]."""
    number = isinstance(score, Real) and not isinstance(score, bool)
    value = float(score) if number and isinstance(score, Real) else math.nan
    if not -_ROUNDING <= value <= 1 + _ROUNDING:  # false for NaN too
        raise BreachError(
            f"scored {form_of(score)}, and scores are numbers in [0, 1]; run medvol.testing.check_reward on it"
        )
    return min(max(value, 0.0), 1.0)


def form_of(value: object) -> str:
    """What something is, without what it holds."""
    if isinstance(value, np.ndarray):
        return f"a NumPy array of {value.dtype} of shape {value.shape}"
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return say(value)
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict) else ""
    return f"a {type(value).__name__}{size}"
