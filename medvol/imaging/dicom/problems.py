"""Why DICOM is refused: further named refusals beside those of every format.

Sentences name the folder or archive, never a file in it, a description or another free text: those may name a patient.
"""

from __future__ import annotations

from medvol.imaging.formats.problems import RefusedScanError


class NoDicomError(RefusedScanError, number="MV701", code="no_dicom", fix="give the folder of the series"):
    """A folder or an archive holds no DICOM."""


class BadArchiveError(RefusedScanError, number="MV702", code="bad_archive", fix="unpack it, or export it again"):
    """A zip archive is damaged, locked, or declares sizes that no scan has."""


class BadInstanceError(RefusedScanError, number="MV703", code="bad_instance", fix="export the series again"):
    """A DICOM file cannot be parsed."""


class UndecodablePixelsError(
    RefusedScanError,
    number="MV704",
    code="undecodable_pixels",
    fix="export it uncompressed, or install a decoder",
):
    """The pixels are in an encoding that no installed decoder reads."""


class NoImageSeriesError(RefusedScanError, number="MV705", code="no_image_series", fix="give the folder of the images"):
    """There is DICOM, but no series of images that could be a volume."""


class NoSuchSeriesError(
    RefusedScanError,
    number="MV706",
    code="no_such_series",
    fix="choose one of those that are listed",
):
    """No series answers to the name given."""


class SeveralSeriesError(RefusedScanError, number="MV707", code="several_series", fix="choose one by `series`"):
    """More than one series could be meant."""


class LocalizerError(RefusedScanError, number="MV708", code="localizer", fix="give the series that was planned on it"):
    """A scout view is not a volume."""


class TooFewSlicesError(RefusedScanError, number="MV709", code="too_few_slices", fix="give the whole series"):
    """One slice gives no volume."""


class MissingGeometryError(RefusedScanError, number="MV710", code="missing_geometry", fix="export the series again"):
    """Position, orientation or pixel spacing of a slice is absent or has no meaning."""


class MixedOrientationError(RefusedScanError, number="MV711", code="mixed_orientation", fix="give one stack of them"):
    """Slices are not parallel, or not in one frame of reference."""


class MixedSizesError(RefusedScanError, number="MV712", code="mixed_sizes", fix="give one stack of them"):
    """Slices differ in rows, columns or pixel spacing."""


class DuplicateInstancesError(RefusedScanError, number="MV713", code="duplicate_instances", fix="remove the copies"):
    """Two slices lie at one place."""


class SeveralAcquisitionsError(
    RefusedScanError,
    number="MV714",
    code="several_acquisitions",
    fix="separate the acquisitions",
):
    """The same places were scanned more than once."""


class MissingSlicesError(RefusedScanError, number="MV715", code="missing_slices", fix="fetch the missing ones"):
    """There is a gap as wide as one or more slices."""


class InconsistentSpacingError(RefusedScanError, number="MV716", code="inconsistent_spacing", fix="resample the scan"):
    """Slices are unevenly spaced."""


class GantryTiltError(RefusedScanError, number="MV717", code="gantry_tilt", fix="resample the scan"):
    """Slices are stacked askew, as a tilted gantry does it."""


class BadRescaleError(RefusedScanError, number="MV718", code="bad_rescale", fix="export the series again"):
    """Stored values cannot be turned into intensities."""


class MissingLinksError(
    RefusedScanError,
    number="MV719",
    code="missing_links",
    fix="keep the UIDs when the scan is exported",
):
    """There are no UIDs that a segmentation object could refer to."""


class BadSegmentationError(
    RefusedScanError,
    number="MV720",
    code="bad_segmentation",
    fix="give the scan that it was drawn on",
):
    """A segmentation object is no mask of the scan."""
