"""Every problem that ``medvol check`` names: a stable code, what it means, what to do.

MV1xx a file, MV2xx its geometry, MV3xx its intensities, MV4xx a label map, MV5xx a data set, MV6xx leakage, MV7xx
DICOM. A code is never given to another problem; a problem that is gone leaves a gap.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A kind of problem.

    Args:
        code: Stable, such as ``MV113``.
        name: In a word or two; for a file that the reading gate refuses, the gate's own code.
        meaning: What it means for a user.
        fix: What to do.
        mended: How ``--fix`` mends a copy; empty when it does not.
        warning: True when the file can be used all the same.
    """

    code: str
    name: str
    meaning: str
    fix: str
    mended: str = ""
    warning: bool = False


_PROBLEMS = (
    Problem("MV101", "missing", "there is no file at the path", "check the path"),
    Problem("MV102", "unreadable", "the system does not open the file", "check its permissions and its disk"),
    Problem("MV103", "unknown_format", "no format that is read", "convert it to NIfTI, NRRD or MetaImage"),
    Problem("MV104", "empty", "the file has no bytes", "copy it again"),
    Problem("MV105", "short_header", "it ends inside its header", "copy it again"),
    Problem("MV106", "bad_magic", "the content is not what the name says", "rename it, or export it again"),
    Problem(
        "MV107",
        "bad_header",
        "a header field has no meaning",
        "export it again",
        "codes out of range become 1, an unreadable qform the sform, a missing intercept 0",
    ),
    Problem("MV108", "bad_dimensions", "not three axes of at least one voxel", "export a volume"),
    Problem("MV109", "time_series", "more than one frame", "save the frame that you need"),
    Problem("MV110", "colour", "colours, vectors or complex numbers", "save one grey value a voxel"),
    Problem("MV111", "unknown_datatype", "voxels of a type that is not read", "save them as int16 or float32"),
    Problem("MV112", "too_large", "the declared size is over the budget", "crop it, or raise max_bytes"),
    Problem("MV113", "truncated", "fewer voxels than declared: the rest is lost", "copy it again"),
    Problem("MV114", "overlong", "more bytes than declared", "copy or export it again"),
    Problem("MV115", "corrupt", "compressed data fail their own checksum", "copy it again"),
    Problem(
        "MV116",
        "misnamed",
        "gzipped or not, against its name; other programs may refuse it",
        "rename it",
        "written as its name says",
        warning=True,
    ),
    Problem(
        "MV201",
        "bad_spacing",
        "a voxel size is zero, negative, not a number, or not in mm",
        "write the true size into the header",
        "taken from the sform, where that is sound",
    ),
    Problem("MV202", "singular_affine", "the geometry folds space", "write the true geometry"),
    Problem(
        "MV203",
        "sheared_affine",
        "the axes are not at right angles, as with gantry tilt",
        "resample the scan",
        "resampled to a straight grid: linear, nearest for label maps",
    ),
    Problem(
        "MV204",
        "conflicting_affines",
        "qform, sform and voxel size place voxels differently; programs disagree on the anatomy",
        "set the code of the wrong one to 0",
        "qform and voxel size become those of the sform",
    ),
    Problem(
        "MV205",
        "no_orientation",
        "nothing says which way the axes point: left may be right",
        "find out and write it into the header",
        "the orientation given with --assume_orientation",
    ),
    Problem(
        "MV301",
        "non_finite",
        "NaN or infinite voxels",
        "fill them when the scan is exported",
        "the value given with --nan_to",
    ),
    Problem("MV302", "constant", "every voxel has one value: there is nothing to see", "export it again", warning=True),
    Problem(
        "MV303",
        "windowed",
        "intensities from 0 to 255: Hounsfield units are lost, windows are by percentiles",
        "go back to the original scan",
        warning=True,
    ),
    Problem(
        "MV304",
        "shifted_hu",
        "a CT that was stored with another zero: windows by percentiles, or wrong by the shift with modality CT",
        "give it its rescale intercept, or subtract the shift",
        "the offset given with --hu_offset is added",
        warning=True,
    ),
    Problem("MV401", "other_shape", "a label map has another shape than its scan", "export both from one grid"),
    Problem("MV402", "other_grid", "a label map lies beside its scan", "resample it to the scan"),
    Problem("MV403", "negative_label", "a label is negative", "save labels above 0; 0 is the background"),
    Problem("MV404", "fractions", "a label map holds no whole numbers", "resample it by nearest neighbour"),
    Problem("MV405", "unnamed_label", "labels.json has no name for a label", "add it"),
    Problem("MV406", "swapped_sides", "left lies to the right of right", "swap the names, or mend the affine"),
    Problem("MV407", "empty_labels", "a label map without a label", "check that it is the right file", warning=True),
    Problem(
        "MV408", "many_labels", "more than a thousand values: a scan, not labels", "check that it is the right file"
    ),
    Problem(
        "MV409",
        "moved_labels",
        "labels lie a little beside whole numbers, as header scaling moves them; they are read rounded",
        "save them as whole numbers",
        "rounded and saved as whole numbers",
        warning=True,
    ),
    Problem("MV501", "bad_layout", "the data set's files or settings do not fit together", "see the detail"),
    Problem("MV502", "bad_row", "a row of a table cannot be used", "mend the cell"),
    Problem("MV503", "bad_case", "a case cannot be read", "see the detail"),
    Problem("MV504", "no_target", "a case that is scored has no target mask", "give it one, or use predict"),
    Problem("MV505", "empty_query", "a case asks nothing", "write a query or a target"),
    Problem("MV506", "empty_target", "the mask of a target that is asked for is empty", "check label and mask"),
    Problem("MV507", "no_cases", "a split holds no case", "choose other patients, targets or fractions"),
    Problem("MV508", "repeated_row", "two rows of a table ask the same of one scan", "delete one of them"),
    Problem(
        "MV509", "unread_column", "a column of a table that nothing reads", "rename it if it means one", warning=True
    ),
    Problem("MV510", "other_name", "one label under two names", "check the rows", warning=True),
    Problem("MV511", "full_target", "a target that fills its scan", "check label and mask; 0 is the background"),
    Problem("MV512", "large_target", "a target that takes more than half of its scan", "look at it", warning=True),
    Problem("MV513", "small_target", "a target of less than 10 voxels", "look at it", warning=True),
    Problem("MV514", "unseen_target", "a target that no scan shows", "check its name and its label", warning=True),
    Problem(
        "MV515", "labels_as_scan", "a scan whose voxels are like labels", "check that it is the scan", warning=True
    ),
    Problem("MV516", "barren_scan", "a scan without a target to ask for", "check its label map", warning=True),
    Problem("MV601", "shared_patient", "a patient is in two splits", "split by patient"),
    Problem("MV602", "shared_file", "one file is in two splits, under one name or two", "leave one of them out"),
    Problem("MV603", "shared_scan", "one scan is in two splits, turned or resampled", "leave one of them out"),
    Problem("MV604", "same_file", "one file under two names", "keep one of them", warning=True),
    Problem("MV605", "same_scan", "one scan under two names, turned or resampled", "keep one of them", warning=True),
    Problem("MV701", "no_dicom", "a folder or an archive without DICOM", "give the folder of the series"),
    Problem(
        "MV702",
        "bad_archive",
        "a zip archive that is damaged, locked, or declares sizes that no scan has",
        "unpack it, or export it again",
    ),
    Problem("MV703", "bad_instance", "a DICOM file that cannot be parsed", "export the series again"),
    Problem(
        "MV704",
        "undecodable_pixels",
        "pixels in an encoding that no installed decoder reads",
        "export it uncompressed, or install a decoder",
    ),
    Problem(
        "MV705",
        "no_image_series",
        "DICOM, but no series of images that could be a volume",
        "give the folder of the images",
    ),
    Problem("MV706", "no_such_series", "no series answers to the name given", "choose one of those that are listed"),
    Problem("MV707", "several_series", "more than one series could be meant", "choose one by `series`"),
    Problem("MV708", "localizer", "a scout view is not a volume", "give the series that was planned on it"),
    Problem("MV709", "too_few_slices", "one slice gives no volume", "give the whole series"),
    Problem(
        "MV710",
        "missing_geometry",
        "position, orientation or pixel spacing of a slice is absent",
        "export the series again",
    ),
    Problem(
        "MV711",
        "mixed_orientation",
        "slices are not parallel, or not in one frame of reference",
        "give one stack of them",
    ),
    Problem("MV712", "mixed_sizes", "slices differ in rows, columns or pixel spacing", "give one stack of them"),
    Problem("MV713", "duplicate_instances", "two slices lie at one place", "remove the copies"),
    Problem(
        "MV714", "several_acquisitions", "the same places were scanned more than once", "separate the acquisitions"
    ),
    Problem("MV715", "missing_slices", "a gap as wide as one or more slices", "fetch the missing ones"),
    Problem("MV716", "inconsistent_spacing", "slices are unevenly spaced", "resample the scan"),
    Problem("MV717", "gantry_tilt", "slices are stacked askew, as a tilted gantry does it", "resample the scan"),
    Problem("MV718", "bad_rescale", "stored values cannot be turned into intensities", "export the series again"),
    Problem(
        "MV719",
        "missing_links",
        "no UIDs that a segmentation object could refer to",
        "keep the UIDs when the scan is exported",
    ),
    Problem(
        "MV720",
        "bad_segmentation",
        "a segmentation object that is no mask of the scan",
        "give the scan that it was drawn on",
    ),
)

PROBLEMS = {problem.name: problem for problem in _PROBLEMS}
"""Problems by name."""
