"""How far medvol and plain transformers agree on a family: its own processor, ``generate``, one sequence at a time.

The tests hold these measures to their bounds. ``python -m tests.policies.families.parity`` prints them as the table of
docs/reference.md; it builds every family anew and takes some minutes.
"""

import inspect
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.types import Completion, Sampling
from medvol.policies.vision_language import VisionLanguagePolicy
from medvol.policies.vlm.families import find_family
from tests.policies.conftest import ask

ANSWERS = ('<think>a bright organ</think><answer>[{"slice": 3, "bbox_2d_list": [[20, 40, 58, 1000]]}]</answer>', "no")
TOKENS = 12
"""Of a greedy answer."""


@dataclass(frozen=True)
class Opened:
    """A published folder, as plain transformers and as medvol opens it.

    Args:
        folder: The folder.
        template: Of prompts whose slices need no resizing.
        model: Of transformers.
        processor: Of transformers.
        policy: Of medvol.
        prompts: Three about one scan, one about another.
    """

    folder: Path
    template: PromptTemplate
    model: Any
    processor: Any
    policy: VisionLanguagePolicy
    prompts: list[Prompt]


def open_both(folder: Path, template: PromptTemplate) -> Opened:
    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    policy = VisionLanguagePolicy(str(folder), template=template, box_units="thousandths")
    policy.load().eval()
    return Opened(folder, template, model, processor, policy, ask_in_bytes(policy.template))


def ask_in_bytes(template: PromptTemplate) -> list[Prompt]:
    """Prompts whose slices hold bytes, as a picture does."""
    drawn: dict[int, Any] = {}
    for prompt in (asked := ask(template)):
        pixels = np.round(prompt.slices.pixels * 255).astype(np.float32) / np.float32(255)
        drawn.setdefault(id(prompt.slices), replace(prompt.slices, pixels=pixels))
    return [replace(prompt, slices=drawn[id(prompt.slices)]) for prompt in asked]


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


def prompt_tokens(policy: VisionLanguagePolicy, prompt: Prompt) -> list[int]:
    network = policy.load()
    return [*network.prefix(prompt.slices).ids.tolist(), *network.encode_query(prompt.query)]


def count_equal_prompts(opened: Opened) -> int:
    """Prompts whose tokens are those of the processor."""
    return sum(
        prompt_tokens(opened.policy, prompt) == prepare(opened.processor, prompt)["input_ids"][0].tolist()
        for prompt in opened.prompts
    )


def feature_gap(opened: Opened) -> float:
    """Largest difference of what the vision tower makes of the slices of a prompt."""
    inputs = prepare(opened.processor, opened.prompts[0])
    keys = ("pixel_values", "image_grid_thw", "image_sizes", "batch_num_images", "pixel_attention_mask")
    with torch.no_grad():
        expected = opened.model.model.get_image_features(
            **{key: inputs[key] for key in keys if key in inputs}, return_dict=True
        )
        found = opened.policy.load().see([opened.prompts[0].slices])
    assert len(found.pooler_output) == len(opened.prompts[0].slices.indices)
    rows = torch.cat([row.flatten(0, -2) for row in expected.pooler_output])
    return float((torch.cat(found.pooler_output) - rows).abs().max())


def log_prob_gap(opened: Opened) -> float:
    """Largest difference between tokens of answers that share their prompt, and of plain single sequences."""
    completions = [[opened.policy.encode(text) for text in ANSWERS] for _ in opened.prompts]
    gaps = []
    for prompt, answers, scores in zip(
        opened.prompts, completions, opened.policy.log_probs(opened.prompts, completions), strict=True
    ):
        inputs = prepare(opened.processor, prompt)
        for answer, score in zip(answers, scores, strict=True):
            gaps.append((score.detach() - plain_log_probs(opened, inputs, answer)).abs().max())
    return float(max(gaps))


def copies_gap(opened: Opened) -> float:
    """Largest difference between answers that are scored together and each behind a prompt of its own."""
    completions = [[opened.policy.encode(text) for text in ANSWERS] for _ in opened.prompts]
    with torch.no_grad():
        together = opened.policy.log_probs(opened.prompts, completions)
        return max(
            float((score - opened.policy.log_probs([prompt], [[answer]])[0][0]).abs().max())
            for prompt, answers, scores in zip(opened.prompts, completions, together, strict=True)
            for answer, score in zip(answers, scores, strict=True)
        )


def plain_log_probs(opened: Opened, inputs: dict[str, Any], completion: Completion) -> torch.Tensor:
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
    if hasattr(opened.model.model, "rope_deltas"):
        opened.model.model.rope_deltas = None
    with torch.no_grad():
        logits = opened.model(**longer, use_cache=False, logits_to_keep=answer.shape[1] + 1).logits[0].float()
    scores = torch.log_softmax(logits.masked_fill(opened.policy.load().suppressed, float("-inf")), -1)
    return scores[:-1].gather(-1, answer.T)[:, 0]


def count_equal_greedy(opened: Opened, tokens: int = TOKENS) -> int:
    """Prompts whose greedy answer has the tokens of ``generate``."""
    network, sampling = opened.policy.load(), Sampling(max_new_tokens=tokens)
    equal = 0
    for prompt, (completion,) in zip(opened.prompts, opened.policy.generate(opened.prompts, 1, sampling), strict=True):
        inputs = prepare(opened.processor, prompt)
        output = opened.model.generate(
            **inputs,
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=network.end_id,
            pad_token_id=network.end_id,
            suppress_tokens=network.suppressed.nonzero()[:, 0].tolist(),
        )
        equal += completion.token_ids.tolist() == output[0, inputs["input_ids"].shape[1] :].tolist()
    return equal


def count_lines(model_type: str) -> int:
    """Lines of the class that is the adapter of a family."""
    return len(inspect.getsource(find_family(model_type, "")).splitlines())


def write_row(name: str, opened: Opened) -> str:
    """A family as a row of the table."""
    family = opened.policy.load().model.config.model_type
    count = len(opened.prompts)
    cells = [
        f"`{name}`",
        str(count_lines(family)),
        f"{count_equal_prompts(opened)}/{count}",
        f"{feature_gap(opened):.1e}",
        f"{log_prob_gap(opened):.1e}",
        f"{count_equal_greedy(opened)}/{count}",
        f"{copies_gap(opened):.1e}" if opened.policy.load().packs else "copies",
    ]
    return f"| {' | '.join(cells)} |"


HEAD = """| family | lines | prompt tokens | features | log-probs | greedy | shared prefix against copies |
|---|---|---|---|---|---|---|"""


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "fixtures"))
    from small_families import MAKERS, write_family

    print(HEAD)
    for name, make in MAKERS.items():
        with tempfile.TemporaryDirectory() as place:
            family = make()
            print(write_row(name, open_both(write_family(Path(place) / "model", family), family.template)), flush=True)


if __name__ == "__main__":
    main()
