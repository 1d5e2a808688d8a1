"""One hash of a volume: its identity, what records know it by, and computed once."""

import hashlib
import pickle
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

import medvol
from medvol.core.types import Volume
from medvol.imaging import volume_hash
from medvol.imaging.cache.slice_cache import SliceCache
from medvol.imaging.volume_hash import hash_volume, hash_voxels

VOXELS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
AFFINE = np.diag([-1.0, -2.0, 3.0, 1.0])


@pytest.fixture
def path(tmp_path):
    image = nib.Nifti1Image(
        np.random.default_rng(0).integers(-999, 999, (5, 6, 7)).astype(np.int16), np.diag([1, 1, 2, 1.0])
    )
    nib.save(image, tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


def count_hashes(monkeypatch):
    calls = []
    monkeypatch.setattr(volume_hash, "hash_voxels", lambda *arrays: calls.append(1) or hash_voxels(*arrays))
    return calls


def test_it_is_the_hash_of_shape_affine_and_voxels():
    content = np.array([2, 3, 4], np.int64).tobytes() + AFFINE.tobytes() + VOXELS.tobytes()
    assert hash_volume(Volume(VOXELS, AFFINE)) == hashlib.sha256(content).hexdigest()
    assert hash_voxels(VOXELS.astype(np.int16), AFFINE) == hash_voxels(np.asfortranarray(VOXELS), AFFINE)


def test_a_volume_is_hashed_once(monkeypatch):
    calls = count_hashes(monkeypatch)
    volume = Volume(VOXELS, AFFINE)
    assert hash_volume(volume) == hash_volume(volume) == hash_volume(pickle.loads(pickle.dumps(volume)))
    assert len(calls) == 1


def test_a_copy_with_other_voxels_has_another_hash():
    volume = Volume(VOXELS, AFFINE)
    first = hash_volume(volume)
    assert hash_volume(replace(volume, voxels=VOXELS + 1)) != first
    assert hash_volume(replace(volume, affine=AFFINE * 2)) != first


def test_what_is_read_has_its_hash_as_identity_and_is_not_hashed_again(path, tmp_path, monkeypatch):
    volume = medvol.read_volume(path)
    cached = [SliceCache(tmp_path / "cache").read_volume(path) for _ in range(2)]
    calls = count_hashes(monkeypatch)
    assert {volume.volume_id, hash_volume(volume), *map(hash_volume, cached)} == {
        hash_voxels(volume.voxels, volume.affine)
    }
    assert not calls


def test_a_zero_below_zero_is_zero() -> None:
    """A copy of a scan as whole numbers is the same scan, and whole numbers have no such zero."""
    voxels = np.zeros((2, 3, 4), np.float32)
    voxels[0] = -0.0
    assert hash_voxels(voxels, np.eye(4)) == hash_voxels(voxels.astype(np.int16), np.eye(4))
