"""One round of corrections: a policy answers, a script corrects ten answers over HTTP, the policy learns from them.

    python benchmarks/correction_round.py --folder runs/round

The "reader" is a script that knows the truth: it sends the true key slice and boxes. So the result is what a perfect
reader brings, on synthetic scans, to the tiny policy; it says nothing about patients.
"""

import argparse
import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from lightning.pytorch import Trainer
from starlette.testclient import TestClient

import medvol
from medvol.core.metrics import dice
from medvol.grounding.boxes import matched_iou, tight_boxes
from medvol.viewing.corrections import collect, write_corrections
from medvol.viewing.desk import Desk
from medvol.viewing.interface import Interface
from medvol.viewing.jobs import Jobs
from medvol.viewing.opening import open_target
from medvol.viewing.reading_folder import ReadingFolder

QUERY, TARGET = "the organ that produces bile", "liver"
OTHER_QUERY, OTHER_TARGET = "the spleen", "spleen"
"""Asked of the same policy, and never corrected: what is forgotten."""
KEY = "round"


def quiet_trainer(steps: int, folder: Path) -> Trainer:
    """A trainer that writes a model and nothing else."""
    return Trainer(
        max_steps=steps,
        max_epochs=-1,
        default_root_dir=folder,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train_base(steps: int, folder: Path) -> None:
    """A policy from random weights that has seen a little."""
    phantoms = medvol.DATASETS.get("PhantomDataset")
    module = medvol.ScratchModule(
        policy=medvol.POLICIES.get("TinyPolicy")(),
        propagator=medvol.PROPAGATORS.get("RegionPropagator")(),
        optimizer=medvol.OptimizerSettings(learning_rate=2e-3),
        answers=medvol.AnswerSettings(label_rule="largest"),
        curriculum=medvol.CurriculumSettings(steps=steps // 2),
        occupancy=medvol.OccupancySettings(weight=1.0),
    )
    train = phantoms(split="train", num_volumes=200)
    quiet_trainer(steps, folder).fit(module, medvol.CaseDataModule(train=train, batch_size=2, queries_per_volume=8))


def train_more(model: Path, dataset: medvol.CaseDataset, steps: int, folder: Path) -> None:
    """The same policy after some steps of SFT on corrections."""
    module = medvol.SFTModule(
        policy=medvol.POLICIES.get("TinyPolicy")(model=str(model)),
        propagator=medvol.PROPAGATORS.get("RegionPropagator")(),
        optimizer=medvol.OptimizerSettings(learning_rate=5e-4),
    )
    quiet_trainer(steps, folder).fit(module, medvol.CaseDataModule(train=dataset, batch_size=2))


def write_scans(split: str, count: int, folder: Path, target: str = TARGET) -> dict[Path, np.ndarray]:
    """Drawn scans as files, each with the true mask of a target."""
    dataset = medvol.DATASETS.get("PhantomDataset")(split=split, num_volumes=count)
    truths: dict[Path, np.ndarray] = {}
    for index in range(len(dataset)):
        case = dataset[index]
        path = folder / f"{case.volume.volume_id.replace('/', '-')}.nii.gz"
        if case.query.target != target or path in truths or not case.target.any():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = np.rint(case.volume.voxels).astype(np.int16).transpose(2, 1, 0)
        nib.save(nib.Nifti1Image(voxels, case.volume.affine), path)
        truths[path] = case.target
    return truths


def score(model: Path, truths: dict[Path, np.ndarray], query: str = QUERY) -> dict[str, float]:
    """Means over scans; an answer that cannot be used scores 0."""
    segmenter = medvol.Segmenter(str(model), medvol.PROPAGATORS.get("RegionPropagator")())
    rows = []
    for path, truth in truths.items():
        try:
            found = segmenter.segment(medvol.read_volume(path, modality="CT"), query)
        except medvol.MedvolError:
            rows.append((0.0, 0.0))
            continue
        key = found.evidence.key_slice
        true_boxes = tight_boxes(truth[key]) if key is not None else np.empty((0, 4))
        rows.append((matched_iou(found.evidence.boxes, true_boxes), dice(found.mask, truth)))
    box, mask = np.mean(rows, axis=0).tolist()
    return {"scans": len(rows), "box_iou": round(box, 3), "dice": round(mask, 3)}


def correct(answers: Path, truths: dict[Path, np.ndarray]) -> Path:
    """Correct every answer over HTTP, and export the corrections."""
    opened = open_target(answers, medvol.read_volume)
    desk = Desk(
        opened.entries,
        opened.scans,
        medvol.PROPAGATORS.get("RegionPropagator")(),
        ReadingFolder(opened.readings),
        medvol.read_volume,
        reader="script",
    )
    jobs = Jobs()
    client = TestClient(Interface(desk, jobs).build(KEY), f"http://127.0.0.1:8000/{KEY}/")
    for row in client.get("api/answers").json()["answers"]:
        link = f"api/answers/{row['id']}"
        found = client.post(f"{link}/open", json={}).json()["result"]
        truth = medvol.label_anchor(next(mask for path, mask in truths.items() if path.name == row["scan_name"]))
        anchor = {"key_slice": truth.key_slice, "boxes_px": truth.boxes.tolist()}
        body = {"verdict": "corrected", "anchor": anchor, "remark": "", "parent_sha256": found["current"]["sha256"]}
        client.post(f"{link}/readings", json=body).raise_for_status()
    jobs.close()
    table = answers / "corrections.csv"
    write_corrections(table, collect(opened.entries, ReadingFolder(opened.readings), answers))
    return table


def run(folder: Path, base_steps: int, more_steps: int) -> dict[str, object]:
    """The round."""
    base, more = folder / "base" / "model", folder / "more" / "model"
    if not base.is_dir():
        train_base(base_steps, folder / "base")
    read, held_out = write_scans("val", 10, folder / "read"), write_scans("test", 16, folder / "held_out")
    others = write_scans("test", 16, folder / "others", OTHER_TARGET)
    began = time.monotonic()
    segmenter = medvol.Segmenter(str(base), medvol.PROPAGATORS.get("RegionPropagator")())
    for number, path in enumerate(read):
        volume = medvol.read_volume(path, modality="CT")
        try:
            segmenter.segment(volume, QUERY).save(folder / "answers", f"answer_{number:02d}")
        except medvol.MedvolError as error:
            print(f"{path.name}: no answer, so nothing to correct: {error}")
    table = correct(folder / "answers", read)
    dataset = medvol.DATASETS.get("NiftiDataset")(root=str(folder / "answers"), table=str(table))
    if not more.is_dir():
        train_more(base, dataset, more_steps, folder / "more")
    models = {"before": base, "after": more}
    return {
        "base_steps": base_steps,
        "more_steps": more_steps,
        "corrections": len(dataset),
        "seconds": round(time.monotonic() - began, 1),
        "corrected_scans": {name: score(model, read) for name, model in models.items()},
        "other_scans": {name: score(model, held_out) for name, model in models.items()},
        "other_question": {name: score(model, others, OTHER_QUERY) for name, model in models.items()},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/correction_round"))
    parser.add_argument("--base_steps", type=int, default=160)
    parser.add_argument("--more_steps", type=int, default=40)
    options = parser.parse_args()
    print(json.dumps(run(options.folder, options.base_steps, options.more_steps), indent=1))
