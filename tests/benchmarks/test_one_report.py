"""The benchmark of one report: its label maps are read back as nnU-Net's, and answer all but relational questions."""

import json
import runpy
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medvol.core.types import Evidence, Volume
from medvol.datasets.phantom import PhantomDataset
from medvol.evaluation.imported.layouts import find_masks

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


class Boxes:
    """Fills the boxes on the key slice alone."""

    def propagate(self, volume: Volume, evidence: Evidence) -> np.ndarray:
        mask = np.zeros(volume.shape, bool)
        for x1, y1, x2, y2 in evidence.boxes.astype(int):
            mask[evidence.key_slice, y1:y2, x1:x2] = True
        return mask


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("cells", "peers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return runpy.run_path(str(BENCHMARKS / "one_report.py"))


def test_label_maps_are_those_of_nnunet(program: dict, tmp_path: Path) -> None:
    cases = PhantomDataset("test", 2, shape=(12, 48, 48), lesion_share=1.0)
    program["write_label_maps"](cases, Boxes(), tmp_path)
    labels = json.loads((tmp_path / "dataset.json").read_text())["labels"]
    assert labels["kidneys"] == [labels["left kidney"], labels["right kidney"]]
    assert not set(labels) & set(program["RELATIONAL"])
    layout, found = find_masks(tmp_path)
    assert layout == "nnunet"
    assert {mask.scan for mask in found} == {cases.volume_key(index) for index in range(len(cases))}
    case = next(cases[i] for i in range(len(cases)) if cases[i].query.target == "kidney lesion")
    written = np.asarray(nib.load(tmp_path / f"{case.volume.volume_id}.nii.gz").dataobj).transpose(2, 1, 0)
    areas = case.target.sum(axis=(1, 2))
    (slices,) = np.unique(np.nonzero(written == labels["kidney lesion"])[0])
    assert areas[slices] > 0, "the smallest target lies on top, on a slice that shows it"


def test_the_demo_is_copied_without_weights(program: dict, tmp_path: Path) -> None:
    for kind in ("sft", "grpo"):
        (tmp_path / "demo" / kind / "checkpoints").mkdir(parents=True)
        (tmp_path / "demo" / kind / "evaluation.json").write_text(kind)
    options = program["argparse"].Namespace(demo=tmp_path / "demo", out=tmp_path / "out")
    folders = list(program["copy_demo"](options))
    assert [(folder / "evaluation.json").read_text() for folder in folders] == ["sft", "grpo"]
    assert not any((folder / "checkpoints").exists() for folder in folders)
    options.demo = None
    assert list(program["copy_demo"](options)) == []
