"""Nodes of Slicer's scene: a scan as a volume, boxes as regions of interest, a mask as a segment."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
import vtk.util.numpy_support
from numpy.typing import NDArray

from .geometry import Region

_ORANGE = (1.0, 0.6, 0.0)


def show_volume(name: str, voxels: NDArray[Any], ijk_to_ras: NDArray[np.float64], node: Any = None) -> Any:
    """A scalar volume node of intensities (K, J, I); ``node`` is filled where there is one."""
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetName(name)
    node.SetIJKToRASMatrix(_to_vtk(ijk_to_ras))
    slicer.util.updateVolumeFromArray(node, voxels)
    return node


def add_region(region: Region, name: str) -> Any:
    """A markups node of a box that a reader can move and resize."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
    node.CreateDefaultDisplayNodes()
    place_region(node, region)
    display = node.GetDisplayNode()
    if display is not None:
        display.SetSelectedColor(*_ORANGE)
        display.SetFillVisibility(False)
    return node


def place_region(node: Any, region: Region) -> None:
    """Put a markups node where a region is."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = region.axes_ras, region.centre_ras
    node.SetSize(*(float(length) for length in region.size_mm))
    node.SetAndObserveObjectToNodeMatrix(_to_vtk(matrix))


def read_region(node: Any) -> Region:
    """Where a markups node is, whatever transforms it is under."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(node.GetObjectToWorldMatrix())
    axes = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(3)])
    lengths = np.linalg.norm(axes[:, :3], axis=0)
    return Region(axes[:, 3], np.array(node.GetSize()) * lengths, axes[:, :3] / lengths)


def show_mask(name: str, mask: NDArray[np.uint8], ijk_to_ras: NDArray[np.float64], node: Any = None) -> Any:
    """A segmentation node with one segment of a mask (K, J, I); ``node`` is filled where there is one."""
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "medvol")
        node.CreateDefaultDisplayNodes()
    segmentation = node.GetSegmentation()
    segmentation.RemoveAllSegments()
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*mask.shape[::-1])
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    values = vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    values[:] = mask.ravel()
    image.SetImageToWorldMatrix(_to_vtk(ijk_to_ras))
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetColor(*_ORANGE)
    segment.AddRepresentation(slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName(), image)
    segmentation.AddSegment(segment, "mask")
    return node


def _to_vtk(matrix: NDArray[np.float64]) -> Any:
    made = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            made.SetElement(row, column, float(matrix[row, column]))
    return made
