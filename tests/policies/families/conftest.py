"""A published folder of every family, as plain transformers and as medvol opens it, and prompts for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_families import MAKERS, write_family
from transformers import AutoModelForImageTextToText, AutoProcessor

from medvol.core.prompts import Prompt
from medvol.policies.vision_language import VisionLanguagePolicy
from tests.policies.conftest import ask


@pytest.fixture(scope="module", params=list(MAKERS))
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A published folder, and the prompt whose slices need no resizing."""
    family = MAKERS[request.param]()
    return write_family(tmp_path_factory.mktemp("published") / "model", family), family.template


@pytest.fixture(scope="module")
def plain(published: tuple[Path, Any]) -> tuple[Any, Any]:
    """Model and processor as plain transformers opens them."""
    folder, _ = published
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def policy(published: tuple[Path, Any]) -> VisionLanguagePolicy:
    folder, template = published
    made = VisionLanguagePolicy(str(folder), template=template)
    made.load().eval()
    return made


@pytest.fixture(scope="module")
def prompts(policy: VisionLanguagePolicy) -> list[Prompt]:
    """Prompts whose slices hold bytes, as a picture does."""
    drawn: dict[int, Any] = {}
    for prompt in (asked := ask(policy.template)):
        pixels = np.round(prompt.slices.pixels * 255).astype(np.float32) / np.float32(255)
        drawn.setdefault(id(prompt.slices), replace(prompt.slices, pixels=pixels))
    return [replace(prompt, slices=drawn[id(prompt.slices)]) for prompt in asked]
