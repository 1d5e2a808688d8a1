"""Outputs: which DICOM objects are written of an answer, and what they say of the patient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from medvol.core.errors import ConfigError

DicomKind = Literal["seg", "sr", "rtstruct", "capture"]
"""Segmentation object, structured report, contours for radiotherapy, picture."""

KINDS: tuple[DicomKind, ...] = get_args(DicomKind)
"""In the order in which they are written: a report refers to the segmentation object."""


@dataclass(frozen=True)
class DicomOutputs:
    """The DICOM objects that are asked for; false when there are none.

    Args:
        kinds: What to write, in any order.
        with_patient: Copy what an archive files an object by: name, number, birth date, sex, study date and number,
            referrer. Otherwise an object says nothing of the patient and the study but their UIDs.

    Raises:
        ConfigError: There is no such kind, or one is asked for that needs another.
    """

    kinds: tuple[DicomKind, ...] = ()
    with_patient: bool = False

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ConfigError(f"dicom is {unknown[0]!r}; choose from {', '.join(KINDS)}")
        object.__setattr__(self, "kinds", tuple(kind for kind in KINDS if kind in self.kinds))
        if "sr" in self.kinds and "seg" not in self.kinds:
            raise ConfigError("dicom sr needs seg: the report refers to the segmentation object; ask for both")
        if self.with_patient and not self.kinds:
            raise ConfigError("with_patient is about DICOM outputs, and none is asked for; name them in dicom")

    def __bool__(self) -> bool:
        return bool(self.kinds)


NO_DICOM = DicomOutputs()
"""None are asked for."""


def ask_for(kinds: Iterable[str] | None, with_patient: bool = False) -> DicomOutputs:
    """The outputs that a user names.

    Args:
        kinds: Names of kinds; None when none was named.
        with_patient: As for ``DicomOutputs``.

    Raises:
        ConfigError: There is no such kind, or one is asked for that needs another.
    """
    return DicomOutputs(tuple(kinds or ()), with_patient)  # type: ignore[arg-type]
