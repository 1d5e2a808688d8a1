"""The rewards of medvol in TRL's own GRPOTrainer, with its prompt, its sampling and its loss.

    medvol fit --config examples/quickstart.yaml
    python examples/trl_reward.py --model runs/quickstart/model

It wants ``pip install "medvol-r1[trl]"``. Without a model it takes random weights, whose answers earn nothing. A
model is the folder of a Qwen2.5-VL or Qwen3-VL, trained here or published.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image
from transformers import ProcessorMixin, Qwen2_5_VLProcessor, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from trl import GRPOConfig, GRPOTrainer

import medvol

GROUP = 4
FAMILIES = {
    "qwen2_5_vl": (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor),
    "qwen3_vl": (Qwen3VLProcessor, Qwen3VLVideoProcessor),
}
"""Processor of each family, and that of the videos that it also takes."""
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Layout of a conversation, as Qwen-VL's."""


def ask(cases: medvol.CaseDataset, template: medvol.PromptTemplate) -> Dataset:
    """Rows of TRL: medvol's prompt as a message, the slices as pictures, the index of the case in column ``case``."""
    rows = []
    for index in range(len(cases)):
        prompt = medvol.build_prompt(cases[index].volume, cases[index].query.text, template)
        pictures = [Image.fromarray(np.uint8(255 * pixels).transpose(1, 2, 0)) for pixels in prompt.slices.pixels]
        content = []
        for slice_index in prompt.slices.indices:
            content += [{"type": "text", "text": template.slice_tag.format(index=slice_index)}, {"type": "image"}]
        content.append({"type": "text", "text": f"{template.instruction}\n{prompt.query}"})
        rows.append({"prompt": [{"role": "user", "content": content}], "images": pictures, "case": index})
    return Dataset.from_list(rows)


def make_processor(network: Any, folder: str | None = None) -> ProcessorMixin:
    """Processor of a Qwen-VL's family for slices of the template's size, which are neither cut nor scaled.

    Args:
        network: What ``load`` of the policy returned.
        folder: Where its weights came from; a ``preprocessor_config.json`` there says how pixels are normalised.
    """
    config, template = network.model.config, network.template
    vision, pixels = config.vision_config, template.height_px * template.width_px
    written = Path(folder or ".") / "preprocessor_config.json"
    found = json.loads(written.read_text()) if folder and written.is_file() else {}
    images = Qwen2VLImageProcessorPil(
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        min_pixels=pixels,
        max_pixels=pixels,
        image_mean=found.get("image_mean", [0.5] * 3),
        image_std=found.get("image_std", [0.5] * 3),
    )
    network.tokenizer.padding_side = "left"
    processor, videos = FAMILIES[config.model_type]
    return processor(images, network.tokenizer, videos(), chat_template=CHAT)


def main() -> None:
    """Show what the truth earns, then train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--model", help="folder of a Qwen-VL; random weights when left out")
    options = parser.parse_args()

    cases = medvol.DATASETS.get("PhantomDataset")(split="train", num_volumes=1)
    propagator = medvol.PROPAGATORS.get("RegionPropagator")()
    terms = [
        medvol.REWARDS.get(name)() for name in ("FormatReward", "AxialReward", "SpatialReward", "ConsistencyReward")
    ]
    rewards = [medvol.as_trl_reward(term, cases, propagator) for term in terms]

    truth = medvol.label_anchor(cases[0].target, rationale="as the annotator drew it")
    answer = [{"role": "assistant", "content": medvol.format_evidence(truth, *cases[0].volume.shape[1:])}]
    for reward in rewards:
        print(f"{reward.__name__:<18} {reward(completions=[answer], case=[0])[0]:.3f} for the true anchor")

    if options.model:
        network = medvol.POLICIES.get("QwenVLPolicy")(model=options.model).load()
    else:
        network = medvol.POLICIES.get("TinyPolicy")().load()
    for part in (network.model.model.visual, network.model.model.language_model):
        part.config._attn_implementation = "sdpa"  # TRL lays completions out as copies
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=str(Path(folder)),
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            per_device_train_batch_size=GROUP,
            num_generations=GROUP,
            max_completion_length=48,
            max_steps=options.steps,
            save_strategy="no",
            logging_steps=1,
            reward_weights=[0.25] * len(rewards),
        )
        trainer = GRPOTrainer(
            model=network.model,
            reward_funcs=rewards,
            args=config,
            train_dataset=ask(cases, network.template),
            processing_class=make_processor(network, options.model),
        )
        trainer.train()
    for row in trainer.state.log_history:
        if "reward" in row:
            print(f"step {row['step']}: reward {row['reward']:.3f}")


if __name__ == "__main__":
    main()
