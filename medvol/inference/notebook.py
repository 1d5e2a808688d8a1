"""What a notebook shows of an answer: its picture and measures, or the answer page in a frame.

All of it lies in the notebook itself, so it is there when the notebook is opened without a kernel or a network.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from html import escape

from medvol.core.visible_text import show
from medvol.inference.measurements import measure_mask, show_mm
from medvol.inference.overlay import Picture, render_overlay

PICTURE_DPI = 72
"""Of the picture in a notebook, which may hold many."""


def show_in_notebook(picture: Picture) -> str:
    """HTML of an answer, with its picture inside; text of strangers is escaped."""
    query, scan = escape(show(picture.query)), escape(picture.volume.summary)
    warnings = "".join(f"<br>{escape(show(warning.detail))}" for warning in picture.warnings)
    data = b64encode(render_overlay(picture, dpi=PICTURE_DPI)).decode("ascii")
    return (
        f'<figure style="margin:0"><img style="max-width:100%" alt="{query}" src="data:image/png;base64,{data}">'
        f"<figcaption><b>{query}</b>: {_measures(picture)}<br>{scan}{warnings}</figcaption></figure>"
    )


@dataclass(frozen=True, repr=False)
class NotebookView:
    """An answer page in a frame of a notebook: slices to scroll, planes and 3D, figures, the record.

    The frame is closed off: its scripts see nothing of the notebook, and it asks nothing of a network.

    Args:
        page: The page as HTML.
        height_px: Height of the frame.
    """

    page: str
    height_px: int

    def __repr__(self) -> str:
        return f"NotebookView({len(self.page) / 1e6:.1f} MB, shown by a notebook)"

    def _repr_html_(self) -> str:
        """The frame, with the page inside."""
        return (
            f'<iframe sandbox="allow-scripts allow-downloads" title="answer" width="100%" height="{self.height_px}" '
            f'style="border:0" srcdoc="{escape(self.page)}"></iframe>'
        )


def _measures(picture: Picture) -> str:
    volume = picture.volume
    found = measure_mask(volume.voxels, picture.mask, volume.spacing)
    if picture.evidence.absent:
        return "not in this scan"
    if not found["voxels"]:
        return "an empty mask"
    keys = picture.evidence.key_slices
    return (
        f"{found['volume_ml']:.4g} ml, mean {found['mean_intensity']:.4g}{' HU' if volume.modality == 'CT' else ''}, "
        f"{show_mm(found['longest_diameter_mm'])} x {show_mm(found['perpendicular_diameter_mm'])} mm, "
        f"key slice{'s' if len(keys) > 1 else ''} {', '.join(map(str, keys))}"
    )
