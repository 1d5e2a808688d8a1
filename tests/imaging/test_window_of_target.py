"""Which window shows a target, by its name or by a question about it."""

import pytest

from medvol.imaging.windows import window_for_target


@pytest.mark.parametrize(
    ("target", "preset"),
    [
        ("liver", "soft_tissue"),
        ("lung_upper_lobe_left", "lung"),
        ("the left lung", "lung"),
        ("Trachea", "lung"),
        ("lung nodule", "soft_tissue"),
        ("tumor in the right lung", "soft_tissue"),
        ("rib_left_4", "bone"),
        ("the ribs", "bone"),
        ("vertebrae_T12", "bone"),
        ("hip_right", "bone"),
        ("brain", "brain"),
        ("describe the spleen", "soft_tissue"),
        ("the whip-shaped tributary", "soft_tissue"),
        ("the soft-tissue mass in the bone", "soft_tissue"),
        ("massive bone", "bone"),
        ("", "soft_tissue"),
    ],
)
def test_window_for_target(target, preset):
    assert window_for_target(target) == preset
