"""A published folder of every family, written once, and how plain transformers and medvol open it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from small_families import FAMILIES, MAKERS, write_family

from medvol.core.prompts import PromptTemplate
from tests.policies.families.parity import Opened, open_both

Published = tuple[Path, PromptTemplate]
"""A published folder, and the template of a prompt whose slices need no resizing."""


@pytest.fixture(scope="session")
def publish(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Published]:
    """Write the folder of a family, the first time that it is asked for."""

    @cache
    def write(name: str) -> Published:
        family = MAKERS[name]()
        return write_family(tmp_path_factory.mktemp("published") / "model", family), family.template

    return write


@pytest.fixture(scope="module", params=FAMILIES)
def published(request: pytest.FixtureRequest, publish: Callable[[str], Published]) -> Published:
    """Every family, with a vocabulary made here."""
    return publish(request.param)


@pytest.fixture(scope="module", params=list(MAKERS))
def opened(request: pytest.FixtureRequest, publish: Callable[[str], Published]) -> Opened:
    """Every family, some also with the vocabulary and image size of their published models."""
    return open_both(*publish(request.param))
