"""Which confidence of an answer knows best whether it is right: rank correlation with Dice, and risk and coverage.

Five scores are compared, all worked out without the target:

- ``anchors``: mean agreement of pairs of sampled answers on slice and boxes;
- ``masks``: mean Dice of pairs of the samples' masks;
- ``support``: share of the samples that hold a voxel of the answer's mask, averaged over it;
- ``log_prob``: mean probability of a token of the answer, the exponential of its mean log-probability;
- ``return``: Dice of the answer's mask and of the one that is propagated back from another slice of it.

The best one is chosen on validation volumes of the phantoms, by its gain, and shown on test volumes. On real patients,
soft-tissue sarcomas in CT and MR, nothing is chosen. ``bundled:best`` answers about phantoms; ``bundled:base`` reads
single slices and answers no question, so that there is nothing to be sure of.

    python benchmarks/confidence.py                           # phantoms
    python benchmarks/confidence.py --data ../shared/data     # also the sarcomas; trains a policy for some minutes
    python benchmarks/confidence.py --report                  # the summary again, from the cases that were kept

Every study is kept in ``--out`` and not computed again. Failed answers have a confidence of 0 and a Dice of 0.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import real_patients
from cells import RESULTS, be_quiet, train
from numpy.typing import NDArray
from peers import need_folder, refuse

from medvol.core.json_file import write_json
from medvol.core.metrics import dice
from medvol.core.roles import CaseDataset, Policy, Propagator
from medvol.core.types import Case, Evidence, Rollout, Sampling, Volume
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import PhrasingSettings
from medvol.evaluation.risk_coverage import rank_correlation, risk_coverage
from medvol.evaluation.scoring import score_rollout
from medvol.evaluation.settings import EvaluationSettings
from medvol.evaluation.statistics import bootstrap_bounds
from medvol.grounding.boxes import tight_boxes
from medvol.inference.agreement import measure_agreement
from medvol.inference.votes import take_votes
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.region import RegionPropagator
from medvol.rollouts.groups import Group, ask
from medvol.rollouts.masks import follow, follow_anchors
from medvol.rollouts.samples import draw_samples
from medvol.training.data import CaseDataModule

SCORES = ("anchors", "masks", "support", "log_prob", "return")
SAMPLES = 8
VOLUMES = {"val": 36, "test": 36}
ABSENT_SHARE = 1 / 6
SETTINGS = EvaluationSettings(surface=None, lesions="none", max_new_tokens=64)
FOLD, SARCOMA_STEPS = 0, 362
"""Fold of ``real_patients.py`` whose cold start answers, and its steps; the kept figures are of a run that was planned
with 500 steps and stopped there."""

Row = dict[str, Any]


def rate(group: Group, rollout: Rollout, propagator: Propagator) -> dict[str, float]:
    """Every score of one answer, in [0, 1]."""
    if rollout.mask is None or rollout.evidence is None:
        return dict.fromkeys(SCORES, 0.0)
    votes, log_probs = take_votes(group, propagator), rollout.completion.log_probs
    return {
        "anchors": measure_agreement(rollout.completion.samples, group.case.volume).anchors,
        "masks": votes.agreement,
        "support": votes.support(rollout.mask),
        "log_prob": 0.0 if log_probs is None or not len(log_probs) else math.exp(float(np.mean(log_probs))),
        "return": come_back(group.case.volume, rollout.mask, rollout.evidence, propagator),
    }


def come_back(volume: Volume, mask: NDArray[np.bool_], evidence: Evidence, propagator: Propagator) -> float:
    """Dice of a mask and of what its own boxes give, halfway to its farther end; 1 for an empty mask."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(slices) or evidence.key_slice is None:
        return 1.0
    farthest = max(slices[0], slices[-1], key=lambda z: abs(int(z) - evidence.key_slice))
    wanted = (int(farthest) + evidence.key_slice) / 2
    start = int(min(slices, key=lambda z: abs(int(z) - wanted)))
    ((_, found),) = follow_anchors(volume, [Evidence(start, tight_boxes(mask[start]))], propagator)
    return dice(found, mask) if isinstance(found, np.ndarray) else 0.0


