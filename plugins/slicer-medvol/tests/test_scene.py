"""Nodes of a real MRML scene, as the PyPI package slicer-core brings it; Slicer's own program is not needed."""

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="slicer-core is not installed; `make plugins` runs these tests")
import slicer
import vtk
import vtk.util.numpy_support
from MedVolViewLib import scene
from MedVolViewLib.geometry import draw_regions, put_on_slice, read_regions
from test_geometry import ANCHOR, OBLIQUE, SHAPE, STRAIGHT, scan

both = pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])


@pytest.fixture(autouse=True)
def mrml(monkeypatch):
    """An empty scene."""
    made = slicer.vtkMRMLScene()
    monkeypatch.setattr(slicer, "mrmlScene", made, raising=False)
    return made


@both
def test_a_volume_has_the_voxels_and_the_place_of_the_scan(affine):
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    node = scene.show_volume("a", voxels, scan(affine).affine_ras)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), voxels)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    point = matrix.MultiplyPoint((2, 3, 4, 1))
    np.testing.assert_allclose(point, scan(affine).affine_ras @ [2, 3, 4, 1], atol=1e-6)
    assert scene.show_volume("b", voxels + 1, scan(affine).affine_ras, node) is node
    assert slicer.util.arrayFromVolume(node)[0, 0, 0] == 1


@both
def test_a_markups_region_keeps_a_box(affine, mrml):
    regions = draw_regions(ANCHOR, scan(affine))
    nodes = [scene.add_region(region, "box") for region in regions]
    assert mrml.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode") == 2
    found = read_regions([scene.read_region(node) for node in nodes], scan(affine))
    np.testing.assert_allclose(found.boxes_px, ANCHOR.boxes_px, atol=1e-6)
    bounds = np.zeros(6)
    nodes[0].GetRASBounds(bounds)
    np.testing.assert_allclose(bounds.reshape(3, 2).mean(axis=1), regions[0].centre_ras, atol=1e-6)
    scene.place_region(nodes[0], put_on_slice(regions[0], 9, scan(affine)))
    assert read_regions([scene.read_region(nodes[0])], scan(affine)).key_slice == 9


def test_a_region_that_the_reader_dragged_is_another_box():
    (node, _) = (scene.add_region(region, "box") for region in draw_regions(ANCHOR, scan()))
    middle = np.array(node.GetCenter())
    moved = np.array([-1.5 * 3, -2.0 * 2, 4.0])  # 3 columns to the left, 2 rows to the back, 1 slice up
    node.SetCenter(*(middle + moved))
    node.SetSize(30.0 - 2 * 1.5, 24.0, 4.0)  # a column less on either side
    found = read_regions([scene.read_region(node)], scan())
    assert found.key_slice == 6
    np.testing.assert_allclose(found.boxes_px, [(14, 8, 32, 20)], atol=1e-6)


@both
def test_a_segment_has_the_voxels_of_the_mask(affine):
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:6, 6:18, 10:30] = 1
    node = scene.show_mask("the block", mask, scan(affine).affine_ras)
    for values in (mask, mask[::-1].copy()):
        node = scene.show_mask("the block", values, scan(affine).affine_ras, node)
        assert node.GetSegmentation().GetNumberOfSegments() == 1
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation("mask", image)
        found = vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(
            image.GetDimensions()[::-1]
        )
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        start = np.array(image.GetExtent()[::2])
        places = np.argwhere(found)[:, ::-1] + start
        world = [matrix.MultiplyPoint((*place, 1.0))[:3] for place in places.tolist()]
        expected = np.argwhere(values)[:, ::-1] @ scan(affine).affine_ras[:3, :3].T + scan(affine).affine_ras[:3, 3]
        np.testing.assert_allclose(sorted(world), sorted(expected.tolist()), atol=1e-6)
