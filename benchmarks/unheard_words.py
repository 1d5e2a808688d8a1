"""Words never met in training: how far a policy's own words carry, and what a sentence encoder adds.

The bank's held-out phrasings are made of words that its training phrasings use. Those of ``unheard_words_val.yaml`` and
``unheard_words_test.yaml`` are not: they ask for the same targets as a clinician or a layman might. All choices were
made with the first file on validation phantoms; the table is of the second one on test phantoms.

    python benchmarks/unheard_words.py probe    # which target does a linear probe read off a phrasing?
    python benchmarks/unheard_words.py answer   # bundled:best, with and without ``words: minilm``
    python benchmarks/unheard_words.py report   # the table from the cells there are

The probe is fitted to training phrasings; its readers are a bag of words, the bundled policy itself, all-MiniLM-L6-v2
(extra ``words``), and with ``--gguf`` language models in llama.cpp's format. Layer and penalty are chosen on training
phrasings that are left out one at a time. Nothing is trained. What was measured is not measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from cells import RESULTS, Cell, be_quiet, difference, evaluate, fill, make_cell, mean_interval, show, table
from numpy.typing import NDArray
from word_readers import read_all

from medvol.core.bundled import BEST
from medvol.core.json_file import write_json
from medvol.datasets.phantom import TARGETS, PhantomDataset
from medvol.datasets.settings import PhrasingSettings
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.statistics import bootstrap_interval
from medvol.policies.known_phrasings import KnownPhrasings
from medvol.policies.sentence_encoder import MINILM, SentenceEncoder
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.region import RegionPropagator
from medvol.queries.query_bank import RELEASE_BANK, QueryBank

KINDS = ("seen", "held_out", "unheard")
TEST_VOLUMES, ASKED = 36, 2
"""Volumes of the test, and phrasings of each use that are asked for a target and volume."""

PENALTIES = (1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)
ROWS = {
    "own": "as it comes",
    "words": "with `words: minilm`",
    "taught": "the same, comparing with what it was taught only",
    "named": "every query replaced by its target's name",
}
KEPT, PROBE, SUMMARY = (RESULTS / f"unheard_words{end}" for end in ("", "_probe.json", ".json"))


def bank_file(split: str) -> Path:
    """Phrasings in unheard words for a split."""
    return Path(__file__).with_name(f"unheard_words_{split}.yaml")


def unheard_texts(split: str) -> dict[str, list[str]]:
    """Unheard phrasings by target."""
    content = yaml.safe_load(bank_file(split).read_text(encoding="utf-8"))
    return {target: [text for texts in uses["held_out"].values() for text in texts] for target, uses in content.items()}


def list_phrasings(split: str) -> list[tuple[str, str, str]]:
    """Target, kind and text of every phrasing of the phantom's targets."""
    bank, unheard = QueryBank.load(), unheard_texts(split)
    heard = [
        (name, KINDS[query.held_out], query.text) for name in TARGETS for query in bank.phrasings(name, None, "CT")
    ]
    return heard + [(target, "unheard", text) for target in TARGETS for text in unheard[target]]


def probe(features: NDArray[np.float64], targets: NDArray[Any], known: NDArray[np.bool_]) -> tuple[float, NDArray[Any]]:
    """Ridge regression on the targets of known phrasings.

    Args:
        features: (N, C), one row a phrasing.
        targets: (N,) names.
        known: (N,) True for those it is fitted to.

    Returns:
        Mean squared error of known phrasings, each left out in turn, at the best penalty; and (N,) the targets read.
    """
    spread = features[known].std(0)
    centred = (features - features[known].mean(0)) / np.where(spread > 0, spread, 1)
    rows = centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-9)
    names = np.unique(targets[known])
    truth = (targets[known][:, None] == names).astype(float)
    mean = truth.mean(0)
    kernel, best = rows[known] @ rows[known].T, (np.inf, targets)
    for penalty in PENALTIES:
        inverse = np.linalg.inv(kernel + penalty * np.eye(len(kernel)))
        weights = inverse @ (truth - mean)
        error = float(np.mean((weights / np.diag(inverse)[:, None]) ** 2))
        if error < best[0]:
            best = error, names[(rows @ rows[known].T @ weights + mean).argmax(1)]
    return best