def answer(policy: Policy, propagator: Propagator, dataset: CaseDataset, folder: Path) -> list[dict[str, Any]]:
    """Dice and scores of every case; those of one volume are asked together, and kept before the next one is asked."""
    volumes: dict[str, list[int]] = {}
    for index in range(len(dataset)):
        volumes.setdefault(dataset.volume_key(index), []).append(index)
    rows = []
    for number, indices in enumerate(volumes.values()):
        path = folder / f"{number:03d}.json"
        if not path.exists():
            start = time.process_time()
            found = answer_volume(policy, propagator, [dataset[index] for index in indices])
            write_json(path, {"cpu_s": time.process_time() - start, "rows": found})
        rows.append(json.loads(path.read_text()))
    return rows


def answer_volume(policy: Policy, propagator: Propagator, cases: Sequence[Case]) -> list[Row]:
    """Dice and scores of all cases of a volume."""
    rows = []
    sampling = Sampling(max_new_tokens=SETTINGS.max_new_tokens)
    groups = draw_samples(policy, ask(policy, cases, sampling), sampling, SAMPLES)
    for place, rollout in follow(cases[0].volume, [group.answer for group in groups], propagator):
        score = score_rollout(rollout, groups[place].case, SETTINGS)
        known = {"case": score.case_id, "patient": score.patient_id, "present": score.present, "dsc": score.dsc}
        rows.append({**known, **rate(groups[place], rollout, propagator)})
    return rows


