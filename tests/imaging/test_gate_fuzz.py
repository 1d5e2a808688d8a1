"""Mutated scans: refused by name, or read just as nibabel and SimpleITK place them."""

import warnings

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medvol.imaging.formats.itk_geometry import RAS
from medvol.imaging.formats.problems import RefusedScanError
from medvol.imaging.geometry import corner_distance_mm
from medvol.imaging.reading import read_volume

COUNT = 150
MAX_BYTES = 2_000_000
"""Small, so that no mutation asks for much memory; nibabel and SimpleITK only see what was accepted."""


def flip_bits(data, rng, end):
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        damaged[rng.integers(0, end)] ^= 1 << rng.integers(0, 8)
    return bytes(damaged)


def overwrite(data, rng, end):
    start = rng.integers(0, end)
    width = int(rng.choice([1, 2, 4, 8]))
    value = rng.choice([b"\0" * 8, b"\xff" * 8, b"\x7f\xff\xff\x7f" * 2, rng.bytes(8), b"99999999"])
    return data[:start] + value[:width] + data[start + width :]


def truncate(data, rng, end):
    return data[: rng.integers(0, len(data))]


def insert(data, rng, end):
    start = rng.integers(0, end)
    return data[:start] + rng.bytes(int(rng.integers(1, 9))) + data[start:]


def remove(data, rng, end):
    start = rng.integers(0, end)
    return data[:start] + data[start + rng.integers(1, 9) :]


def copy_within(data, rng, end):
    a, b, width = rng.integers(0, end), rng.integers(0, end), rng.integers(1, 33)
    return data[:b] + data[a : a + width] + data[b + width :]


MUTATIONS = (flip_bits, overwrite, truncate, insert, remove, copy_within)


def zipped_header(scans, rng):
    """A damaged header inside a sound gzip stream."""
    data = scans.nifti()
    return scans.zip(rng.choice(MUTATIONS)(data, rng, 352))


def makers(scans):
    def mutate(data, end):
        return lambda rng: rng.choice(MUTATIONS)(data, rng, end)

    nrrd, meta = scans.nrrd(), scans.meta()
    zipped_nrrd = scans.nrrd(scans.zip(scans.raw()), encoding="gzip")
    return {
        "scan.nii": mutate(scans.nifti(), 352),
        "two.nii": mutate(scans.nifti(kind=nib.Nifti2Image), 544),
        "header.nii.gz": lambda rng: zipped_header(scans, rng),
        "scan.nii.gz": mutate(scans.zip(scans.nifti()), len(scans.zip(scans.nifti()))),
        "scan.nrrd": mutate(nrrd, nrrd.index(b"\n\n")),
        "zipped.nrrd": mutate(zipped_nrrd, len(zipped_nrrd)),
        "scan.mha": mutate(meta, meta.index(b"LOCAL") + 6),
    }


def outcome(path):
    """The volume or None, and what became of it."""
    try:
        return read_volume(path, max_bytes=MAX_BYTES), "accepted"
    except RefusedScanError as refusal:
        sentence = str(refusal)
        code = refusal.code
    assert "\n" not in sentence
    assert len(sentence) < 600
    return None, code


def reference_affine(path):
    """Affine of another reader, in NIfTI's world."""
    if path.name.endswith((".nii", ".nii.gz")):
        return nib.load(path).affine
    image = sitk.ReadImage(str(path), imageIO="NrrdImageIO" if path.suffix == ".nrrd" else "MetaImageIO")
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return RAS @ affine


@pytest.mark.parametrize(
    "name", ["scan.nii", "two.nii", "header.nii.gz", "scan.nii.gz", "scan.nrrd", "zipped.nrrd", "scan.mha"]
)
def test_mutations_are_refused_by_name_or_agree(scans, tmp_path, name):
    rng = np.random.default_rng(len(name))
    make = makers(scans)[name]
    outcomes = {}
    for number in range(COUNT):
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(make(rng))
        volume, code = outcome(path)
        outcomes[code] = outcomes.get(code, 0) + 1
        if volume is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = reference_affine(path)
        assert corner_distance_mm(volume.source.affine, expected, volume.source.shape) <= 0.01, path.read_bytes()[:700]
        assert np.isfinite(volume.voxels).all()
    assert outcomes.keys() - {"accepted"}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_random_bytes_are_refused(tmp_path, name):
    rng = np.random.default_rng(3)
    for size in (1, 3, 4, 5, 347, 348, 400, 5000):
        (tmp_path / name).write_bytes(rng.bytes(size))
        with pytest.raises(RefusedScanError):
            read_volume(tmp_path / name, max_bytes=MAX_BYTES)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_every_truncation_is_refused(scans, tmp_path, name):
    """A file cut anywhere is never read; every length near the header, and some of the rest."""
    data = {
        "a.nii": scans.nifti(),
        "a.nii.gz": scans.zip(scans.nifti()),
        "a.nrrd": scans.nrrd(),
        "a.mha": scans.meta(),
    }[name]
    for length in [*range(0, 420, 3), *range(420, len(data), 331), len(data) - 1]:
        (tmp_path / name).write_bytes(data[:length])
        with pytest.raises(RefusedScanError):
            read_volume(tmp_path / name, max_bytes=MAX_BYTES)
