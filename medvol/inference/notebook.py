"""What a notebook shows of an answer: its picture, and what the mask measures."""

from __future__ import annotations

from base64 import b64encode
from html import escape

from medvol.core.visible_text import show
from medvol.inference.measurements import measure_mask
from medvol.inference.overlay import Picture, render_overlay


def show_in_notebook(picture: Picture) -> str:
    """HTML of an answer, with its picture inside; text of strangers is escaped."""
    volume, query = picture.volume, escape(show(picture.query))
    unit = "HU" if volume.modality == "CT" else None
    found = measure_mask(volume.voxels, picture.mask, volume.spacing, unit)
    facts = "not in this scan"
    if found["voxels"]:
        facts = (
            f"{found['volume_ml']:.4g} ml, mean {found['mean_intensity']:.4g} {unit or ''}, "
            f"{found['longest_diameter_mm']:.1f} x {found['perpendicular_diameter_mm']:.1f} mm"
        )
    elif not picture.evidence.absent:
        facts = "an empty mask"
    warnings = "".join(f"<br>{escape(show(warning.detail))}" for warning in picture.warnings)
    data = b64encode(render_overlay(picture)).decode("ascii")
    return (
        f'<figure style="margin:0"><img style="max-width:100%" alt="{query}" src="data:image/png;base64,{data}">'
        f"<figcaption><b>{query}</b>: {facts}{warnings}</figcaption></figure>"
    )
