"""Everything that a YAML experiment does, composed in Python: data, policy, propagator, training, one answer.

    python examples/compose_in_python.py --steps 120

A hundred steps teach little more than the grammar of an answer; examples/quickstart.yaml takes 520.
"""

import argparse
from pathlib import Path

from lightning.pytorch import Trainer

import medvol


def train(steps: int, folder: Path) -> medvol.ScratchModule:
    """Train the tiny policy on synthetic scans; it is saved in ``folder/model``."""
    phantoms = medvol.DATASETS.get("PhantomDataset")
    module = medvol.ScratchModule(
        policy=medvol.POLICIES.get("TinyPolicy")(),
        propagator=medvol.PROPAGATORS.get("RegionPropagator")(),
        optimizer=medvol.OptimizerSettings(learning_rate=2e-3),
        answers=medvol.AnswerSettings(label_rule="largest"),
        curriculum=medvol.CurriculumSettings(steps=steps // 2),
        occupancy=medvol.OccupancySettings(weight=1.0),
        evaluation=medvol.EvaluationSettings(max_new_tokens=64),
    )
    data = medvol.CaseDataModule(
        train=phantoms(split="train", num_volumes=16, questions=medvol.PhrasingSettings(phrasings_per_target=4)),
        test=phantoms(split="test", num_volumes=1),
        batch_size=2,
        queries_per_volume=8,
    )
    trainer = Trainer(
        max_steps=steps,
        default_root_dir=folder,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    return module


def answer(model: Path, query: str, folder: Path) -> None:
    """Ask the saved policy about a scan that it has not seen, and write what it answers."""
    segmenter = medvol.Segmenter(
        medvol.POLICIES.get("TinyPolicy")(model=str(model)), medvol.PROPAGATORS.get("RegionPropagator")()
    )
    volume = medvol.DATASETS.get("PhantomDataset")(split="test", num_volumes=1)[0].volume
    try:
        segmentation = segmenter.segment(volume, query)
    except medvol.MedvolError as error:
        print(f"no answer yet, train for more steps: {error}")
        return
    print(segmentation.completion.text)
    for kind, path in segmentation.save(folder, "answer").items():
        print(f"{kind:<8} {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120, help="steps of training; 520 make a useful policy")
    parser.add_argument("--folder", type=Path, default=Path("runs/compose"), help="where model and answer go")
    options = parser.parse_args()
    train(options.steps, options.folder)
    answer(options.folder / "model", "the organ that produces bile", options.folder)
