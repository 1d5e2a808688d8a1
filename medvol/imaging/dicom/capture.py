"""Secondary captures: a picture that a picture archive files beside the scan it shows."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medvol.core.atomic_files import write_whole
from medvol.core.types import Volume
from medvol.imaging.dicom.links import (
    UNICODE,
    building,
    clean_label,
    equipment,
    import_highdicom,
    link_images,
    require_origin,
)
from medvol.imaging.dicom.parsing import quiet_values

_SERIES_NUMBER = 9004


def write_capture(path: Path, picture: bytes, volume: Volume, label: str, with_patient: bool = False) -> Path:
    """Write a picture of axial slices as a secondary capture, pixel by pixel, in RGB without compression.

    Args:
        path: The file.
        picture: A PNG.
        volume: The scan that it shows, read from DICOM; its files must still be where they were.
        label: Name of the series; what is longer than 64 characters is cut.
        with_patient: Copy what an archive files it by, see ``DicomOutputs``.

    Returns:
        The path.

    Raises:
        ConfigError: The volume was not read from DICOM.
        MissingLinksError: Its files cannot be referred to.
        MissingExtraError: highdicom is not installed.
    """
    origin = require_origin(volume)
    highdicom = import_highdicom()
    image = link_images(origin, with_patient)[0]
    pixels = np.asarray(Image.open(BytesIO(picture)).convert("RGB"))
    with building(origin):
        capture: Any = highdicom.sc.SCImage.from_ref_dataset(
            image,
            pixels,
            "RGB",
            8,
            "PATIENT",
            series_instance_uid=highdicom.UID(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            patient_orientation=("L", "P"),
            **equipment(),
            series_description=clean_label(label),
            specific_character_set=UNICODE,
        )
        capture.ConversionType = "WSD"  # made by a workstation
        capture.Laterality = None  # must be there, and a picture of slices has none
    with quiet_values(), write_whole(path) as partial:
        capture.save_as(partial)
    return path
