"""The part of a scan that a page carries, read back by nibabel and compared voxel by voxel."""

import gzip
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medvol.core.types import Evidence, Volume
from medvol.imaging.geometry import make_volume
from medvol.inference import page_stack
from medvol.inference.page_stack import make_stack

SHAPE = (6, 20, 30)
SPACING = (5.0, 1.0, 1.0)


def make_scan(shape: tuple[int, int, int] = SHAPE) -> tuple[Volume, np.ndarray, Evidence]:
    rng = np.random.default_rng(3)
    volume = make_volume(rng.uniform(-400, 500, shape).astype(np.float32), SPACING)
    mask = np.zeros(shape, bool)
    mask[2:5, 6:14, 10:20] = True
    return volume, mask, Evidence(3, np.array([[10.0, 6.0, 20.0, 14.0]]))


def read(packed: bytes) -> Any:
    return nib.Nifti1Image.from_bytes(gzip.decompress(packed))


def zyx(image: Any) -> np.ndarray:
    return np.asarray(image.dataobj).transpose(2, 1, 0)


def world(affine: np.ndarray, point_zyx: Any) -> np.ndarray:
    return (affine @ [*point_zyx[::-1], 1])[:3]


def test_a_small_scan_is_whole() -> None:
    volume, mask, evidence = make_scan()
    stack, notes = make_stack(volume, "the block", mask, evidence)
    grey = np.rint(255 * np.clip((volume.voxels + 160) / 400, 0, 1))
    scan, shown = read(stack.scan_nii_gz), read(stack.mask_nii_gz or b"")
    assert np.abs(zyx(scan).astype(int) - grey).max() <= 1
    assert np.array_equal(zyx(shown) > 0, mask)
    for image in (scan, shown):
        np.testing.assert_allclose(image.affine, volume.affine, atol=1e-5)
        assert image.get_data_dtype() == np.uint8
    assert (stack.key, stack.boxes) == (3, ((10.0, 6.0, 20.0, 14.0),))
    assert len(notes) == 1
    assert "soft tissue window, -160 to 240 HU" in notes[0]


def test_a_large_scan_is_cropped_around_mask_and_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_stack, "MAX_VOXELS", 3000)
    monkeypatch.setattr(page_stack, "MARGIN_MM", 5.0)
    volume, mask, evidence = make_scan()
    stack, notes = make_stack(volume, "the block", mask, evidence)
    assert stack.start_zyx == (1, 1, 5)  # 5 mm are one slice and five pixels
    assert stack.shape_zyx == (5, 18, 20)
    assert stack.factor_zyx == (1, 1, 1)
    assert (stack.key, stack.boxes) == (2, ((5.0, 5.0, 15.0, 13.0),))
    assert np.array_equal(zyx(read(stack.mask_nii_gz or b"")) > 0, mask[1:6, 1:19, 5:25])
    first = world(read(stack.scan_nii_gz).affine, (0, 0, 0))
    np.testing.assert_allclose(first, world(volume.affine, (1, 1, 5)), atol=1e-5)
    assert "cropped to 5 mm" in " ".join(notes)


def test_what_is_still_too_large_is_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The finest axes are averaged first, so that slices of 5 mm stay as they are."""
    monkeypatch.setattr(page_stack, "MAX_VOXELS", 600)
    monkeypatch.setattr(page_stack, "MARGIN_MM", 1000.0)
    volume, mask, evidence = make_scan()
    stack, notes = make_stack(volume, "the block", mask, evidence)
    z, y, x = stack.factor_zyx
    assert z == 1
    assert np.prod(stack.shape_zyx) <= 600
    assert stack.shape_zyx == (6, -(-20 // y), -(-30 // x))
    windowed = np.clip((volume.voxels.astype(float) + 160) / 400, 0, 1) * 255
    shown, small = zyx(read(stack.scan_nii_gz)), zyx(read(stack.mask_nii_gz or b""))
    for k, j, i in np.ndindex(stack.shape_zyx):
        block = k, slice(j * y, (j + 1) * y), slice(i * x, (i + 1) * x)
        assert abs(float(shown[k, j, i]) - windowed[block].mean()) <= 0.51
        assert small[k, j, i] == (mask[block].mean() >= 0.5)
    middle = world(read(stack.scan_nii_gz).affine, (2, 1, 1))
    np.testing.assert_allclose(middle, world(volume.affine, (2, 1.5 * y - 0.5, 1.5 * x - 0.5)), atol=1e-4)
    np.testing.assert_allclose(stack.boxes, [(10 / x, 6 / y, 20 / x, 14 / y)])
    assert f"averaged over {x} x {y} voxels" in " ".join(notes)


def test_slices_are_averaged_too_and_the_key_slice_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_stack, "MAX_VOXELS", 12)
    volume, mask, evidence = make_scan()
    stack, _ = make_stack(volume, "the block", mask, evidence)
    assert stack.factor_zyx[0] > 1
    assert stack.key == (3 - stack.start_zyx[0]) // stack.factor_zyx[0]
    assert zyx(read(stack.mask_nii_gz or b"")).any()


def test_a_mask_too_small_for_its_block_stays_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_stack, "MAX_VOXELS", 100)
    monkeypatch.setattr(page_stack, "MARGIN_MM", 1000.0)
    volume, mask, evidence = make_scan()
    mask[:] = False
    mask[3, 8, 12] = True
    stack, _ = make_stack(volume, "the block", mask, evidence)
    assert zyx(read(stack.mask_nii_gz or b"")).sum() == 1


def test_an_absent_answer_shows_the_whole_scan_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_stack, "MAX_VOXELS", 600)
    volume, mask, _ = make_scan()
    stack, _ = make_stack(volume, "the tail", ~mask & mask, Evidence(None, np.empty((0, 4))))
    assert stack.mask_nii_gz is None
    assert (stack.key, stack.boxes, stack.start_zyx) == (None, (), (0, 0, 0))
    assert stack.shape_zyx[0] == 6


def test_the_default_bound_is_what_the_docs_say() -> None:
    assert (page_stack.MAX_VOXELS, page_stack.MARGIN_MM) == (4_000_000, 40.0)


def test_a_true_mask_is_carried_too_and_is_cropped_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an anchor, as for masks of other systems, what is around both masks is shown."""
    monkeypatch.setattr(page_stack, "MARGIN_MM", 0.0)
    volume, mask, _ = make_scan()
    truth = np.zeros_like(mask)
    truth[4:6, 4:14, 12:25] = True
    nothing = Evidence(None, np.empty((0, 4)))
    stack, _ = make_stack(volume, "the block", mask, nothing, truth, max_voxels=3000)
    assert (stack.start_zyx, stack.shape_zyx) == ((2, 4, 10), (4, 10, 15))
    assert np.array_equal(zyx(read(stack.truth_nii_gz or b"")) > 0, truth[2:6, 4:14, 10:25])
    assert np.array_equal(zyx(read(stack.mask_nii_gz or b"")) > 0, mask[2:6, 4:14, 10:25])
    assert make_stack(volume, "the block", mask, nothing)[0].truth_nii_gz is None
