"""The files of a scan, and whether they are still the ones that were read."""

import gzip
import os
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medvol.checking.fingerprint import hash_file, hash_pieces, scan_size
from medvol.core import settled_files
from medvol.imaging.cache.slice_cache import SliceCache
from medvol.imaging.folders import find_scans, look_into
from medvol.imaging.reading import read_labels, read_volume
from medvol.imaging.scan_files import scan_files, stamp_scan


def write_pair(header: Path, value: int) -> Path:
    """A header and its voxels; those of two values differ in the voxels alone."""
    header.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.full((4, 5, 6), value, np.int16)), header)
    return header


@pytest.fixture(params=["ct.mhd", "ct.nhdr"])
def pairs(request, tmp_path: Path) -> list[Path]:
    """Two scans with the same header and other voxels."""
    made = [write_pair(tmp_path / place / request.param, value) for place, value in (("a", 11), ("b", 77))]
    assert made[0].read_bytes() == made[1].read_bytes()
    return made


def test_the_voxels_beside_a_header_belong_to_the_scan(pairs: list[Path]) -> None:
    for path in pairs:
        (voxels,) = (file for file in path.parent.iterdir() if file != path)
        assert scan_files(path) == [path, voxels]
        assert scan_size(path) == path.stat().st_size + voxels.stat().st_size
        contents = look_into(path.parent)
        assert (contents.scans, contents.left_out) == ([path], [])
    assert len(set(map(hash_file, pairs))) == len(set(map(hash_pieces, pairs))) == 2


@pytest.mark.parametrize("names", [("ct.mha", "ct.nrrd"), ("ct.mhd", "ct.nhdr")], ids=str)
def test_a_cache_tells_scans_with_one_header_apart(tmp_path: Path, names: tuple[str, str], monkeypatch) -> None:
    """Formats of one file may have their voxels beside them all the same."""
    monkeypatch.setattr(settled_files, "_SETTLED_NS", -1)
    cache = SliceCache(tmp_path / "cache")
    for name in names:
        for place, value in (("a", 11), ("b", 77)):
            made = write_pair(tmp_path / place / name.replace("mha", "mhd").replace("nrrd", "nhdr"), value)
            path = made.rename(made.with_name(name))
            for _ in range(2):
                volume = cache.read_volume(path)
                assert (volume.voxels == value).all()
                assert volume.volume_id == read_volume(path).volume_id
                assert (cache.read_labels(path, volume) == read_labels(path, volume)).all()


def test_one_file_is_the_scan_and_so_is_each_of_a_folder(tmp_path: Path) -> None:
    for name in ("series/2", "series/sub/1", "ct.nii.gz", "broken.mhd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert scan_files(tmp_path / "series") == [tmp_path / "series/2", tmp_path / "series/sub/1"]
    assert scan_files(tmp_path / "ct.nii.gz") == [tmp_path / "ct.nii.gz"]
    assert scan_files(tmp_path / "broken.mhd") == [tmp_path / "broken.mhd"]
    with pytest.raises(FileNotFoundError):
        stamp_scan(tmp_path / "none.mhd")


def replace_voxels(path: Path) -> None:
    (voxels,) = (file for file in path.parent.iterdir() if file != path)
    state = voxels.stat()
    voxels.write_bytes(bytes(state.st_size))
    os.utime(voxels, ns=(state.st_atime_ns, state.st_mtime_ns))


def remove_one(path: Path) -> None:
    next(path.iterdir()).unlink()


def swap(path: Path) -> None:
    shutil.copytree(path, path.with_name("other"), copy_function=shutil.copy2)
    path.rename(path.with_name("former"))
    path.with_name("other").rename(path)


@pytest.mark.parametrize("change", [replace_voxels, remove_one, swap])
def test_a_stamp_tells_every_change(tmp_path: Path, change) -> None:
    scan = write_pair(tmp_path / "pair" / "ct.mhd", 3)
    if change is not replace_voxels:
        scan = tmp_path / "series"
        scan.mkdir()
        for k in range(3):
            (scan / f"{k}.dcm").write_text("slice")
    before = stamp_scan(scan)
    assert stamp_scan(scan) == before
    assert not before.settled  # it was written just now
    change(scan)
    assert stamp_scan(scan).text != before.text


def test_a_look_into_a_folder_unpacks_no_more_than_first_slices(tmp_path, scans):
    """Each file of 100 kB holds 100 MB of zeros before its voxels, where no scan has them."""
    block = bytearray(scans.nifti())
    gap = 10**8
    block[108:112] = struct.pack("<f", gap)
    bomb = gzip.compress(bytes(block[:348]) + b"\1\0\0\0" + struct.pack("<ii", gap - 352, 6) + bytes(gap - 360), 1)
    for name in ("a_image.nii.gz", "a_label.nii.gz"):
        (tmp_path / name).write_bytes(bomb)
    tracemalloc.start()
    try:
        assert [path.name for path in find_scans(tmp_path)] == ["a_image.nii.gz", "a_label.nii.gz"]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5 * 10**7
