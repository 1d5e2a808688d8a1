"""Why a scan is refused: one named error for each reason, with all that ``medvol check`` says about it.

``docs/reference.md`` lists them, written from these classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from medvol.core.errors import ScanError


class RefusedScanError(ScanError):
    """Base of the named refusals; the docstring of each is its meaning.

    Args:
        path: File that was refused.
        detail: What was found there, and what to do about it.
    """

    number: ClassVar[str] = ""
    """Stable code, such as ``MV101``; never given to another reason."""
    code: ClassVar[str] = "refused"
    """Its name in a word or two."""
    fix: ClassVar[str] = ""
    """What to do, where the detail says no more."""
    mended: ClassVar[str] = ""
    """How ``medvol check --fix`` corrects a copy; empty when it does not."""

    def __init_subclass__(cls, number: str, code: str, fix: str, mended: str = "") -> None:
        super().__init_subclass__()
        cls.number, cls.code, cls.fix, cls.mended = number, code, fix, mended

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.path = path
        self.detail = detail


class MissingScanError(RefusedScanError, number="MV101", code="missing", fix="check the path"):
    """There is no file at the path."""


class UnreadableScanError(
    RefusedScanError,
    number="MV102",
    code="unreadable",
    fix="check its permissions and its disk",
):
    """The system does not open the file."""


class UnknownFormatError(
    RefusedScanError,
    number="MV103",
    code="unknown_format",
    fix="convert it to NIfTI, NRRD or MetaImage",
):
    """Neither name nor content is a format that is read."""


class EmptyFileError(RefusedScanError, number="MV104", code="empty", fix="copy it again"):
    """The file has no bytes."""


class ShortHeaderError(RefusedScanError, number="MV105", code="short_header", fix="copy it again"):
    """The file ends inside its header."""


class BadMagicError(RefusedScanError, number="MV106", code="bad_magic", fix="rename it, or export it again"):
    """The content is not what the name says."""


class BadHeaderError(
    RefusedScanError,
    number="MV107",
    code="bad_header",
    fix="export it again",
    mended="codes out of range become 1, an unreadable qform the sform, a missing intercept 0",
):
    """A header field has no meaning."""


class BadDimensionsError(RefusedScanError, number="MV108", code="bad_dimensions", fix="export a volume"):
    """The scan does not have three axes of at least one voxel."""


class TimeSeriesError(RefusedScanError, number="MV109", code="time_series", fix="save the frame that you need"):
    """The scan has more than one frame."""


class ColourScanError(RefusedScanError, number="MV110", code="colour", fix="save one grey value a voxel"):
    """Voxels are colours, vectors or complex numbers."""


class UnknownDatatypeError(
    RefusedScanError,
    number="MV111",
    code="unknown_datatype",
    fix="save them as int16 or float32",
):
    """Voxels are of a type that is not read."""


class TooLargeError(
    RefusedScanError,
    number="MV112",
    code="too_large",
    fix="crop it, or raise max_bytes (`segment`, `view`)",
):
    """The declared size is over the budget."""


class TruncatedScanError(RefusedScanError, number="MV113", code="truncated", fix="copy it again"):
    """There are fewer voxels than declared: the rest is lost."""


class OverlongScanError(RefusedScanError, number="MV114", code="overlong", fix="copy or export it again"):
    """There are more bytes than declared."""


class CorruptStreamError(RefusedScanError, number="MV115", code="corrupt", fix="copy it again"):
    """Compressed data fail their own checksum."""


class BadSpacingError(
    RefusedScanError,
    number="MV201",
    code="bad_spacing",
    fix="write the true size into the header",
    mended="taken from the sform, where that is sound",
):
    """A voxel size is zero, negative, not a number, or not in mm."""


class SingularAffineError(RefusedScanError, number="MV202", code="singular_affine", fix="write the true geometry"):
    """The geometry folds space, or is not made of numbers."""


class ShearedAffineError(
    RefusedScanError,
    number="MV203",
    code="sheared_affine",
    fix="resample the scan",
    mended="resampled to a straight grid: linear, nearest for label maps",
):
    """The axes are not at right angles, as with gantry tilt."""


class ConflictingAffinesError(
    RefusedScanError,
    number="MV204",
    code="conflicting_affines",
    fix="set the code of the wrong one to 0",
    mended="qform and voxel size become those of the sform",
):
    """The qform, the sform and the voxel size place voxels differently; programs disagree on the anatomy."""


class NoOrientationError(
    RefusedScanError,
    number="MV205",
    code="no_orientation",
    fix="find out and write it into the header",
    mended="the orientation given with --assume_orientation",
):
    """Nothing says which way the axes point: left may be right."""


class NonFiniteVoxelsError(
    RefusedScanError,
    number="MV301",
    code="non_finite",
    fix="fill them when the scan is exported",
    mended="the value given with --nan_to",
):
    """Some voxels are NaN or infinite."""
