"""Counting what is alive: bytes of tensors by hand."""

import numpy as np
import torch

from medvol.planning.live_bytes import LiveBytes


def test_bytes_come_and_go():
    with LiveBytes() as live:
        first = torch.zeros(10, dtype=torch.float32)
        second = torch.zeros(5, dtype=torch.int64)
        assert live.total == 80
        view = first[2:]
        del first
        assert live.total == 80  # the view holds the storage
        del view
        assert live.total == 40
        assert live.peak.total == 80
        live.begin()
        third = second + 1
        assert (live.total, live.peak.total) == (80, 80)
        del second, third
    assert live.total == 0


def test_parts_are_named_and_renamed():
    with LiveBytes() as live:
        with live.naming("a"):
            first = torch.zeros(4)
        with live.naming("b"):
            second = first * 2
        assert live.peak.parts == {"a": 16, "b": 16}
        live.rename(second, "c")
        assert {name: size for name, size in live.parts.items() if size} == {"a": 16, "c": 16}
        del second
        assert live.parts["c"] == 0


def test_what_numpy_holds_is_not_counted():
    array = np.zeros(100, np.float32)
    with LiveBytes() as live:
        tensor = torch.from_numpy(array)
        live.ignore(tensor)
        halves = tensor[:50]
        assert live.total == 0
        more = halves + 1
        assert live.total == 200
        del tensor, halves, more
    assert live.total == 0


def test_a_backward_pass_is_seen():
    """The gradient of a product keeps both factors; of a sum nothing."""
    left, right = torch.ones(100, requires_grad=True), torch.ones(100, requires_grad=True)
    with LiveBytes() as live:
        product = left * right
        kept = live.total
        product.sum().backward()
        assert kept == 400
        assert live.total == 400 + 800  # both gradients
