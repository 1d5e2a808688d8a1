"""The cache of slices: the same voxels, only those that are asked for, within its bound, whatever happens to it."""

import json
import logging
import multiprocessing
import os
import pickle
import shutil
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medvol.core import settled_files
from medvol.core.errors import ConfigError, GeometryError, ScanError
from medvol.core.prompts import WINDOWS
from medvol.imaging.cache import cached_volume, slice_archive, slice_cache
from medvol.imaging.cache.slice_cache import SliceCache
from medvol.imaging.reading import read_labels, read_volume
from medvol.imaging.slices import draw_slices
from medvol.imaging.windows import window_limits
from medvol.imaging.writing import write_mask

SHAPE = (9, 7, 12)


def write_scan(path: Path, dtype=np.int16, scale=None, seed=0, low=-1000) -> Path:
    """A file from front to back, left to right: every axis runs against the canonical one."""
    rng = np.random.default_rng(seed)
    top = min(1500, np.iinfo(dtype).max) if np.dtype(dtype).kind in "iu" else 1500
    voxels = rng.integers(max(low, np.iinfo(dtype).min) if np.dtype(dtype).kind in "iu" else low, top, SHAPE)
    image = nib.Nifti1Image(voxels.astype(dtype), np.diag([1.5, 2.0, -4.0, 1]))
    if scale:
        image.header.set_slope_inter(*scale)
    image.set_qform(image.affine, 1)
    nib.save(image, path)
    return path


def same(first, second) -> bool:
    return (
        np.array_equal(first.voxels, second.voxels)
        and first.voxels.dtype == second.voxels.dtype == np.float32
        and np.array_equal(first.affine, second.affine)
        and (first.volume_id, first.modality, first.shape) == (second.volume_id, second.modality, second.shape)
        and np.array_equal(first.source.affine, second.source.affine)
        and np.array_equal(first.source.orientation, second.source.orientation)
        and first.source.shape == second.source.shape
        and first.source.path == second.source.path
        and first.source.header == second.source.header
    )


@pytest.fixture
def cache(tmp_path: Path) -> SliceCache:
    return SliceCache(tmp_path / "cache")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Slices that are read from archives."""
    found: list[int] = []
    read = slice_archive.SliceArchive.read
    monkeypatch.setattr(slice_archive.SliceArchive, "read", lambda self, z: found.append(z) or read(self, z))
    return found


@pytest.fixture
def rested(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is a minute ahead of the files, so that they count as settled."""
    now = time.time_ns
    monkeypatch.setattr(settled_files.time, "time_ns", lambda: now() + 60 * 10**9)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])
@pytest.mark.parametrize("modality", [None, "CT", "MR"])
def test_equal_to_reading_the_file(cache, tmp_path, dtype, modality):
    path = write_scan(tmp_path / "ct.nii.gz", np.dtype(dtype))
    plain = read_volume(path, modality=modality)
    assert same(cache.read_volume(path, modality), plain)
    again = cache.read_volume(path, modality)
    assert same(again, plain)
    for window in WINDOWS.values():
        assert window_limits(cache.read_volume(path, modality), window) == window_limits(plain, window)


def test_equal_for_scaled_voxels_nrrd_and_mha(cache, tmp_path):
    paths = [write_scan(tmp_path / "scaled.nii.gz", np.int16, (0.37, -3.5))]
    image = sitk.GetImageFromArray(np.random.default_rng(1).integers(-1000, 1000, SHAPE).astype(np.int16))
    image.SetSpacing((0.7, 0.8, 3))
    image.SetDirection((-1, 0, 0, 0, 0, 1, 0, 1, 0))
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(image, tmp_path / name)
        paths.append(tmp_path / name)
    for path in paths:
        plain = read_volume(path)
        assert same(cache.read_volume(path), plain)
        kept = cache.read_volume(path)
        assert same(kept, plain)
        mask = plain.voxels > 0
        ending = path.name.partition(".")[2]
        written = [
            write_mask(tmp_path / f"{name}.{ending}", mask, volume).read_bytes()
            for volume, name in ((plain, "plain"), (kept, "kept"))
        ]
        assert written[0] == written[1]


def test_only_the_slices_that_are_drawn_are_read(cache, tmp_path, reads):
    path = write_scan(tmp_path / "ct.nii.gz")
    cache.read_volume(path)
    volume = cache.read_volume(path)
    assert volume.shape == SHAPE[::-1]
    drawn = draw_slices(volume, (0, 3, 11), ("soft_tissue", "contrast", "wide"), 6, 5)
    assert reads == [0, 3, 11]
    plain = draw_slices(read_volume(path), (0, 3, 11), ("soft_tissue", "contrast", "wide"), 6, 5)
    assert np.array_equal(drawn.pixels, plain.pixels)
    reads.clear()
    assert volume.voxels.shape == volume.shape
    assert np.array_equal(volume.axial(5), volume.voxels[5])
    assert np.array_equal(volume.axial(-1), volume.voxels[11])
    assert reads == list(range(12))


