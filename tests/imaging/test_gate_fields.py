"""Any value in any field of a NIfTI header: the scan is refused by name, or it is sound and nibabel agrees."""

import warnings

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medvol.imaging.formats.problems import RefusedScanError
from medvol.imaging.geometry import axis_codes, corner_distance_mm
from medvol.imaging.reading import read_volume

FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 352.0, 1e-30, 1e-300, 1e30, 3e38, -3e38, np.nan, np.inf, -np.inf]
KINDS = {"one": nib.Nifti1Image, "two": nib.Nifti2Image}


def values(item):
    """Bytes of one value of a field's type."""
    if item.kind == "f":
        numbers = st.sampled_from(FLOATS) | st.floats(width=8 * item.itemsize)
    elif item.kind in "iu":
        low, high = int(np.iinfo(item).min), int(np.iinfo(item).max)
        numbers = st.integers(max(low, -3), 20) | st.integers(low, high)
    else:
        return st.binary(min_size=item.itemsize, max_size=item.itemsize)
    return numbers.map(lambda number: to_bytes(number, item))


def to_bytes(number, item):
    with np.errstate(over="ignore"):
        return np.array(number).astype(item).tobytes()


@st.composite
def edits(draw, kind):
    """Places in the header and bytes for them: values from the edges of the field's type, or any at all."""
    layout = kind.header_class().structarr.dtype
    changes = []
    for name in draw(st.lists(st.sampled_from(layout.names), min_size=1, max_size=3)):
        field, start = layout.fields[name][:2]
        item = field.base
        number = draw(st.integers(0, field.itemsize // item.itemsize - 1))
        changes.append((start + number * item.itemsize, draw(values(item))))
    return changes


def outcome(path):
    try:
        return read_volume(path, max_bytes=2_000_000), "accepted"
    except RefusedScanError as refusal:
        return None, refusal.code


@pytest.mark.parametrize("kind", KINDS)
def test_any_header_is_refused_by_name_or_sound(scans, tmp_path, kind):
    whole = scans.nifti(kind=KINDS[kind])
    outcomes = set()

    @settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
    @given(edits(KINDS[kind]))
    def check(changes):
        data = bytearray(whole)
        for offset, value in changes:
            data[offset : offset + len(value)] = value
        path = tmp_path / "scan.nii"
        path.write_bytes(data)
        volume, code = outcome(path)
        outcomes.add(code)
        if volume is None:
            return
        assert axis_codes(volume.affine) == "LPS"
        assert np.isfinite(volume.voxels).all()
        assert volume.voxels.size == scans.voxels().size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = nib.load(path).affine
        assert corner_distance_mm(volume.source.affine, expected, volume.source.shape) < 0.01

    check()
    assert {"accepted", "bad_magic", "bad_spacing", "singular_affine", "bad_dimensions"} <= outcomes
