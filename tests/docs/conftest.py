"""A reader's folder: the files that the pages name, small."""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

import medvol

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENTS = 4
TARGETS = {"spleen": ("spleen",), "left kidney": ("kidney_left",), "right kidney": ("kidney_right",)}
"""Targets of the reader's table, and the names that other systems have for them."""


def write_scans(folder: Path) -> Path:
    """Scans of the reader's own with a table, and the masks that two other systems wrote for them."""
    lines = ["image,mask,label,target,patient,modality"]
    drawn = medvol.DATASETS.get("PhantomDataset")(split="test", num_volumes=PATIENTS)
    values = {target: value for value, target in enumerate(TARGETS, start=1)}
    scans: dict[str, dict[str, medvol.Case]] = {}
    for index in range(len(drawn)):
        case = drawn[index]
        if case.query.target in TARGETS:
            scans.setdefault(case.volume.volume_id, {})[case.query.target] = case
    for number, cases in enumerate(scans.values(), start=1):
        patient = f"p{number:02d}"
        volume = next(iter(cases.values())).volume
        medvol.write_volume(folder / "scans" / patient / "ct.nii.gz", volume)
        labels = np.zeros(volume.voxels.shape, np.uint8)
        for target, case in cases.items():
            labels[case.target] = values[target]
            lines.append(f"{patient}/ct.nii.gz,{patient}/labels.nii.gz,{values[target]},{target},{patient},CT")
            save(folder / "ts_out" / patient / f"{TARGETS[target][0]}.nii.gz", case.target, volume)
        save(folder / "scans" / patient / "labels.nii.gz", labels, volume)
        save(folder / "nnunet_out" / f"{patient}.nii.gz", labels, volume)
    (folder / "nnunet_out" / "dataset.json").write_text(json.dumps({"labels": values}))
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "scans" / "p01" / "ct.nii.gz"


def save(path: Path, labels: np.ndarray, volume: medvol.Volume) -> None:
    """A label map on a volume's grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(labels.astype(np.uint8).transpose(2, 1, 0), volume.affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


EXPERIMENT = {
    "model": {
        "class_path": "ScratchModule",
        "init_args": {"policy": "TinyPolicy", "propagator": "RegionPropagator", "evaluation": {"max_new_tokens": 64}},
    },
    "data": {
        "class_path": "CaseDataModule",
        "init_args": {
            "batch_size": 2,
            **{
                split: {
                    "class_path": "NiftiDataset",
                    "init_args": {"root": "scans", "table": "table.csv", "patients": {"only": patients}},
                }
                for split, patients in {"train": ["p01", "p02"], "val": ["p03"], "test": ["p04"]}.items()
            },
        },
    },
    "trainer": {"default_root_dir": "runs/experiment", "max_steps": 100, "max_epochs": -1, "accelerator": "cpu"},
}
"""An experiment on the reader's own scans."""


def write_experiment(path: Path, root: str) -> None:
    """The experiment, with another run folder."""
    settings = deepcopy(EXPERIMENT)
    settings["trainer"]["default_root_dir"] = root
    path.write_text(yaml.safe_dump(settings))


@pytest.fixture(scope="session")
def reader_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages name; copy it before anything writes into it."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(REPOSITORY / "examples", folder / "examples")
    for run in ("quickstart", "own_data", "second_look"):
        shutil.copytree(REPOSITORY / "medvol" / "bundled" / "best", folder / "runs" / run / "model")
    scan = write_scans(folder)
    for name in ("ct", "scan", "phantom"):
        shutil.copy(scan, folder / f"{name}.nii.gz")
    write_experiment(folder / "experiment.yaml", "runs/experiment")
    write_experiment(folder / "exp.yaml", "runs/exp")
    shutil.copy(REPOSITORY / "examples" / "own_data.yaml", folder / "own_data.yaml")
    jobs = [{"scan": "export/patient7", "queries": ["the spleen", "the left kidney"]}]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    for name in ("served.yaml", "grpo.yaml"):
        shutil.copy(REPOSITORY / "examples" / "quickstart.yaml", folder / name)
    return folder
