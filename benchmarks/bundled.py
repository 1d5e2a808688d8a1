"""Makes the bundled models again, from nothing: trained on synthetic scans, halved, and tested as they are kept.

    python benchmarks/bundled.py                     # both; some hours on one core
    python benchmarks/bundled.py --names base        # one of them

What was trained already is not trained again.

``bundled:base`` is the base of ``miniature.py``: it reads single slices. ``bundled:best`` goes on from a row of that
table, or from the quickstart, for a few steps that also ask for what a scan does not show, since those never do. Both
are written into the package with a card. What the card says was measured with the weights as they are kept, on 36 test
volumes, with phrasings that were heard in training and with held-out ones; one question in six is about something
absent.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from cells import be_quiet, evaluate, train
from miniature import ROWS, model_of, sft

from medvol.cli import main as main_of_medvol
from medvol.core.bundled import BASE, BEST, model_folder
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings, PhrasingSettings
from medvol.evaluation.archive import read_evaluation
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.region import RegionPropagator
from medvol.training.base_model import CARD_FILE
from medvol.training.card import CardFacts, write_card
from medvol.training.data import CaseDataModule
from medvol.training.export import export_model

LICENCE = "apache-2.0"
FINISH_STEPS, FINISH_SEED = 250, 1000
ABSENT_SHARE, TEST_ABSENT_SHARE = 1 / 4, 1 / 6
QUICKSTART = "quickstart"


def start_of(row: str, options: argparse.Namespace) -> Path:
    """Model folder of a row, or of the quickstart, trained when it is not there."""
    if row != QUICKSTART:
        return model_of(row, options.seed, options)[0]
    folder = options.out / f"{row}-{options.seed}"
    if not (folder / "model").is_dir():
        fit = ["fit", "--config", "examples/quickstart.yaml", "--seed_everything", str(options.seed)]
        main_of_medvol([*fit, "--trainer.default_root_dir", str(folder)])
    return folder / "model"


def finish(start: Path, options: argparse.Namespace) -> Path:
    """Teach a trained policy that a target may be absent; its model folder."""
    policy = TinyPolicy(model=str(start), freeze_vision=True)
    module = sft("paper")(policy, 0)
    questions = PhrasingSettings(absent_share=ABSENT_SHARE)
    cases = PhantomDataset(
        num_volumes=4 * FINISH_STEPS,
        seed=FINISH_SEED,
        lesion_share=1.0,
        questions=questions,
        cache=CacheSettings(scans=8),
    )
    data = CaseDataModule(train=cases, batch_size=4, queries_per_volume=14, num_workers=options.workers)
    folder = options.out / f"finished-{options.row}-{options.seed}"
    train(module, data, FINISH_STEPS, folder, options.quick)
    return folder / "model"


def halve(model: Path, folder: Path) -> None:
    """Write a model folder again with weights of half the size."""
    policy = TinyPolicy(model=str(model))
    policy.load().narrow = torch.float16
    export_model(policy, folder, policy.training_data)


def describe(folder: Path, name: str, options: argparse.Namespace) -> None:
    """Test what is kept, and write it into the card."""
    policy = TinyPolicy(model=str(folder))
    questions = PhrasingSettings(phrasing="both", absent_share=TEST_ABSENT_SHARE)
    cases = PhantomDataset("test", num_volumes=1 if options.quick else 36, questions=questions)
    scores = options.out / "bundled" / f"{name}-{policy.identity()['sha256'][:12]}"
    evaluate(policy, RegionPropagator(), cases, scores)
    command = f"python benchmarks/bundled.py --names {name}"
    if name == "best":
        command += f" --row {options.row} --seed {options.seed}"
    facts = CardFacts(policy.training_data, None, read_evaluation(scores), licence=LICENCE, command=command)
    write_card(folder / CARD_FILE, facts)


def main() -> None:
    """Train what is missing, keep it, test it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name.partition(":")[2] for name in (BASE, BEST)]
    parser.add_argument("--names", nargs="+", choices=names, default=names)
    rows = [name for name, row in ROWS.items() if row.make is not None and not row.shared]
    parser.add_argument(
        "--row", choices=[*rows, QUICKSTART], default="long_same", help="what bundled:best goes on from"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--folder", type=Path, help="where the models go; into the package when left out")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare volumes; 0: the main one")
    parser.add_argument("--quick", action="store_true", help="two steps a row, to see that everything runs")
    options = parser.parse_args()
    be_quiet()
    for name in options.names:
        model = start_of("point" if name == "base" else options.row, options)
        model = finish(model, options) if name == "best" else model
        folder = options.folder / name if options.folder else model_folder(f"bundled:{name}")
        halve(model, folder)
        describe(folder, name, options)
        print(f"{folder}: {(folder / 'model.safetensors').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