def test_the_file_is_not_opened_again(cache, tmp_path, monkeypatch):
    path = write_scan(tmp_path / "ct.nii.gz")
    cache.read_volume(path)
    monkeypatch.setattr(slice_cache, "read_oriented", None)
    monkeypatch.setattr(slice_cache, "read_volume", None)
    assert cache.read_volume(path).shape == SHAPE[::-1]
    # The same bytes under another name are the same scan.
    copy = Path(shutil.copy(path, tmp_path / "copy.nii.gz"))
    assert cache.read_volume(copy).source.path == copy


@pytest.mark.parametrize("change", ["content", "modality", "medvol", "blosc2", "layout"])
def test_what_an_entry_is_found_by(cache, tmp_path, monkeypatch, change):
    path = write_scan(tmp_path / "ct.nii.gz")
    cache.read_volume(path)
    modality = None
    if change == "content":
        before = path.stat()
        write_scan(path, seed=1)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif change == "modality":
        modality = "MR"
    elif change == "layout":
        monkeypatch.setattr(slice_cache, "LAYOUT", 99)
    else:
        name = {"medvol": "medvol-r1"}.get(change, change)
        known = slice_cache.version
        monkeypatch.setattr(slice_cache, "version", lambda package: "99" if package == name else known(package))
    assert same(cache.read_volume(path, modality), read_volume(path, modality=modality))
    assert len(list(cache.folder.glob("*.slices"))) == 2


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 300], [-1, 0, 5], [0, 70000]])
def test_labels(cache, tmp_path, labels):
    path = write_scan(tmp_path / "ct.nii.gz")
    volume = cache.read_volume(path)
    image = nib.load(path)
    values = np.random.default_rng(2).choice(labels, SHAPE).astype(np.int32)
    nib.save(nib.Nifti1Image(values, image.affine), tmp_path / "label.nii.gz")
    plain = read_labels(tmp_path / "label.nii.gz", read_volume(path))
    for _ in range(2):
        kept = cache.read_labels(tmp_path / "label.nii.gz", volume)
        assert kept.dtype == np.int32
        assert np.array_equal(kept, plain)


def write_labels(path: Path, side: int) -> Path:
    """A cube of some voxels; its file has one size and one time of change, as in an archive that is packed again."""
    values = np.zeros(SHAPE, np.uint8)
    values[:side, :side, :side] = 1
    image = nib.Nifti1Image(values, np.diag([1.5, 2.0, -4.0, 1]))
    path.write_bytes(image.to_bytes())
    os.utime(path, (0, 0))
    return path


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("unlinked", [True, False])
def test_labels_of_the_same_size_and_time_are_read_again(cache, tmp_path, request, settled, unlinked):
    """Times of change can be set, and a new file often has the number of the one that was deleted before."""
    if settled:
        request.getfixturevalue("rested")
    volume, path = cache.read_volume(write_scan(tmp_path / "ct.nii.gz")), tmp_path / "label.nii"
    for side in (2, 5):
        if unlinked:
            path.unlink(missing_ok=True)
        assert int(cache.read_labels(write_labels(path, side), volume).sum()) == side**3


def test_a_file_that_rests_is_hashed_once(cache, tmp_path, monkeypatch, rested):
    path = write_scan(tmp_path / "ct.nii.gz")
    cache.read_volume(path)
    opened = []
    whole = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *mode, **how: opened.append(self) or whole(self, *mode, **how))
    cache.read_volume(path)
    assert path not in opened


def test_damaged_labels_are_made_anew(cache, tmp_path, caplog):
    path = write_scan(tmp_path / "ct.nii.gz")
    plain = read_volume(path)
    expected = read_labels(path, plain)
    assert np.array_equal(cache.read_labels(path, plain), expected)
    [entry] = cache.folder.glob("*.slices")
    data = bytearray(entry.read_bytes())
    data[60] ^= 0xFF
    entry.write_bytes(bytes(data))
    for _ in range(2):
        assert np.array_equal(cache.read_labels(path, plain), expected)
    assert caplog.text.count("is damaged and is made anew") == 1


def test_labels_of_another_scan_are_refused_again_and_again(cache, tmp_path):
    volume = cache.read_volume(write_scan(tmp_path / "ct.nii.gz"))
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.diag([1.5, 2.0, -5.0, 1])), tmp_path / "label.nii.gz")
    for _ in range(2):
        with pytest.raises(GeometryError):
            cache.read_labels(tmp_path / "label.nii.gz", volume)


