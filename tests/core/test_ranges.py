"""Settings out of range are named with their value."""

import pytest

from medvol.core.errors import ConfigError
from medvol.core.ranges import require_finite, require_least, require_share


def test_what_is_in_range_passes():
    require_least(2, group_size=2, queries=None, weight=2.5)
    require_share(low=0, high=1.0, middle=0.5)


@pytest.mark.parametrize("value", [1, 1.99, -5, float("nan")])
def test_below_the_least(value):
    with pytest.raises(ConfigError, match=f"^group_size is {value}; it must be 2 or more$"):
        require_least(2, seed=7, group_size=value)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_outside_a_share(value):
    with pytest.raises(ConfigError, match=f"^reword is {value}; it is a share, from 0 to 1$"):
        require_share(reword=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_without_an_end(value):
    require_finite(margin=0.0, shift=-3)
    with pytest.raises(ConfigError, match=f"^region.margin is {value}; it must be a finite number$"):
        require_finite("region", margin=value)


def test_a_setting_of_a_group_is_named_with_its_whole_key():
    with pytest.raises(ConfigError, match=r"^loss\.beta is -1; it must be 0 or more$"):
        require_least(0, "loss", beta=-1)
    with pytest.raises(ConfigError, match=r"^optimizer\.final_share is 2; it is a share, from 0 to 1$"):
        require_share("optimizer", final_share=2)
