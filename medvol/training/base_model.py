"""The model that training started from, as far as its own card tells: its public name and its licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache

from medvol.core.bundled import model_folder
from medvol.core.roles import TrainablePolicy

CARD_FILE = "README.md"

_MAX_BYTES = 1_000_000
_FENCE = "---\n"


@dataclass(frozen=True)
class BaseModel:
    """A model in a few words; no path of this machine is among them.

    Args:
        name: ``owner/name`` on the hub, or the name of a folder.
        licence: As its card states it; empty where that is not known.
    """

    name: str
    licence: str = ""

    @property
    def published(self) -> bool:
        """True when the name is one of the hub."""
        return self.name.count("/") == 1


def find_base(policy: TrainablePolicy) -> BaseModel | None:
    """The published model behind a policy, or the folder that it was read from; None for one from random weights.

    A folder that was trained here names what it started from itself, so a chain of runs ends at its beginning.
    """
    model = getattr(policy, "model", None)
    if not isinstance(model, str | Path):
        return None
    folder = model_folder(model)
    if not folder.is_dir():
        cached = try_to_load_from_cache(str(model), CARD_FILE) if str(model).count("/") == 1 else None
        return BaseModel(str(model), _text(_read_front(Path(cached)), "license") if isinstance(cached, str) else "")
    front = _read_front(folder / CARD_FILE)
    if front.get("library_name") in ("medvol", "peft"):
        name = _text(front, "base_model")
        return BaseModel(name, _text(front, "base_license")) if name else None
    return BaseModel(folder.resolve().name, _text(front, "license"))


def read_licence(card: Path) -> str:
    """The licence that a card states; empty where it states none."""
    return _text(_read_front(card), "license")


def _read_front(card: Path) -> dict[str, Any]:
    """Front matter of a card; nothing where it has none, or is damaged."""
    try:
        if card.stat().st_size > _MAX_BYTES:
            return {}
        text = card.read_text(encoding="utf-8")
        front = yaml.safe_load(text.split(_FENCE, 2)[1]) if text.startswith(_FENCE) else None
    except (OSError, ValueError, IndexError, yaml.YAMLError, RecursionError):
        return {}
    return front if isinstance(front, dict) else {}


def _text(front: dict[str, Any], key: str) -> str:
    found = front.get(key)
    return found[:100] if isinstance(found, str) and found != "unknown" else ""