def test_a_refused_scan_is_not_kept(cache, tmp_path):
    path = write_scan(tmp_path / "ct.nii.gz")
    path.write_bytes(path.read_bytes()[:-9])
    for _ in range(2):
        with pytest.raises(ScanError):
            cache.read_volume(path)
    with pytest.raises(ScanError, match="no such file"):
        cache.read_volume(tmp_path / "none.nii.gz")
    assert not list(cache.folder.glob("*.slices"))


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "flipped", "stripped"])
def test_a_damaged_entry_is_made_anew(cache, tmp_path, damage, caplog):
    path = write_scan(tmp_path / "ct.nii.gz")
    cache.read_volume(path)
    [entry] = cache.folder.glob("*.slices")
    data = entry.read_bytes()
    flipped = bytearray(data)
    flipped[60] ^= 0xFF
    entry.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "empty": b"",
            "garbage": b"garbage" * 999,
            "flipped": bytes(flipped),
            "stripped": data.replace(b"meta.json", b"beta.json"),
        }[damage]
    )
    with caplog.at_level(logging.WARNING):
        volume = cache.read_volume(path)
        assert same(volume, read_volume(path))
        assert np.array_equal(volume.axial(0), read_volume(path).voxels[0])
    assert caplog.records


HOSTILE_META = {
    "objects": {"dtype": "|O"},
    "a structure": {"dtype": "i4,i4"},
    "text": {"dtype": "<U100000000"},
    "no type": {"dtype": None},
    "an absurd shape": {"shape": [4, 10**9, 10**9]},
    "absurd depth": {"shape": [10**9, 6, 5]},
    "a larger shape": {"shape": [SHAPE[2], 600, 500]},
    "a negative shape": {"shape": [-4, 6, 5]},
    "two axes": {"shape": [4, 6]},
    "words": {"shape": "abc"},
    "an affine of words": {"affine": "abc"},
    "an affine of nothing": {"affine": []},
    "another modality": {"modality": "evil"},
    "percentiles in a list": {"percentiles": [1, 2]},
    "no source": {"source": None},
    "an unknown header": {"source": {"affine": [], "shape": [1, 2, 3], "orientation": [], "header": {"kind": "Evil"}}},
    "a header of a byte": {
        "source": {
            "affine": [],
            "shape": [1, 2, 3],
            "orientation": [],
            "header": {"kind": "Nifti1Header", "order": "<", "block": "AA=="},
        }
    },
}


