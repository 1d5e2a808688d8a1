"""The tables of real scans open, and say what is in the files."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medvol.datasets.nifti import NiftiDataset

TABLES = Path(__file__).resolve().parents[2] / "examples" / "tables"
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def targets(shared_data):
    dataset = NiftiDataset(str(shared_data), str(TABLES / "real_targets.csv"))
    return [dataset[i] for i in range(len(dataset))]


def test_every_real_target_has_its_voxels(targets):
    counts = {(case.patient_id, case.query.target): int(case.target.sum()) for case in targets}
    assert len(counts) == len(targets) == 55
    assert min(counts.values()) >= 200
    for key, voxels in {
        ("totalseg_ct_abdomen", "spleen"): 9452,
        ("totalseg_ct_abdomen", "right kidney"): 3947,
        ("totalseg_ct_abdomen", "left kidney"): 3676,
        ("totalseg_ct_abdomen", "liver"): 38634,
        ("totalseg_mr_abdomen", "spleen"): 1941,
        ("totalseg_ct_pulmonary_artery", "heart"): 198176,
        ("lidc0314_ct_nodule", "lung nodule"): 3399,
        ("lung1_ct_nodule", "lesion"): 837,
        ("deeplesion_000010_01_01_078-090", "lesion"): 51266,
        ("brain1_mr_tumour", "brain tumour"): 4137,
    }.items():
        assert counts[key] == voxels


def test_no_large_target_of_the_label_maps_is_missing(shared_data, targets):
    for folder in ("totalseg_ct_abdomen", "totalseg_mr_abdomen"):
        labels = np.asarray(nib.load(shared_data / folder / "label.nii.gz").dataobj)
        large = sum(count >= 200 for count in np.unique(labels[labels > 0], return_counts=True)[1])
        assert len([case for case in targets if case.patient_id == folder]) == large


def test_modalities_and_sides(targets):
    modality = {case.patient_id: case.volume.modality for case in targets}
    assert modality["totalseg_ct_abdomen"] == "CT"
    assert modality["totalseg_mr_abdomen"] == modality["brain1_mr_tumour"] == "MR"
    assert modality["deeplesion_000010_01_01_078-090"] == "other"
    for folder in ("totalseg_ct_abdomen", "totalseg_mr_abdomen"):
        x = {c.query.target: np.nonzero(c.target)[2].mean() for c in targets if c.patient_id == folder}
        assert x["right kidney"] < x["left kidney"]
        assert x["liver"] < x["spleen"]


def test_sarcomas_are_split_by_patient(shared_data):
    parts = {s: NiftiDataset(str(shared_data), str(TABLES / "sts.csv"), split=s) for s in ("train", "val", "test")}
    patients = {split: {d.patient_id(i) for i in range(len(d))} for split, d in parts.items()}
    assert sum(map(len, patients.values())) == len(set().union(*patients.values()))
    assert sum(map(len, parts.values())) == 56
    assert min(map(len, patients.values())) >= 5


def test_every_sarcoma_has_a_mask(shared_data):
    dataset = NiftiDataset(str(shared_data), str(TABLES / "sts.csv"))
    for i in range(len(dataset)):
        case = dataset[i]
        assert case.target.sum() > 200
        assert case.query.target == "soft-tissue mass"
        assert case.volume.modality == ("CT" if "_CT" in case.case_id else "MR")


def test_a_real_folder_needs_no_table(shared_data):
    dataset = NiftiDataset(str(shared_data / "totalseg_ct_abdomen"), modality="CT")
    targets = {dataset[i].query.target for i in range(len(dataset))}
    assert {"spleen", "liver", "left kidney", "right kidney", "kidneys", "inferior vena cava"} <= targets
