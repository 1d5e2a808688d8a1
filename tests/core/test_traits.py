"""Traits of a scan: closed forms, scale, and real scans told apart from drawn ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvol.core.training_data import TrainingData
from medvol.core.traits import TRAITS, measure_traits
from medvol.core.types import Volume
from medvol.datasets.phantom import PhantomDataset
from medvol.datasets.settings import CacheSettings
from medvol.imaging.geometry import make_volume
from medvol.imaging.reading import read_volume
from medvol.inference.novelty import find_novelties


def test_lengths_and_tissue_of_a_made_scan() -> None:
    """Ten slices: one of lung, three of fat, four of soft tissue, one of bone, one of air."""
    values = [-700, -100, -100, -100, 40, 40, 40, 40, 500, -1000]
    voxels = np.repeat(np.array(values, np.float32), 20 * 30).reshape(10, 20, 30)
    traits = measure_traits(make_volume(voxels, (5.0, 2.0, 0.5)))
    tissue = 8
    assert traits == pytest.approx(
        {
            "height_mm": 50,
            "depth_mm": 40,
            "width_mm": 15,
            "slice_spacing_mm": 5,
            "pixel_spacing_mm": 1,
            "lung_share": 1 / tissue,
            "fat_share": 3 / tissue,
            "soft_share": 4 / tissue,
            "dense_share": 1 / tissue,
        }
    )
    assert set(traits) <= set(TRAITS)


@given(st.floats(1e-12, 1e12), st.floats(-1e3, 1e3))
def test_a_scan_without_units_has_traits_without_scale(scale: float, offset: float) -> None:
    ramp = np.arange(1000, dtype=np.float64).reshape(10, 10, 10)
    volume = make_volume(ramp.astype(np.float32), (1, 1, 1), "MR")
    scaled = make_volume(((ramp + offset) * scale).astype(np.float32), (1, 1, 1), "MR")
    assert measure_traits(scaled) == pytest.approx(measure_traits(volume), abs=1e-3)
    assert measure_traits(volume)["middle_share"] == pytest.approx(0.5)
    assert measure_traits(volume)["upper_share"] == pytest.approx((75 - 1) / 98)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_constant_scan_is_measured(modality) -> None:
    traits = measure_traits(make_volume(np.zeros((1, 2, 2), np.float32), (1, 1, 1), modality))
    assert all(np.isfinite(list(traits.values())))


def test_few_slices_are_read() -> None:
    read: list[int] = []

    class Kept(Volume):
        def axial(self, z):
            read.append(z)
            return super().axial(z)

    measure_traits(Kept(np.zeros((500, 20, 20), np.float32), np.eye(4)))
    assert len(read) == 24
    assert (read[0], read[-1]) == (0, 499)


def phantoms(split: str, count: int) -> list[Volume]:
    data = PhantomDataset(split, num_volumes=count, cache=CacheSettings(scans=1))
    first = {data.volume_key(index): index for index in reversed(range(len(data)))}
    return [data[index].volume for index in sorted(first.values())]


@pytest.fixture(scope="module")
def drawn() -> TrainingData:
    data = TrainingData()
    for volume in phantoms("train", 8):
        data.meet_scan(volume)
    return data


def codes(volume: Volume, data: TrainingData) -> set[str]:
    data = replace(data, words=None)
    return {warning.code for warning in find_novelties(volume, "x", data)[0]}


def test_new_phantoms_are_like_the_old_ones(drawn: TrainingData) -> None:
    assert [codes(volume, drawn) for volume in phantoms("test", 12)] == [set()] * 12


def test_real_scans_are_unlike_phantoms(drawn: TrainingData, shared_data: Path) -> None:
    paths = [*sorted(shared_data.glob("sts/*_00*_CT_image.nii.gz")), shared_data / "totalseg_ct_abdomen/image.nii.gz"]
    for path in paths:
        assert codes(read_volume(path, modality="CT"), drawn), path
    brain = read_volume(shared_data / "brain1_mr_tumour" / "image.nrrd")
    assert codes(brain, drawn) == {"other_modality"}


def test_a_real_scan_on_the_grid_of_a_phantom_is_told_by_its_tissue(drawn: TrainingData, shared_data: Path) -> None:
    scan = read_volume(shared_data / "totalseg_ct_abdomen" / "image.nii.gz")
    phantom = phantoms("train", 1)[0]
    step = np.array(scan.shape) / phantom.shape
    rows = [(np.arange(size) * one).astype(int) for size, one in zip(phantom.shape, step, strict=True)]
    disguised = replace(phantom, voxels=np.ascontiguousarray(scan.voxels[np.ix_(*rows)]))
    assert codes(disguised, drawn) == {"other_tissue"}


def test_most_scans_of_one_study_are_like_the_others(shared_data: Path) -> None:
    """Twelve scans say what the other CTs of the same study look like; one in ten may be unlike."""
    scans = [read_volume(path, modality="CT") for path in sorted(shared_data.glob("sts/*_CT_image.nii.gz"))]
    data = TrainingData()
    for scan in scans[::2]:
        data.meet_scan(scan)
    unlike = sum(bool(codes(scan, data)) for scan in scans[1::2])
    assert len(scans[1::2]) == 12
    assert unlike <= 1