def rewrite(entry, change, compression=zipfile.ZIP_STORED):
    """Write an entry again with another meta file."""
    with zipfile.ZipFile(entry) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["meta.json"] = change(members["meta.json"])
    with zipfile.ZipFile(entry, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("kind", ["volume", "labels"])
@pytest.mark.parametrize("meta", HOSTILE_META.values(), ids=HOSTILE_META)
def test_a_hostile_entry_is_made_anew(cache, tmp_path, kind, meta, caplog):
    path = write_scan(tmp_path / "ct.nii.gz")
    plain = read_volume(path)
    read = {"volume": lambda: cache.read_volume(path), "labels": lambda: cache.read_labels(path, plain)}[kind]
    read()
    [entry] = cache.folder.glob("*.slices")
    rewrite(entry, lambda text: json.dumps({**json.loads(text), **meta}).encode())
    found = read()
    assert same(found, plain) if kind == "volume" else np.array_equal(found, read_labels(path, plain))
    assert (kind == "labels" and not {"dtype", "shape"} & set(meta)) or "is made anew" in caplog.text


@pytest.mark.parametrize(
    ("text", "compression"),
    [
        (b"[" * 100_000 + b"]" * 100_000, zipfile.ZIP_STORED),
        (b'{"shape": ' + b"9" * 6000 + b"}", zipfile.ZIP_STORED),
        (b" " * 50_000_000, zipfile.ZIP_DEFLATED),
        (b" " * 17_000_000, zipfile.ZIP_STORED),
    ],
    ids=["deep", "long number", "compressed", "long"],
)
def test_a_hostile_description_is_made_anew(cache, tmp_path, text, compression, caplog):
    path = write_scan(tmp_path / "ct.nii.gz")
    cache.read_volume(path)
    [entry] = cache.folder.glob("*.slices")
    rewrite(entry, lambda _: text, compression)
    assert same(cache.read_volume(path), read_volume(path))
    assert "is made anew" in caplog.text


def test_a_hostile_index_is_passed_over(cache, tmp_path, rested):
    path = write_scan(tmp_path / "ct.nii.gz")
    cache.read_volume(path)
    [index] = (cache.folder / "hashes").glob("*.json")
    for text in ("[" * 100_000, '{"stamp": 1, "hash": 2}', "[]", "9" * 6000, json.dumps({"hash": "../../x"})):
        index.write_text(text)
        assert same(cache.read_volume(path), read_volume(path))
    assert len(list(cache.folder.glob("*.slices"))) == 1


def test_an_entry_that_is_dropped_while_it_is_used(cache, tmp_path, caplog):
    path = write_scan(tmp_path / "ct.nii.gz")
    cache.read_volume(path)
    volume = pickle.loads(pickle.dumps(cache.read_volume(path)))
    shutil.rmtree(cache.folder)
    cached_volume._open_archive.cache_clear()
    assert np.array_equal(volume.axial(2), read_volume(path).voxels[2])
    assert "is read instead" in caplog.text
    again = pickle.loads(pickle.dumps(volume))
    write_scan(path, seed=5)
    with pytest.raises(ScanError, match="changed while it was in use"):
        again.axial(2)


def test_it_travels_without_its_voxels(cache, tmp_path):
    path = write_scan(tmp_path / "ct.nii.gz")
    cache.read_volume(path)
    volume = cache.read_volume(path)
    assert volume.voxels.any()
    data = pickle.dumps(volume)
    assert len(data) < 5000
    assert same(pickle.loads(data), volume)


def test_a_replaced_field_keeps_the_rest(cache, tmp_path):
    path = write_scan(tmp_path / "ct.nii.gz")
    cache.read_volume(path)
    other = replace(cache.read_volume(path), volume_id="x")
    assert same(replace(other, volume_id=read_volume(path).volume_id), read_volume(path))
    assert repr(other) == repr(replace(read_volume(path), volume_id="x")).replace("Volume", "CachedVolume", 1)
    shutil.rmtree(cache.folder)
    path.unlink()
    assert np.array_equal(pickle.loads(pickle.dumps(other)).voxels, other.voxels)


def test_the_bound_drops_what_was_used_longest_ago(tmp_path):
    paths = [write_scan(tmp_path / f"{i}.nii.gz", seed=i) for i in range(4)]
    unbounded = SliceCache(tmp_path / "other")
    unbounded.read_volume(paths[0])
    [size] = [entry.stat().st_size for entry in unbounded.folder.glob("*.slices")]
    cache = SliceCache(tmp_path / "cache", max_gib=3.3 * size / 2**30)
    entries = {}
    for i, path in enumerate(paths[:3]):
        known = set(cache.folder.glob("*.slices"))
        cache.read_volume(path)
        [entries[i]] = set(cache.folder.glob("*.slices")) - known
        os.utime(entries[i], (1000 + i, 1000 + i))
    cache.read_volume(paths[0])  # its use counts, so the second is the oldest now
    cache.read_volume(paths[3])
    left = set(cache.folder.glob("*.slices"))
    assert len(left) == 3
    assert entries[0] in left
    assert entries[1] not in left
    tiny = SliceCache(tmp_path / "tiny", max_gib=1e-9)
    assert same(tiny.read_volume(paths[0]), read_volume(paths[0]))
    assert same(tiny.read_volume(paths[1]), read_volume(paths[1]))
    assert len(list(tiny.folder.glob("*.slices"))) == 1


def test_what_a_killed_process_left_goes_after_a_day(cache, tmp_path):
    cache.read_volume(write_scan(tmp_path / "a.nii.gz"))
    old, new = cache.folder / ".partial-1-x.slices", cache.folder / ".partial-2-x.slices"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    cache.read_volume(write_scan(tmp_path / "b.nii.gz", seed=1))
    assert (old.exists(), new.exists()) == (False, True)


def test_a_bound_that_is_none(tmp_path):
    for bound in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match="above 0"):
            SliceCache(tmp_path, bound)


def test_a_folder_that_cannot_be_written(tmp_path, caplog):
    path = write_scan(tmp_path / "ct.nii.gz")
    (tmp_path / "file").write_text("not a folder")
    assert same(SliceCache(tmp_path / "file").read_volume(path), read_volume(path))
    assert "not kept" in caplog.text


def _read_in_child(volume, queue) -> None:
    queue.put([float(volume.axial(z).sum()) for z in range(12)])


def test_several_processes_read_one_entry(cache, tmp_path):
    path = write_scan(tmp_path / "ct.nii.gz")
    cache.read_volume(path)
    volume = cache.read_volume(path)
    sums = [float(volume.axial(z).sum()) for z in range(12)]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_read_in_child, args=(volume, queue)) for _ in range(3)]
    for child in children:
        child.start()
    assert [queue.get(timeout=60) for _ in children] == [sums] * 3
    for child in children:
        child.join()


def test_a_header_with_its_voxels_beside_it_is_kept(cache, tmp_path):
    image = sitk.GetImageFromArray(np.zeros(SHAPE, np.int16))
    sitk.WriteImage(image, tmp_path / "a.mhd")
    for _ in range(2):
        assert same(cache.read_volume(tmp_path / "a.mhd"), read_volume(tmp_path / "a.mhd"))
    assert len(list(cache.folder.glob("*.slices"))) == 1
