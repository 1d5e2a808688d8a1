"""Why a scan is refused: one named error for each reason.

ScanError
|-- MissingScanError          missing           there is no file at the path
|-- UnreadableScanError       unreadable        the system does not open the file
|-- UnknownFormatError        unknown_format    neither name nor content is a format that is read
|-- EmptyFileError            empty             the file has no bytes
|-- ShortHeaderError          short_header      the file ends inside its header
|-- BadMagicError             bad_magic         the content is not what the name says
|-- BadHeaderError            bad_header        a header field has no meaning
|-- BadDimensionsError        bad_dimensions    not three axes of at least one voxel
|-- TimeSeriesError           time_series       more than one frame
|-- ColourScanError           colour            RGB, vector or complex voxels
|-- UnknownDatatypeError      unknown_datatype  a voxel type that is not read
|-- TooLargeError             too_large         the declared size is over the budget
|-- TruncatedScanError        truncated         fewer voxels than declared
|-- OverlongScanError         overlong          more bytes than declared
|-- CorruptStreamError        corrupt           compressed data fail their own check
|-- BadSpacingError           bad_spacing       a voxel size is zero, negative or not a number
|-- SingularAffineError       singular_affine   the geometry folds space
|-- ShearedAffineError        sheared_affine    the axes are not at right angles
|-- ConflictingAffinesError   conflicting_affines  qform, sform and voxel size do not agree
|-- NoOrientationError        no_orientation    the header does not say which way the axes point
`-- NonFiniteVoxelsError      non_finite        NaN or infinite voxels
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from medvol.core.errors import ScanError


class RefusedScanError(ScanError):
    """Base of the named refusals.

    Args:
        path: File that was refused.
        detail: What was found there, and what to do about it.
    """

    code: ClassVar[str] = "refused"

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.path = path
        self.detail = detail


class MissingScanError(RefusedScanError):
    """There is no file at the path."""

    code = "missing"


class UnreadableScanError(RefusedScanError):
    """The system does not open the file."""

    code = "unreadable"


class UnknownFormatError(RefusedScanError):
    """Neither name nor content is a format that is read."""

    code = "unknown_format"


class EmptyFileError(RefusedScanError):
    """The file has no bytes."""

    code = "empty"


class ShortHeaderError(RefusedScanError):
    """The file ends inside its header."""

    code = "short_header"


class BadMagicError(RefusedScanError):
    """The content is not what the name says."""

    code = "bad_magic"


class BadHeaderError(RefusedScanError):
    """A header field has no meaning."""

    code = "bad_header"


class BadDimensionsError(RefusedScanError):
    """The scan does not have three axes of at least one voxel."""

    code = "bad_dimensions"


class TimeSeriesError(RefusedScanError):
    """The scan has more than one frame."""

    code = "time_series"


class ColourScanError(RefusedScanError):
    """Voxels are RGB, vectors or complex."""

    code = "colour"


class UnknownDatatypeError(RefusedScanError):
    """The voxel type is not one that is read."""

    code = "unknown_datatype"


class TooLargeError(RefusedScanError):
    """The declared size is over the budget."""

    code = "too_large"


class TruncatedScanError(RefusedScanError):
    """There are fewer voxels than declared."""

    code = "truncated"


class OverlongScanError(RefusedScanError):
    """There are more bytes than declared."""

    code = "overlong"


class CorruptStreamError(RefusedScanError):
    """Compressed data fail their own check."""

    code = "corrupt"


class BadSpacingError(RefusedScanError):
    """A voxel size is zero, negative or not a number."""

    code = "bad_spacing"


class SingularAffineError(RefusedScanError):
    """The affine folds space, or is not made of numbers."""

    code = "singular_affine"


class ShearedAffineError(RefusedScanError):
    """The axes are not at right angles."""

    code = "sheared_affine"


class ConflictingAffinesError(RefusedScanError):
    """The qform, the sform and the voxel size place the voxels differently."""

    code = "conflicting_affines"


class NoOrientationError(RefusedScanError):
    """The header does not say which way the axes point."""

    code = "no_orientation"


class NonFiniteVoxelsError(RefusedScanError):
    """Voxels are NaN or infinite."""

    code = "non_finite"
