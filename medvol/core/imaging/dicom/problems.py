"""Why DICOM is refused: further named refusals beside those of every format.

RefusedScanError
|-- NoDicomError                no_dicom              a folder or archive without DICOM in it
|-- BadArchiveError             bad_archive           a zip archive that is damaged, locked or a bomb
|-- BadInstanceError            bad_instance          a DICOM file that cannot be parsed
|-- UndecodablePixelsError      undecodable_pixels    an encoding that no installed decoder reads
|-- NoImageSeriesError          no_image_series       nothing but reports, segmentations or plans
|-- NoSuchSeriesError           no_such_series        no series answers to the name given
|-- SeveralSeriesError          several_series        more than one series could be meant
|-- LocalizerError              localizer             a scout view is not a volume
|-- TooFewSlicesError           too_few_slices        one slice gives no volume
|-- MissingGeometryError        missing_geometry      position, orientation or pixel spacing is absent
|-- MixedOrientationError       mixed_orientation     slices are not parallel, or not in one frame of reference
|-- MixedSizesError             mixed_sizes           slices differ in rows, columns or pixel spacing
|-- DuplicateInstancesError     duplicate_instances   two slices lie at one place
|-- SeveralAcquisitionsError    several_acquisitions  the same places were scanned more than once
|-- MissingSlicesError          missing_slices        a gap as wide as one or more slices
|-- InconsistentSpacingError    inconsistent_spacing  slices are unevenly spaced
|-- GantryTiltError             gantry_tilt           slices are stacked askew
|-- BadRescaleError             bad_rescale           stored values cannot be turned into intensities
|-- MissingLinksError           missing_links         no UIDs that a segmentation object could refer to
`-- BadSegmentationError        bad_segmentation      a segmentation object that is no mask of the scan

Sentences name the folder or archive, never a file in it, a description or another free text: those may name a patient.
"""

from __future__ import annotations

from medvol.core.imaging.problems import RefusedScanError


class NoDicomError(RefusedScanError):
    """A folder or an archive holds no DICOM."""

    code = "no_dicom"


class BadArchiveError(RefusedScanError):
    """A zip archive is damaged, locked, or declares sizes that no scan has."""

    code = "bad_archive"


class BadInstanceError(RefusedScanError):
    """A DICOM file cannot be parsed."""

    code = "bad_instance"


class UndecodablePixelsError(RefusedScanError):
    """No installed decoder reads the encoding of the pixels."""

    code = "undecodable_pixels"


class NoImageSeriesError(RefusedScanError):
    """There is DICOM, but no series of images that could be a volume."""

    code = "no_image_series"


class NoSuchSeriesError(RefusedScanError):
    """No series answers to the name given."""

    code = "no_such_series"


class SeveralSeriesError(RefusedScanError):
    """More than one series could be meant."""

    code = "several_series"


class LocalizerError(RefusedScanError):
    """A scout view is not a volume."""

    code = "localizer"


class TooFewSlicesError(RefusedScanError):
    """One slice gives no volume."""

    code = "too_few_slices"


class MissingGeometryError(RefusedScanError):
    """Position, orientation or pixel spacing of a slice is absent or has no meaning."""

    code = "missing_geometry"


class MixedOrientationError(RefusedScanError):
    """Slices are not parallel, or their positions are not in one frame of reference."""

    code = "mixed_orientation"


class MixedSizesError(RefusedScanError):
    """Slices differ in rows, columns or pixel spacing."""

    code = "mixed_sizes"


class DuplicateInstancesError(RefusedScanError):
    """Two slices lie at one place."""

    code = "duplicate_instances"


class SeveralAcquisitionsError(RefusedScanError):
    """The same places were scanned more than once."""

    code = "several_acquisitions"


class MissingSlicesError(RefusedScanError):
    """There is a gap as wide as one or more slices."""

    code = "missing_slices"


class InconsistentSpacingError(RefusedScanError):
    """Slices are unevenly spaced."""

    code = "inconsistent_spacing"


class GantryTiltError(RefusedScanError):
    """Slices are stacked askew, as a tilted gantry does it."""

    code = "gantry_tilt"


class BadRescaleError(RefusedScanError):
    """Stored values cannot be turned into intensities."""

    code = "bad_rescale"


class MissingLinksError(RefusedScanError):
    """The instances have no UIDs that a segmentation object could refer to."""

    code = "missing_links"


class BadSegmentationError(RefusedScanError):
    """A segmentation object cannot be used as a mask of a scan."""

    code = "bad_segmentation"
