"""Which window an anchor is looked at in."""

import numpy as np
import pytest

from medvol.core.errors import ConfigError
from medvol.core.types import Volume
from medvol.propagators.window_choice import choose_window, require_window

BOX = np.array([[10.0, 10, 30, 30]])


def volume_of(inside, modality):
    voxels = np.full((3, 40, 40), -90, np.float32)
    voxels[1, 10:30, 10:30] = inside
    return Volume(voxels, np.eye(4), modality)


@pytest.mark.parametrize(
    ("inside", "modality", "window"),
    [(60.0, "CT", "soft_tissue"), (-800.0, "CT", "lung"), (700.0, "CT", "bone"), (700.0, "MR", "soft_tissue")],
)
def test_window_is_chosen_from_the_middle_of_the_box(inside, modality, window):
    volume = volume_of(inside, modality)
    assert choose_window("auto", volume, 1, BOX) == window
    assert choose_window("brain", volume, 1, BOX) == "brain"


def test_an_unknown_window_is_refused():
    with pytest.raises(ConfigError, match="no intensity window 'lungs'; choose auto or one of"):
        require_window("lungs")
