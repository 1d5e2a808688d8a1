"""The catalogue of problems: codes are stable, and every refusal of the reading gate has one."""

import re
import runpy
from pathlib import Path

from medvol.checking.catalogue import PROBLEMS
from medvol.imaging.dicom import problems as of_dicom
from medvol.imaging.formats import problems

CODES = {
    "missing": "MV101", "unreadable": "MV102", "unknown_format": "MV103", "empty": "MV104", "short_header": "MV105",
    "bad_magic": "MV106", "bad_header": "MV107", "bad_dimensions": "MV108", "time_series": "MV109", "colour": "MV110",
    "unknown_datatype": "MV111", "too_large": "MV112", "truncated": "MV113", "overlong": "MV114", "corrupt": "MV115",
    "misnamed": "MV116", "bad_spacing": "MV201", "singular_affine": "MV202", "sheared_affine": "MV203",
    "conflicting_affines": "MV204", "no_orientation": "MV205", "non_finite": "MV301", "constant": "MV302",
    "windowed": "MV303", "shifted_hu": "MV304", "lost_sign": "MV305", "other_shape": "MV401", "other_grid": "MV402",
    "negative_label": "MV403", "fractions": "MV404", "unnamed_label": "MV405", "swapped_sides": "MV406",
    "empty_labels": "MV407", "many_labels": "MV408", "moved_labels": "MV409",
    "bad_layout": "MV501", "bad_row": "MV502", "bad_case": "MV503", "no_target": "MV504", "empty_query": "MV505",
    "empty_target": "MV506", "no_cases": "MV507",
    "repeated_row": "MV508", "unread_column": "MV509", "other_name": "MV510", "full_target": "MV511",
    "large_target": "MV512", "small_target": "MV513", "unseen_target": "MV514", "labels_as_scan": "MV515",
    "barren_scan": "MV516",
    "shared_patient": "MV601", "shared_file": "MV602",
    "shared_scan": "MV603", "same_file": "MV604", "same_scan": "MV605",
    "no_dicom": "MV701", "bad_archive": "MV702", "bad_instance": "MV703", "undecodable_pixels": "MV704",
    "no_image_series": "MV705", "no_such_series": "MV706", "several_series": "MV707", "localizer": "MV708",
    "too_few_slices": "MV709", "missing_geometry": "MV710", "mixed_orientation": "MV711", "mixed_sizes": "MV712",
    "duplicate_instances": "MV713", "several_acquisitions": "MV714", "missing_slices": "MV715",
    "inconsistent_spacing": "MV716", "gantry_tilt": "MV717", "bad_rescale": "MV718", "missing_links": "MV719",
    "bad_segmentation": "MV720", "refused_setting": "MV801", "not_ready": "MV802",
}  # fmt: skip


def test_codes_never_change():
    assert {name: problem.code for name, problem in PROBLEMS.items()} == CODES
    assert len(set(CODES.values())) == len(CODES)


def test_every_refusal_has_a_code():
    named = [*vars(problems).values(), *vars(of_dicom).values()]
    refusals = [e for e in named if isinstance(e, type) and issubclass(e, problems.RefusedScanError)]
    assert len(refusals) > 30
    assert {error.code for error in refusals} - {"refused"} <= set(PROBLEMS)


def test_every_problem_says_what_it_means_and_what_to_do():
    for problem in PROBLEMS.values():
        assert re.fullmatch(r"MV[1-8]\d\d", problem.code)
        assert problem.meaning
        assert problem.fix
        assert not problem.meaning.endswith(".")


def test_a_refusal_says_the_row_of_the_catalogue_itself():
    row = PROBLEMS["sheared_affine"]
    assert (row.code, row.meaning) == ("MV203", "the axes are not at right angles, as with gantry tilt")
    assert (
        row.mended
        == problems.ShearedAffineError.mended
        == "resampled to a straight grid: linear, nearest for label maps"
    )
    assert list(PROBLEMS.values()) == sorted(PROBLEMS.values(), key=lambda problem: problem.code)


def test_the_reference_shows_the_catalogue():
    """Run ``python docs/make_tables.py`` when this fails."""
    script = Path(__file__).parents[2] / "docs" / "make_tables.py"
    tables = runpy.run_path(str(script))
    page = tables["PAGE"].read_text(encoding="utf-8")
    assert tables["fill"](page) == page
    assert (
        "| MV113 | `truncated` | there are fewer voxels than declared: the rest is lost | copy it again |  |\n" in page
    )
