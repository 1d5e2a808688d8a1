"""A whole number of batches stays one, whatever was imported before."""

from typing import Optional, Union

import pytest
from jsonargparse import ArgumentParser

from medvol.cli.settings import prefer_whole_numbers


@pytest.mark.parametrize("order", [Union[int, float, None], Union[float, int, None], Optional[Union[float, int]]])  # noqa: UP007, UP045
@pytest.mark.parametrize(("written", "read"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("12", 12), ("null", None)])
def test_one_batch_is_not_all_of_them(order: object, written: str, read: float | None) -> None:
    parser = ArgumentParser()
    parser.add_argument("--limit", type=order)
    prefer_whole_numbers(parser)
    found = parser.parse_args([f"--limit={written}"]).limit
    assert (found, type(found)) == (read, type(read))
