"""Every family against plain transformers: its own processor, ``generate``, and one sequence at a time."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_families import FAMILIES
from transformers import AutoModelForImageTextToText, AutoProcessor

from medvol.core.errors import CheckpointError
from medvol.core.types import Sampling
from medvol.policies.vision_language import QwenVLPolicy, VisionLanguagePolicy
from medvol.policies.vlm.families import family_names
from tests.policies.families.parity import (
    ANSWERS,
    ask_in_bytes,
    copies_gap,
    count_equal_greedy,
    count_equal_prompts,
    count_lines,
    feature_gap,
    log_prob_gap,
    prepare,
    prompt_tokens,
)

REFERENCE = Path(__file__).parents[3] / "docs" / "reference.md"


def test_every_family_has_a_test():
    assert set(family_names()) == set(FAMILIES)


def test_the_reference_states_the_lines_of_every_adapter():
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE))
    for family in FAMILIES:
        assert f" {count_lines(family)} |" in rows[family], family


def test_all_but_linear_attention_share_their_prompt(opened):
    network = opened.policy.load()
    assert network.packs == (network.model.config.model_type != "qwen3_5")


def test_prompt_tokens_are_the_processors(opened):
    assert count_equal_prompts(opened) == len(opened.prompts)
    for prompt in opened.prompts:
        size = opened.policy.measure_prompt(prompt)
        assert (size.tokens, size.image_tokens) == (len(prompt_tokens(opened.policy, prompt)), size.image_features)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (100, 230)])
def test_the_processor_decides_how_large_slices_are_seen(opened, height, width):
    """Least and most pixels, tiles and padding: as many tokens as the processor gives a picture of that size."""
    template = replace(opened.template, height_px=height, width_px=width)
    loaded = opened.policy.load()
    policy = VisionLanguagePolicy(str(opened.folder))
    policy._network = type(loaded)(loaded.model, loaded.processor, template)
    prompt = ask_in_bytes(template)[0]
    assert prompt_tokens(policy, prompt) == prepare(opened.processor, prompt)["input_ids"][0].tolist()
    size = policy.measure_prompt(prompt)
    assert size.image_tokens == size.image_features


def test_words_are_the_processors(opened):
    """Of answers and queries in ordinary words."""
    network = opened.policy.load()
    for text in (*ANSWERS, *(prompt.query for prompt in opened.prompts), " the  left kidney\n", "µ, 3 cm (T2)"):
        assert network.encode(text) == opened.processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_special_token_in_a_query_is_text(opened):
    """It neither shows a slice nor closes the turn of the user: no token of it is special, and all of it is there."""
    network = opened.policy.load()
    tokenizer = opened.processor.tokenizer
    special = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert len(special) >= 5
    assert {network.image_id, network.end_id} <= special.keys()
    ends = network.encode_query("")
    for token in special.values():
        ids = network.encode_query(f"the liver{token} of")
        assert ids[-len(ends) :] == ends
        assert not special.keys() & {*ids[: -len(ends)]}
        assert tokenizer.decode(ids[: -len(ends)]) == f"the liver{token} of"
        assert not special.keys() & {*opened.policy.encode(token).token_ids[:-1].tolist()}


def test_image_features_are_the_models(opened):
    assert feature_gap(opened) <= 1e-5


def test_log_probs_are_those_of_single_sequences(opened):
    assert log_prob_gap(opened) <= 1e-5


def test_a_shared_prompt_scores_as_copies_do(opened):
    assert copies_gap(opened) <= 1e-5


def test_greedy_answers_are_those_of_generate(opened):
    assert count_equal_greedy(opened) == len(opened.prompts)


def test_what_is_sampled_scores_as_it_was_sampled(opened):
    """Decoding behind a shared prefix, and scoring of the same tokens in one row."""
    policy = opened.policy
    written = policy.generate(opened.prompts, 3, Sampling(temperature=1.0, max_new_tokens=12, seed=5))
    assert len({completion.text for row in written for completion in row}) > 3
    for row, scores in zip(written, policy.log_probs(opened.prompts, written), strict=True):
        for completion, score in zip(row, scores, strict=True):
            np.testing.assert_allclose(score.detach().numpy(), completion.log_probs, atol=1e-4)


def test_a_saved_folder_opens_in_plain_transformers(opened, tmp_path):
    folder = tmp_path / "saved"
    opened.policy.save(folder)
    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    before, after = (prepare(one, opened.prompts[0]) for one in (opened.processor, processor))
    assert before.keys() == after.keys()
    torch.testing.assert_close(after["input_ids"], before["input_ids"])
    with torch.no_grad():
        logits = [one(**inputs, logits_to_keep=32).logits for one, inputs in ((model, after), (opened.model, before))]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)


def test_a_saved_folder_opens_again(published, tmp_path):
    policy = VisionLanguagePolicy(str(published[0]), template=published[1], box_units="thousandths")
    policy.save(tmp_path / "saved")
    again = VisionLanguagePolicy(str(tmp_path / "saved"))
    assert again.template == policy.template
    assert again.identity()["sha256"] == policy.identity()["sha256"]


def test_the_system_turn_of_a_template_is_part_of_the_prompt(publish):
    policy = VisionLanguagePolicy(str(publish("qwen2_5_vl, its own vocabulary")[0]))
    network = policy.load()
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    written = network.tokenizer.encode(system)
    assert len(written) == 11
    assert network.prefix(ask_in_bytes(policy.template)[0].slices).ids[:11].tolist() == written
    assert (policy.template.height_px, policy.template.width_px) == (252, 252)


def test_a_policy_of_one_family_refuses_others(published):
    folder, template = published
    policy = QwenVLPolicy(str(folder), template=template, box_units="thousandths")
    kind = re.search(r'"model_type": "(\w+)",\n  "', (folder / "config.json").read_text())[1]
    if kind.startswith("qwen"):
        assert policy.template == template
        return
    with pytest.raises(
        CheckpointError, match=f"'{kind}' model; this policy runs qwen2_5_vl, .*; take VisionLanguagePolicy"
    ):
        policy.require_ready()


def test_an_unknown_family_says_how_it_is_added(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match=r"'llama' model; .*qwen3_vl, smolvlm; an adapter named in"):
        VisionLanguagePolicy(str(tmp_path)).load()
