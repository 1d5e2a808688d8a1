"""SmolVLM2's processor: it makes slices large, and wants a library of its own."""

from types import SimpleNamespace

import pytest
import torch
from transformers import SmolVLMImageProcessor

from medvol.core.errors import MissingExtraError
from medvol.policies.families.smolvlm import SmolVLMNetwork
from medvol.policies.vision_language import VisionLanguagePolicy
from medvol.policies.vlm import families


def test_slices_are_enlarged_a_few_at_a_time(monkeypatch):
    """Each is 2,048 px large on its way, with the sizes that were published."""
    images = SmolVLMImageProcessor(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512})
    given: list[int] = []
    preprocess = images._preprocess
    note = lambda stacks, **more: given.append(len(stacks[0])) or preprocess(stacks, **more)  # noqa: E731
    monkeypatch.setattr(images, "_preprocess", note)
    network = object.__new__(SmolVLMNetwork)
    torch.nn.Module.__init__(network)
    network.processor = SimpleNamespace(image_processor=images)
    slices = torch.rand(6, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    found = network.prepare(slices)
    assert given == [4, 2]
    whole = super(SmolVLMNetwork, network).prepare(slices)
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[key], whole[key]) for key in whole)
    assert found["pixel_values"].shape == (1, 6, 3, 512, 512)


def test_a_missing_library_is_named_before_anything_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "smolvlm"}')
    monkeypatch.setattr(families, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'num2words.*pip install "medvol-r1\[smolvlm\]"'):
        VisionLanguagePolicy(str(tmp_path)).require_ready()
