"""The rewards of medvol in TRL's own GRPOTrainer, with its prompt, its sampling and its loss.

    python examples/trl_reward.py --model bundled:best

It wants ``pip install "medvol-r1[trl]"``. Without a model it takes random weights, whose answers earn nothing. A
published Qwen-VL is given in the same way; its folder brings its processor.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

import medvol

GROUP = 4


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


def main() -> None:
    """Show what the truth earns, then train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--model", help="bundled:best or the folder of a Qwen-VL; random weights when left out")
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

    policies = medvol.POLICIES
    policy = policies.get("QwenVLPolicy")(options.model) if options.model else policies.get("TinyPolicy")()
    network = policy.load()
    network.tokenizer.padding_side = "left"
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
            processing_class=network.processor,
        )
        trainer.train()
    for row in trainer.state.log_history:
        if "reward" in row:
            print(f"step {row['step']}: reward {row['reward']:.3f}")


if __name__ == "__main__":
    main()
