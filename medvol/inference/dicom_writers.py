"""DICOM outputs of an answer: what writes each of them, from what the answer shows and measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medvol.core.errors import MedvolError
from medvol.imaging.dicom.capture import write_capture
from medvol.imaging.dicom.contours import write_contours
from medvol.imaging.dicom.outputs import DicomKind, DicomOutputs
from medvol.imaging.dicom.report import write_report
from medvol.imaging.dicom.segmentation import write_dicom_seg
from medvol.inference.overlay import Picture

Writer = Callable[[Path], object]


def dicom_writers(
    picture: Picture, measures: Mapping[str, Any], outputs: DicomOutputs, places: Mapping[str, Path]
) -> dict[str, Writer]:
    """What writes each output that is asked for, by its kind, in the order in which they are to be written.

    Args:
        picture: What is shown of the answer.
        measures: What its mask measures, as its record holds it.
        outputs: What is asked for.
        places: Where the picture (``overlay``) and the segmentation object (``seg``) lie when their turn is over.
    """
    volume, query, mask, named = picture.volume, picture.query, picture.mask, outputs.with_patient
    remarks = [warning.detail for warning in picture.warnings]
    writers: dict[DicomKind, Writer] = {
        "seg": lambda path: write_dicom_seg(path, mask, volume, query, named),
        "sr": lambda path: write_report(path, _require(places["seg"]), volume, measures, remarks, named),
        "rtstruct": lambda path: write_contours(path, mask, volume, query, named),
        "capture": lambda path: write_capture(path, _require(places["overlay"]).read_bytes(), volume, query, named),
    }
    return {kind: writers[kind] for kind in outputs.kinds}


def _require(path: Path) -> Path:
    """The file that an output is made of, unless it could not be written."""
    if not path.is_file():
        raise MedvolError(f"it is made of {path.name}, which was not written")
    return path
