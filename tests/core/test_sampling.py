"""Sampling: numbers that draw something."""

import math

import numpy as np
import pytest

from medvol.core.errors import ConfigError
from medvol.core.types import Sampling


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": -1.0},
        {"temperature": 1e-42},
        {"temperature": "hot"},
        {"temperature": True},
        {"max_new_tokens": 0},
        {"max_new_tokens": 2.5},
        {"seed": -1},
        {"seed": None},
    ],
)
def test_what_draws_nothing_is_refused(given) -> None:
    (name,) = given
    with pytest.raises(ConfigError, match=rf"sampling\.{name} is "):
        Sampling(**given)


def test_numbers_of_numpy_are_taken() -> None:
    assert Sampling(np.float32(0.5), np.int64(3), np.int32(1)).max_new_tokens == 3
