"""A small Qwen3-VL on disk, and vLLM's stand-in."""

from dataclasses import replace

import fake_vllm
import pytest

from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.policies.vision_language import QwenVLPolicy

TEMPLATE = replace(TINY_TEMPLATE, num_slices=4, height_px=48, width_px=48)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines") / "model"
    TinyPolicy(template=TEMPLATE).save(folder)
    return folder


@pytest.fixture
def make_policy(tiny_folder):
    def make(**settings) -> QwenVLPolicy:
        policy = QwenVLPolicy(str(tiny_folder), **settings)
        policy.load_for_training().eval()
        return policy

    return make


@pytest.fixture
def llm(monkeypatch):
    return fake_vllm.install(monkeypatch)