def measure(rows: Sequence[Row]) -> dict[str, Any]:
    """What every score is worth on some cases, with percentile intervals by patient."""
    patients = [row["patient"] for row in rows]
    errors = 1 - np.array([row["dsc"] for row in rows])
    found: dict[str, Any] = {
        "cases": len(rows),
        "patients": len(set(patients)),
        "present": sum(row["present"] for row in rows),
        "dsc": round(1 - float(errors.mean()), 4),
        "aurc_perfect": round(risk_coverage(errors, errors).perfect, 4),
    }
    for name in SCORES:
        table = np.array([[row[name], row["dsc"]] for row in rows], np.float64)
        curve = risk_coverage(table[:, 0], errors)
        half = curve.risk[(len(rows) + 1) // 2 - 1]
        found[name] = {
            "rank_correlation": interval(table, patients, lambda part: rank_correlation(part[:, 0], part[:, 1])),
            "gain": interval(table, patients, lambda part: risk_coverage(part[:, 0], 1 - part[:, 1]).gain),
            "aurc": round(curve.area, 4),
            "dsc_of_surer_half": round(1 - half, 4),
        }
    return found


def compare(rows: Sequence[Row], chosen: str) -> dict[str, Any]:
    """Gain of the chosen score minus that of every other one on the same cases."""
    patients = [row["patient"] for row in rows]

    def gain(part: NDArray[np.float64], column: int) -> float:
        return risk_coverage(part[:, column], 1 - part[:, 2]).gain or 0.0

    found = {}
    for other in SCORES:
        table = np.array([[row[chosen], row[other], row["dsc"]] for row in rows], np.float64)
        found |= (
            {other: interval(table, patients, lambda part: gain(part, 0) - gain(part, 1))} if other != chosen else {}
        )
    return found


def interval(
    table: NDArray[np.float64], patients: list[str], worth: Callable[[NDArray[np.float64]], float | None]
) -> dict[str, float | None]:
    """A value with its bounds."""
    values = dict(zip(("value", "low", "high"), (worth(table), *bootstrap_bounds(table, patients, worth)), strict=True))
    return {name: None if value is None else round(value, 3) for name, value in values.items()}


def phantoms(part: str, options: argparse.Namespace) -> PhantomDataset:
    """Drawn volumes of a part, asked with phrasings that no training query uses."""
    questions = PhrasingSettings(phrasing="held_out", absent_share=ABSENT_SHARE)
    count = 1 if options.quick else VOLUMES[part]
    return PhantomDataset(part, num_volumes=count, questions=questions)  # type: ignore[arg-type]


def sarcoma_policy(options: argparse.Namespace) -> TinyPolicy:
    """A short cold start of ``real_patients.py`` for its first fold, trained when it is not there."""
    row, folder = real_patients.ROWS["sft"], options.out / f"sarcoma-sft-{FOLD}"
    assert row.make is not None, "this row is trained"
    cases = real_patients.read_cases(real_patients.split(FOLD)[0], "train", options)
    augment = real_patients.AUGMENT
    data = CaseDataModule(
        train=cases, batch_size=4, queries_per_volume=3, seed=FOLD, augment=augment, sides_may_swap=True
    )
    module = row.make(TinyPolicy(seed=FOLD), RegionPropagator(), FOLD)
    train(module, data, SARCOMA_STEPS, folder, options.quick)
    return TinyPolicy(model=str(folder / "model"))


def sarcomas(options: argparse.Namespace) -> CaseDataset:
    """Both scans of the patients that the policy was not trained on."""
    _, val, test = real_patients.split(FOLD)
    return real_patients.read_cases(sorted([*val, *test])[: 1 if options.quick else None], "held_out", options)


def studies(options: argparse.Namespace) -> dict[str, Callable[[], tuple[Policy, CaseDataset]]]:
    """What is answered by whom, by name."""

    def drawn(part: str) -> Callable[[], tuple[Policy, CaseDataset]]:
        return lambda: (TinyPolicy(model="bundled:best"), phantoms(part, options))

    found = {f"phantoms-best-{part}": drawn(part) for part in VOLUMES}
    if options.data is not None:
        found["sarcomas-sft"] = lambda: (sarcoma_policy(options), sarcomas(options))
    return found


def compute(options: argparse.Namespace) -> None:
    """Answer what was not answered yet."""
    for name, make in studies(options).items():
        path = options.out / f"{name}.json"
        if not path.exists():
            policy, dataset = make()
            parts = answer(policy, RegionPropagator(), dataset, options.out / name)
            rows = [row for part in parts for row in part["rows"]]
            write_json(path, {"cpu_s": round(sum(part["cpu_s"] for part in parts), 1), "rows": rows})
            print(f"{name}: {len(rows)} cases", flush=True)


def summarise(options: argparse.Namespace) -> dict[str, Any]:
    """Every study, and the score that was chosen on validation volumes."""
    kept = {path.stem: json.loads(path.read_text()) for path in sorted(options.out.glob("*-*.json"))}
    if "phantoms-best-val" not in kept:
        refuse(f"there is no study in {options.out}; run without --report first")
    worth = {name: {"cpu_s": study["cpu_s"], **measure(study["rows"])} for name, study in kept.items()}
    validated = worth["phantoms-best-val"]
    chosen = max(SCORES, key=lambda name: validated[name]["gain"]["value"] or -math.inf)
    return {
        "command": "python benchmarks/confidence.py --data ../shared/data",
        "samples": SAMPLES,
        "chosen_on": "phantoms-best-val",
        "chosen": chosen,
        "chosen_minus_other": {name: compare(study["rows"], chosen) for name, study in kept.items()},
        "studies": worth,
    }


def print_table(summary: dict[str, Any]) -> None:
    """The studies as Markdown."""
    print("| study | score | rank correlation | gain | AURC | DSC of all | of the surer half |")
    print("|---|---|---|---|---|---|---|")
    for name, study in summary["studies"].items():
        for score in SCORES:
            own = study[score]
            worth = (own["rank_correlation"], own["gain"])
            cells = [f"{found['value']} [{found['low']}, {found['high']}]" for found in worth]
            print(f"| {name} | {score} | {' | '.join([*cells, str(own['aurc'])])} | ", end="")
            print(f"{study['dsc']} | {own['dsc_of_surer_half']} |")


def main() -> None:
    """Compute what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the real scans; left out, phantoms alone are asked")
    parser.add_argument("--out", type=Path, default=Path("runs/confidence"))
    parser.add_argument("--report", action="store_true", help="compute nothing")
    parser.add_argument("--quick", action="store_true", help="one volume a study, to see that everything runs")
    options = parser.parse_args()
    be_quiet()
    if options.data is not None:
        need_folder(options.data, "--data")
    if options.quick:
        options.out = options.out / "quick"
    if not options.report:
        options.out.mkdir(parents=True, exist_ok=True)
        compute(options)
    summary = summarise(options)
    if not options.quick:
        write_json(RESULTS / "confidence.json", summary)
    print_table(summary)
    print(json.dumps({"chosen": summary["chosen"]}))


if __name__ == "__main__":
    main()
