"""Every family against plain transformers: its own processor, ``generate``, and one sequence at a time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_families import FAMILIES, MAKERS, write_family
from transformers import AutoModelForImageTextToText, AutoProcessor

from medvol.core.errors import CheckpointError
from medvol.core.prompts import Prompt
from medvol.core.types import Completion, Sampling
from medvol.policies.vision_language import QwenVLPolicy, VisionLanguagePolicy
from medvol.policies.vlm.families import family_names
from tests.policies.conftest import ask

ANSWERS = ('<think>a bright organ</think><answer>[{"slice": 3, "bbox_2d_list": [[20, 40, 58, 1000]]}]</answer>', "no")


def converse(prompt: Prompt, *, inline: bool) -> list[dict[str, Any]]:
    """The prompt as a user of transformers would write it."""
    tags = [prompt.template.slice_tag.format(index=index) for index in prompt.slices.indices]
    ending = f"{prompt.template.instruction}\n{prompt.query}"
    if inline:
        content = [{"type": "text", "text": "".join([*(f"{tag}<image>" for tag in tags), ending])}]
    else:
        slices = [part for tag in tags for part in ({"type": "text", "text": tag}, {"type": "image"})]
        content = [*slices, {"type": "text", "text": ending}]
    return [{"role": "user", "content": content}]


def prepare(processor: Any, prompt: Prompt) -> dict[str, Any]:
    """What the family's own processor makes of a prompt with pictures."""
    name = type(processor).__name__
    talk = converse(prompt, inline=name.startswith("Llava"))
    text = processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    pictures = [
        Image.fromarray(np.round(255 * pixels).astype(np.uint8).transpose(1, 2, 0)) for pixels in prompt.slices.pixels
    ]
    options: dict[str, Any] = {"do_image_splitting": False} if name.startswith("Smol") else {}
    images = [pictures] if name.startswith(("Gemma", "Smol", "Llava")) else pictures
    begun = bool(processor.tokenizer.bos_token) and text.startswith(processor.tokenizer.bos_token)
    inputs = processor(text=[text], images=images, add_special_tokens=not begun, return_tensors="pt", **options)
    return {key: value for key, value in inputs.items() if isinstance(value, torch.Tensor | list)}


