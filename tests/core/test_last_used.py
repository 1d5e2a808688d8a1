"""The cache of the values used last."""

import pickle

from medvol.core.last_used import LastUsed


def test_keeps_the_values_used_last():
    made = []

    def make(key):
        return lambda: made.append(key) or key.upper()

    cache = LastUsed(2)
    assert [cache.get(key, make(key)) for key in "abacab"] == list("ABACAB")
    assert made == ["a", "b", "c", "b"]


def test_keeps_at_least_one_value():
    cache = LastUsed(0)
    value = cache.get("a", object)
    assert cache.get("a", object) is value


def test_travels_empty():
    cache = LastUsed(3)
    cache.get("a", lambda: 1)
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.size == 3
    assert copy.get("a", lambda: 2) == 2
