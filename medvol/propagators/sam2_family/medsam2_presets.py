"""Published weights by name, with their licences; naming one downloads nothing by itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass

_MEDSAM2_TERMS = (
    "the model card of wanglab/MedSAM2 is reported to say CC BY-SA 4.0 and research and education only; read it before "
    "any other use"
)
_SAM2_TERMS = "Apache-2.0"
_LOG = logging.getLogger(__name__)
_told: set[str] = set()


@dataclass(frozen=True)
class Preset:
    """Weights that somebody published.

    Args:
        repository: Where they lie on the Hugging Face hub.
        file: Upstream checkpoint in it.
        image_size: Side of the square that the network reads, in pixels.
        licence: Terms of the weights.
        trained_on: What they are for.
    """

    repository: str
    file: str
    image_size: int
    licence: str
    trained_on: str


def _medsam2(file: str, trained_on: str) -> Preset:
    return Preset("wanglab/MedSAM2", file, 512, _MEDSAM2_TERMS, trained_on)


def _sam2(size: str) -> Preset:
    file = f"sam2.1_hiera_{size.replace('-', '_')}.pt"
    return Preset(f"facebook/sam2.1-hiera-{size}", file, 1024, _SAM2_TERMS, "natural video")


PRESETS = {
    "MedSAM2_latest": _medsam2("MedSAM2_latest.pt", "all public sets and new annotations; recommended upstream"),
    "MedSAM2_2411": _medsam2("MedSAM2_2411.pt", "the base model of November 2024, used by MedVol-R1"),
    "MedSAM2_CTLesion": _medsam2("MedSAM2_CTLesion.pt", "CT lesions"),
    "MedSAM2_MRI_LiverLesion": _medsam2("MedSAM2_MRI_LiverLesion.pt", "liver lesions in MR"),
    "MedSAM2_RECIST": _medsam2("medsam2_FLARE25_RECIST_baseline.pt", "lesions from RECIST marks, FLARE 2025"),
    "SAM2.1_tiny": _sam2("tiny"),
    "SAM2.1_small": _sam2("small"),
    "SAM2.1_base_plus": _sam2("base-plus"),
    "SAM2.1_large": _sam2("large"),
}


def show_licence(name: str) -> None:
    """Log the terms of a preset's weights, once a process."""
    if name not in _told:
        _told.add(name)
        _LOG.warning("weights %s (%s): %s", name, PRESETS[name].repository, PRESETS[name].licence)