def plain_log_probs(
    model: Any, inputs: dict[str, Any], completion: Completion, suppressed: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities of an answer that is written behind its own prompt."""
    answer = torch.from_numpy(completion.token_ids)[None]
    shape = inputs["input_ids"].shape
    fill = {"input_ids": answer, "attention_mask": torch.ones_like(answer)}
    longer = {
        key: torch.cat([value, fill.get(key, torch.zeros_like(answer))], dim=1)
        if isinstance(value, torch.Tensor) and value.shape == shape
        else value
        for key, value in inputs.items()
    }
    if hasattr(model.model, "rope_deltas"):
        model.model.rope_deltas = None
    with torch.no_grad():
        logits = model(**longer, use_cache=False).logits[0].float()
    scores = torch.log_softmax(logits.masked_fill(suppressed, float("-inf")), -1)
    return scores[-answer.shape[1] - 1 : -1].gather(-1, answer.T)[:, 0]


def test_every_family_has_a_test():
    assert set(family_names()) == set(FAMILIES)


def test_all_but_linear_attention_share_their_prompt(policy):
    network = policy.load()
    assert network.packs == (network.model.config.model_type != "qwen3_5")


def test_prompt_tokens_are_the_processors(policy, plain, prompts):
    network = policy.load()
    for prompt in prompts:
        found = [*network.prefix(prompt.slices).ids.tolist(), *network.encode_query(prompt.query)]
        assert found == prepare(plain[1], prompt)["input_ids"][0].tolist()
        size = policy.measure_prompt(prompt)
        assert (size.tokens, size.image_tokens) == (len(found), size.image_features)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (100, 230)])
def test_the_processor_decides_how_large_slices_are_seen(published, plain, height, width):
    """Least and most pixels, tiles and padding: as many tokens as the processor gives a picture of that size."""
    template = replace(published[1], height_px=height, width_px=width)
    policy = VisionLanguagePolicy(str(published[0]), template=template)
    prompt = ask(template)[0]
    network = policy.load()
    found = [*network.prefix(prompt.slices).ids.tolist(), *network.encode_query(prompt.query)]
    assert found == prepare(plain[1], prompt)["input_ids"][0].tolist()
    size = policy.measure_prompt(prompt)
    assert size.image_tokens == size.image_features


def test_the_system_turn_of_a_template_is_part_of_the_prompt(tmp_path):
    folder = write_family(tmp_path / "model", MAKERS["qwen2_5_vl, its own vocabulary"]())
    policy = VisionLanguagePolicy(str(folder))
    network = policy.load()
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert len(network.encode(system)) == 11
    assert network.prefix(ask(policy.template)[0].slices).ids[:11].tolist() == network.encode(system)
    assert (policy.template.height_px, policy.template.width_px) == (252, 252)


def test_a_family_whose_boxes_are_pixels_says_so_until_it_is_trained(published, policy, tmp_path, caplog):
    policy.save(tmp_path / "model")
    VisionLanguagePolicy(str(tmp_path / "model")).load()
    assert "by habit" not in caplog.text
    VisionLanguagePolicy(str(published[0])).load()
    assert ("boxes in pixels" in caplog.text) == (policy.load().model.config.model_type == "qwen2_5_vl")


def test_a_policy_of_one_family_refuses_others(published, policy):
    kind = policy.load().model.config.model_type
    if kind.startswith("qwen"):
        assert QwenVLPolicy(str(published[0]), template=published[1]).template == published[1]
        return
    with pytest.raises(
        CheckpointError, match=f"'{kind}' model; this policy runs qwen2_5_vl, .*; take VisionLanguagePolicy"
    ):
        QwenVLPolicy(str(published[0])).load()


def test_an_unknown_family_says_how_it_is_added(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match=r"'llama' model; .*qwen3_vl, smolvlm; an adapter named in"):
        VisionLanguagePolicy(str(tmp_path)).load()


def test_image_features_are_the_models(policy, plain, prompts):
    model, processor = plain
    inputs = prepare(processor, prompts[0])
    keys = ("pixel_values", "image_grid_thw", "image_sizes", "batch_num_images", "pixel_attention_mask")
    with torch.no_grad():
        expected = model.model.get_image_features(**{k: inputs[k] for k in keys if k in inputs}, return_dict=True)
        found = policy.load().see([prompts[0].slices])
    rows = [row.flatten(0, -2) for row in expected.pooler_output]
    torch.testing.assert_close(torch.cat(found.pooler_output), torch.cat(rows), atol=1e-5, rtol=1e-5)
    assert len(found.pooler_output) == len(prompts[0].slices.indices)


def test_log_probs_are_those_of_single_sequences(policy, plain, prompts):
    completions = [[policy.encode(text) for text in ANSWERS] for _ in prompts]
    found = policy.log_probs(prompts, completions)
    for prompt, answers, scores in zip(prompts, completions, found, strict=True):
        inputs = prepare(plain[1], prompt)
        for answer, score in zip(answers, scores, strict=True):
            expected = plain_log_probs(plain[0], inputs, answer, policy.load().suppressed)
            torch.testing.assert_close(score.detach(), expected, atol=1e-5, rtol=0)


def test_greedy_answers_are_those_of_generate(policy, plain, prompts):
    model, processor = plain
    network = policy.load()
    for prompt, (completion,) in zip(prompts, policy.generate(prompts, 1, Sampling(max_new_tokens=12)), strict=True):
        inputs = prepare(processor, prompt)
        output = model.generate(
            **inputs,
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=network.end_id,
            pad_token_id=network.end_id,
            suppress_tokens=network.suppressed.nonzero()[:, 0].tolist(),
        )
        assert completion.token_ids.tolist() == output[0, inputs["input_ids"].shape[1] :].tolist()


def test_what_is_sampled_scores_as_it_was_sampled(policy, prompts):
    """Decoding behind a shared prefix, and scoring of the same tokens in one row."""
    written = policy.generate(prompts, 3, Sampling(temperature=1.0, max_new_tokens=12, seed=5))
    assert len({completion.text for row in written for completion in row}) > 3
    for row, scores in zip(written, policy.log_probs(prompts, written), strict=True):
        for completion, score in zip(row, scores, strict=True):
            np.testing.assert_allclose(score.detach().numpy(), completion.log_probs, atol=1e-4)


def test_a_saved_folder_opens_in_plain_transformers(policy, plain, prompts, tmp_path):
    folder = tmp_path / "saved"
    policy.save(folder)
    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    before, after = (prepare(one, prompts[0]) for one in (plain[1], processor))
    assert before.keys() == after.keys()
    torch.testing.assert_close(after["input_ids"], before["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(model(**after).logits, plain[0](**before).logits, atol=1e-5, rtol=0)
    again = VisionLanguagePolicy(str(folder))
    assert again.template == policy.template
    assert again.identity()["sha256"] == policy.identity()["sha256"]
