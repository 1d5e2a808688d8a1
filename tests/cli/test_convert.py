"""``medvol convert`` asks the component whose weights they are."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medvol.cli import main

CONVERTER = """
from pathlib import Path
from medvol import Propagator
from medvol.core.weights_converter import WeightsConverter
class CopyPropagator(Propagator, WeightsConverter):
    def __init__(self, weights: str = "w") -> None: self.weights = weights
    def propagate(self, volume, evidence, z_range=None): raise NotImplementedError
    @classmethod
    def convert_weights(cls, source, folder, image_size=None, download=False):
        Path(folder).mkdir()
        Path(folder, "model.safetensors").write_bytes(Path(source).read_bytes())
        return f"of {image_size} {download}"
"""


@pytest.fixture
def copier(distribution: Callable[..., None]) -> None:
    distribution("copies", {"propagators": {"CopyPropagator": "copies:CopyPropagator"}}, CONVERTER)


def test_a_strangers_weights_are_converted(copier: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.bin").write_bytes(b"123")
    arguments = [str(tmp_path / "w.bin"), str(tmp_path / "out"), "--component", "CopyPropagator", "--image_size", "64"]
    assert main(["convert", *arguments]) == 0
    assert "sha256  of 64 False" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"123"


def test_of_several_that_convert_one_is_named(copier: None, refused: Callable[..., str]) -> None:
    said = refused("convert", "w.bin", "out")
    assert said == ("weights are converted by CopyPropagator, MedSAM2Propagator; choose one: --component NAME")


def test_who_converts_nothing_says_so(refused: Callable[..., str]) -> None:
    said = refused("convert", "w.bin", "out", "--component", "RegionPropagator")
    assert said == "RegionPropagator takes its weights as they are; there is nothing to convert"
    assert "no 'NoPropagator'" in refused("convert", "w.bin", "out", "--component", "NoPropagator")


@pytest.mark.parametrize("option", [("--component", "MedSAM2Propagator"), ("--image_size", "256"), ("--download",)])
def test_options_that_would_do_nothing_for_a_run_are_refused(
    option: tuple[str, ...], refused: Callable[..., str]
) -> None:
    said = refused("convert", "runs/last.ckpt", "out", *option)
    assert said.startswith(f"{option[0]} is about the weights of a propagator, and 'runs/last.ckpt' is named as the")
