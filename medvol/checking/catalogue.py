"""Every problem that ``medvol check`` names: a stable code, what it means, what to do.

MV1xx a file, MV2xx its geometry, MV3xx its intensities, MV4xx a label map, MV5xx a data set, MV6xx leakage, MV7xx
DICOM, MV8xx an experiment. A code is never given to another problem; a problem that is gone leaves a gap.
"""

from __future__ import annotations

from dataclasses import dataclass

from medvol.imaging.dicom import problems as dicom_problems
from medvol.imaging.formats import problems
from medvol.imaging.formats.problems import RefusedScanError


@dataclass(frozen=True)
class Problem:
    """A kind of problem.

    Args:
        code: Stable, such as ``MV113``.
        name: In a word or two; for a file that the reading gate refuses, the gate's own code.
        meaning: What it means for a user.
        fix: What to do.
        mended: How ``--fix`` corrects a copy; empty when it does not.
        warning: True when the file can be used all the same.
    """

    code: str
    name: str
    meaning: str
    fix: str
    mended: str = ""
    warning: bool = False


_FOUND = (
    Problem(
        "MV116",
        "misnamed",
        "gzipped or not, against its name; other programs may refuse it",
        "rename it",
        "written as its name says",
        warning=True,
    ),
    Problem(
        "MV302", "constant", "every voxel has the same value: there is nothing to see", "export it again", warning=True
    ),
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
    Problem(
        "MV305",
        "lost_sign",
        "a CT whose negative values were stored without a sign: air is the brightest of all",
        "save it with a sign, as int16",
        warning=True,
    ),
    Problem("MV401", "other_shape", "a label map has another shape than its scan", "export both from one grid"),
    Problem("MV402", "other_grid", "a label map lies beside its scan", "resample it to the scan"),
    Problem("MV403", "negative_label", "a label is negative", "save labels above 0; 0 is the background"),
    Problem("MV404", "fractions", "a label map holds no whole numbers", "resample it by nearest neighbour"),
    Problem("MV405", "unnamed_label", "labels.json has no name for a label", "add it"),
    Problem("MV406", "swapped_sides", "left lies to the right of right", "swap the names, or correct the affine"),
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
    Problem("MV502", "bad_row", "a row of a table cannot be used", "correct the cell"),
    Problem("MV503", "bad_case", "a case cannot be read", "see the detail"),
    Problem("MV504", "no_target", "a case that is scored has no target mask", "give it one, or use predict"),
    Problem("MV505", "empty_query", "a case asks nothing", "write a query or a target"),
    Problem("MV506", "empty_target", "the mask of a target that is asked for is empty", "check label and mask"),
    Problem("MV507", "no_cases", "a split holds no case", "choose other patients, targets or shares"),
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
    Problem("MV801", "refused_setting", "a setting with which a run is refused before it begins", "see the detail"),
    Problem("MV802", "not_ready", "an extra or weights that a run needs are not here", "see the detail"),
    Problem("MV605", "same_scan", "one scan under two names, turned or resampled", "keep one of them", warning=True),
)


def _read_refusals() -> list[Problem]:
    """A problem for every named refusal of the reading gate, as its class says it."""
    classes = [
        value for module in (problems, dicom_problems) for value in vars(module).values() if isinstance(value, type)
    ]
    return [
        Problem(error.number, error.code, _as_phrase(error.__doc__ or ""), error.fix, error.mended)
        for error in dict.fromkeys(classes)
        if issubclass(error, RefusedScanError) and error is not RefusedScanError
    ]


def _as_phrase(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:].removesuffix(".")


PROBLEMS = {problem.name: problem for problem in sorted((*_read_refusals(), *_FOUND), key=lambda one: one.code)}
"""Problems by name, in the order of their codes."""
