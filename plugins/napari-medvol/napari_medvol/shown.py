"""What the viewer shows of an answer: three layers, which a reader may also remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medvol.interface.anchors import Anchor
from napari_medvol.interface.answers import Mask, Scan
from napari_medvol.layers import draw_boxes, place, put_on_slice, read_boxes

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image, Labels, Shapes

_EDGE = "#ff9800"


class Shown:
    """The layers of a scan, of boxes, and of their mask.

    Args:
        viewer: Of napari.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.scan: Scan | None = None
        self.image: Image | None = None
        self.evidence: Shapes | None = None
        self.mask: Labels | None = None

    @property
    def scan_id(self) -> str:
        """Of the scan whose voxels are on the screen; empty where none is."""
        return self.scan.scan_id if self.scan is not None and self.image in self._viewer.layers else ""

    def show_scan(self, scan: Scan, voxels: NDArray[Any], window: str) -> None:
        """Put a scan in the place of the one before it.

        Args:
            scan: Its geometry.
            voxels: Intensities (Z, Y, X).
            window: Name of its window.
        """
        for layer in (self.image, self.evidence, self.mask):
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        limits = scan.windows.get(window) or next(iter(scan.windows.values()), None)
        name = f"medvol: {scan.name}"
        self.image = self._viewer.add_image(voxels, name=name, colormap="gray", contrast_limits=limits, **place(scan))
        self.scan, self.evidence, self.mask = scan, None, None

    def show_mask(self, mask: Mask) -> None:
        """Show a mask (Z, Y, X) on the scan."""
        assert self.scan is not None, "a scan is shown before its mask"
        values = mask.astype(np.uint8)
        if self.mask in self._viewer.layers:
            self.mask.data = values
            return
        self.mask = self._viewer.add_labels(values, name="mask", opacity=0.4, **place(self.scan))

    def show_boxes(self, anchor: Anchor) -> None:
        """Show boxes, and go to their slice."""
        assert self.scan is not None, "a scan is shown before its boxes"
        if self.evidence not in self._viewer.layers:
            self.evidence = self._viewer.add_shapes(
                ndim=3,
                name="evidence",
                edge_color=_EDGE,
                face_color="transparent",
                edge_width=0.5,
                **place(self.scan),
            )
        rectangles = draw_boxes(anchor)
        self.evidence.selected_data = set()
        self.evidence.data = []
        if rectangles:
            self.evidence.add_rectangles(rectangles, edge_color=_EDGE, face_color="transparent", edge_width=0.5)
        self._viewer.layers.selection.active = self.evidence
        self.evidence.mode = "select"
        if anchor.key_slice is not None:
            self.go_to(anchor.key_slice)

    def go_to(self, index: int) -> None:
        """Show a slice."""
        assert self.image is not None, "a scan is shown before its slices"
        self._viewer.dims.set_point(self._viewer.dims.ndim - 3, float(self.image.data_to_world((index, 0, 0))[0]))

    def read_boxes(self, several: bool = False) -> Anchor:
        """The anchor that the boxes of the reader make; none where they removed the layer.

        Args:
            several: They may lie on several slices.

        Raises:
            AnchorError: They make none.
        """
        if self.scan is None or self.evidence not in self._viewer.layers:
            return Anchor()
        return read_boxes(self.evidence.data, self.evidence.shape_type, self.scan.shape, several)

    def put_boxes_here(self, several: bool = False) -> None:
        """Move all boxes to the slice that is shown; where they may lie on several, those of the nearest one."""
        if self.image is None or self.evidence not in self._viewer.layers:
            return
        index = round(float(self.image.world_to_data(self._viewer.dims.point)[0]))
        self.evidence.data = put_on_slice(self.evidence.data, index, several)

    def draw_a_box(self) -> None:
        """Let the reader draw a box on the slice that is shown."""
        if self.evidence not in self._viewer.layers:
            self.show_boxes(Anchor())
        self._viewer.layers.selection.active = self.evidence
        self.evidence.mode = "add_rectangle"
