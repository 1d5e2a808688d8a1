"""WeightsConverter: what a component offers whose weights come in a form that is converted before use."""

from __future__ import annotations

from abc import ABC, abstractmethod


class WeightsConverter(ABC):
    """Inherited by a component beside its role; ``medvol convert`` finds it by its registered name."""

    @classmethod
    @abstractmethod
    def convert_weights(cls, source: str, folder: str, image_size: int | None = None, download: bool = False) -> str:
        """Write weights of another form as a folder that the component takes and that loads without pickle.

        Args:
            source: A file, or a name of published weights.
            folder: Must not exist.
            image_size: Side of the network's square in pixels, where it can be chosen.
            download: Fetch published weights that are not on this machine.

        Returns:
            SHA-256 of the folder's weights.

        Raises:
            CheckpointError: The source cannot be found or read.
            ConfigError: The folder is there already.
        """
