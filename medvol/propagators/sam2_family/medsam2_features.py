"""Features of one volume's slices, from the cache or the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medvol.propagators.feature_cache import EmbeddingCache, embedding_key, restore_features
from medvol.propagators.sam2_family.medsam2_network import TrackerNetwork
from medvol.propagators.sam2_family.square_slices import SquareSlices


class TrackerFeatures:
    """Features of one volume in one window.

    Args:
        slices: The volume in that window.
        network: Encodes what the cache does not hold.
        cache: Holds features by the content of their slices.
        encoder: Weights, arithmetic and library versions, see ``describe_encoder``.
    """

    def __init__(self, slices: SquareSlices, network: TrackerNetwork, cache: EmbeddingCache, encoder: str) -> None:
        self._slices = slices
        self._network = network
        self._cache = cache
        self._encoder = encoder
        self._keys: dict[int, str] = {}

    def row(self, z: int) -> NDArray[np.float32]:
        """Features of a slice as one row of numbers, rounded as the cache stores them.

        Raises:
            ValueError: The slice holds values that are not finite.
        """
        if z not in self._keys:
            self._keys[z] = embedding_key(self._slices.pixels(z).astype(np.float32), self._encoder)
        shape = (self._network.feature_length,)
        stored = self._cache.get(self._keys[z], shape, lambda: self._network.encode(self._slices.pixels(z)))
        return restore_features(stored)
