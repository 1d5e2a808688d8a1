"""What a CT's values are: Hounsfield units, unless the file says something else."""

import logging
from pathlib import Path

import pytest

from medvol.imaging.dicom.problems import BadRescaleError
from medvol.imaging.reading import read_volume


@pytest.mark.parametrize(
    ("unit", "modality"), [(None, "CT"), ("HU", "CT"), ("US", "CT"), ("MGML", "other"), ("Z_EFF", "other")]
)
def test_the_type_of_the_values(unit, modality, make_series, tmp_path: Path, caplog) -> None:
    series = make_series()
    if unit is not None:
        series.each(RescaleType=unit)
    folder = series.write(tmp_path / f"{unit}")
    with caplog.at_level(logging.WARNING):
        assert read_volume(folder).modality == modality
    told = f"a CT whose values are of the type {unit!r} and no Hounsfield units; read as other" in caplog.text
    assert told == (modality == "other")
    assert read_volume(folder, modality="CT").modality == "CT"


def test_slices_of_several_types_are_refused(make_series, tmp_path: Path) -> None:
    series = make_series().each(RescaleType="HU")
    series.slices[2].RescaleType = "MGML"
    with pytest.raises(BadRescaleError, match="values of several types, \\['HU', 'MGML'\\]"):
        read_volume(series.write(tmp_path / "s"))