def run_probe(options: argparse.Namespace) -> None:
    """Probe every reader that was not probed before."""
    asked = list_phrasings(options.split)
    targets, kinds = (np.array([row[i] for row in asked]) for i in (0, 1))
    rows: dict[str, Any] = json.loads(PROBE.read_text(encoding="utf-8")) if PROBE.is_file() else {}
    for reader, layers in read_all([text for _, _, text in asked], kinds == "seen", options.encoder, options.gguf):
        found = {layer: probe(features, targets, kinds == "seen") for layer, features in layers.items()}
        layer = min(found, key=lambda name: found[name][0])
        right = (found[layer][1] == targets).astype(float)
        rows[reader] = {"layer": layer, "left_out_error": round(found[layer][0], 4)}
        for kind in KINDS[1:]:
            interval = bootstrap_interval(right[kinds == kind], targets[kinds == kind].tolist(), limits=(0.0, 1.0))
            values = {name: getattr(interval, name) for name in ("mean", "low", "high", "cases")}
            rows[reader][kind] = {name: value if value is None else round(value, 4) for name, value in values.items()}
        if options.split == "test":
            write_json(PROBE, rows)
    print("| reader | held-out phrasings | unheard words |\n|---|---|---|")
    for reader, row in rows.items():
        print(f"| {reader} ({row['layer']}) | {show(row['held_out'])} | {show(row['unheard'])} |")


def make_policy(row: str, options: argparse.Namespace) -> TinyPolicy:
    """The bundled policy, asked as a row says."""
    if row == "words":
        return TinyPolicy(model=BEST, words=options.encoder)
    policy = TinyPolicy(model=BEST)
    layout, data = policy.load().layout, policy.training_data
    assert data is not None, "the bundled policy says what it was trained on"
    if row == "named":
        targets = {text: target for target, _, text in list_phrasings(options.split)}
        layout.reword = lambda query: f"the {targets[query]}" if query in targets else query
    if row == "taught":
        bank = QueryBank.load(RELEASE_BANK)
        taught = QueryBank({target: bank.phrasings(target, None, "CT") for target in TARGETS})
        layout.reword = KnownPhrasings(SentenceEncoder(options.encoder), taught, data.words).say
    return policy


def run_cell(row: str, seed: int, options: argparse.Namespace) -> Cell:
    """Answer with one row."""
    questions = PhrasingSettings("both", ASKED, str(bank_file(options.split)), absent_share=1 / 6)
    volumes = 1 if options.quick else TEST_VOLUMES
    cases = PhantomDataset(options.split, volumes, 0 if options.split == "test" else 7, questions=questions)
    scores = evaluate(make_policy(row, options), RegionPropagator(), cases, options.out / options.split / row)
    return make_cell(row, seed, 0, 0.0, scores, kind_of(options.split))


def kind_of(split: str) -> Callable[[CaseScore], str]:
    """What tells which kind of phrasing a case was asked with; ``absent`` for a target that is not there."""
    unheard = {text for texts in unheard_texts(split).values() for text in texts}

    def tell(score: CaseScore) -> str:
        heard = "unheard" if score.query in unheard else KINDS[score.held_out]
        return heard if score.present else "absent"

    return tell


def summarise(cells: dict[str, dict[int, Cell]]) -> dict[str, Any]:
    """Rows with their intervals, and what the encoder adds."""
    kept = {row: list(cells[row].values()) for row in ROWS if row in cells}
    every = [cell for own in kept.values() for cell in own]
    kinds = [kind for kind in (*KINDS, "absent") if all(table(cell, kind) for cell in every)]
    targets = [target for target in TARGETS if all(table(cell, "unheard", target) for cell in every)]
    rows = {
        row: {
            "title": ROWS[row],
            **{kind: mean_interval(own, kind) for kind in kinds},
            "unheard_targets": {target: mean_interval(own, "unheard", target)["mean"] for target in targets},
        }
        for row, own in kept.items()
    }
    both = {"own", "words"} <= kept.keys()
    gains = {kind: difference(kept["own"], kept["words"], kind) for kind in kinds} if both else {}
    return {"command": "python benchmarks/unheard_words.py answer", "rows": rows, "words_minus_own": gains}


def main() -> None:
    """Do one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["probe", "answer", "report"])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--split", choices=["test", "val"], default="test")
    parser.add_argument("--encoder", default=MINILM, help="sentence encoder: minilm, or its folder")
    parser.add_argument("--gguf", nargs="*", type=Path, default=[], help="language models that the probe reads with")
    parser.add_argument("--out", type=Path, default=Path("runs/unheard_words"))
    parser.add_argument("--quick", action="store_true", help="one volume, to see that everything runs")
    options = parser.parse_args()
    be_quiet()
    if options.part == "probe":
        return run_probe(options)
    options.out = options.out / "quick" if options.quick else options.out
    kept = KEPT if options.split == "test" and not options.quick else options.out / options.split / "cells"
    wanted = [(row, 0) for row in options.rows] if options.part == "answer" else []
    summary = summarise(fill(kept, wanted, lambda row, seed: run_cell(row, seed, options)))
    if kept == KEPT:
        write_json(SUMMARY, summary)
    print("| bundled:best | DSC seen | DSC held out | DSC unheard | absent |\n|---|---|---|---|---|")
    for row in summary["rows"].values():
        means = [show(row[kind]) if kind in row else "" for kind in (*KINDS, "absent")]
        print(f"| {row['title']} | {' | '.join(means)} |")
    print(json.dumps({"words_minus_own": summary["words_minus_own"]}))
    return None


if __name__ == "__main__":
    main()
