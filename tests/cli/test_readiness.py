"""A component of a plug-in that lacks its weights stops a run before it begins."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medvol.cli import main
from medvol.core.errors import InvalidComponentError
from medvol.core.registry import PROPAGATORS
from medvol.guarding.guard import require_ready

BARE = '''
from medvol import CheckpointError, Propagator

class BarePropagator(Propagator):
    """Lacks its weights.

    Args:
        ready: How it fails.
    """

    def __init__(self, how: str = "weights") -> None:
        self.how = how

    def require_ready(self) -> None:
        if self.how == "weights":
            raise CheckpointError("there are no bare weights; fetch them")
        raise OSError("a disk is gone")

    def propagate(self, volume, evidence, z_range=None):
        raise AssertionError("asked before it was ready")
'''


@pytest.fixture
def bare(distribution: Callable[..., None]) -> None:
    distribution("bare", {"propagators": {"BarePropagator": "bare:BarePropagator"}}, BARE)


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_a_run_with_a_plug_in_that_lacks_weights_does_not_begin(
    verb: str,
    bare: None,
    experiment: Callable[..., Path],
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    config = experiment(model__init_args__propagator="BarePropagator", data__init_args__predict="ToyDataset")
    assert refused(verb, "--config", config) == "there are no bare weights; fetch them"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_that_is_refused_deletes_nothing(
    bare: None,
    experiment: Callable[..., Path],
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    assert main(["fit", "--config", str(experiment())]) == 0
    kept = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    refused("fit", "--config", experiment(model__init_args__propagator="BarePropagator"), "--overwrite")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == kept


@pytest.mark.parametrize("many", [False, True])
def test_segment_with_a_plug_in_that_lacks_weights_asks_nothing(
    many: bool,
    bare: None,
    toy: Path,
    scan: Path,
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    place = scan.parent if many else scan
    out = ("--out", tmp_path / "out")
    said = refused("segment", place, "the cube", "--policy", "ToyPolicy", "--propagator", "BarePropagator", *out)
    assert said == "there are no bare weights; fetch them"
    assert not (tmp_path / "out").exists()


def test_another_failure_names_who_failed(bare: None) -> None:
    propagator = PROPAGATORS.get("BarePropagator")(how="else")
    with pytest.raises(InvalidComponentError, match=r"the propagator BarePropagator of bare 0\.3 .*a disk is gone"):
        require_ready(propagator)
