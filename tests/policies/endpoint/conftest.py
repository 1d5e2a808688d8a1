"""A policy that asks a server of the test, and prompts about one small volume."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer

from medvol.core.prompts import Prompt, PromptTemplate
from medvol.grounding.prompts import build_prompts
from medvol.imaging.geometry import make_volume
from medvol.policies.endpoint import EndpointPolicy
from medvol.policies.endpoint_parts.settings import RequestSettings

TEMPLATE = PromptTemplate(num_slices=3, height_px=8, width_px=16, instruction="box the target")

Connect = Callable[..., EndpointPolicy]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a key."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def prompts() -> list[Prompt]:
    """Three queries about one volume of four slices."""
    voxels = np.random.default_rng(0).normal(0, 200, (4, 30, 40)).astype(np.float32)
    return build_prompts(make_volume(voxels, (5, 1, 1)), ["the liver", "the spleen", "the cube"], TEMPLATE)


@pytest.fixture
def connect() -> Connect:
    """A policy that asks a server; further settings are those of its requests, which are not tried again."""

    def make(server: ChatServer, requests: dict[str, Any] | None = None, **settings: Any) -> EndpointPolicy:
        limits = RequestSettings(**{"retries": 0, "timeout_s": 20.0, **(requests or {})})
        return EndpointPolicy(server.url, "served/model", **{"template": TEMPLATE, "requests": limits, **settings})

    return make
