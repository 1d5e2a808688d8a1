"""The models that come with medvol: small, halved, described, and opened by their names."""

import json
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from medvol.cli.folder_policies import name_policies
from medvol.core.bundled import BASE, BEST, is_model, model_folder
from medvol.core.errors import CheckpointError
from medvol.core.model_folder import count_numbers, judge_folder
from medvol.core.sidecar import SIDECAR, read_sidecar
from medvol.core.specs import rebuild
from medvol.policies.tiny import TinyPolicy
from medvol.training.base_model import find_base
from medvol.weights.folder_policy import find_policy

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = [BASE, BEST]
MOST_BYTES = 16_000_000


def files_of(name: str) -> list[Path]:
    return sorted(path for path in model_folder(name).rglob("*") if path.is_file())


def test_any_other_name_is_a_path(tmp_path: Path) -> None:
    assert model_folder("runs/x/model") == Path("runs/x/model")
    assert model_folder(tmp_path) == tmp_path
    assert is_model(tmp_path)
    assert not is_model(tmp_path / "nothing")
    assert is_model("bundled:anything"), "so that what is wrong with it is said"


def test_a_name_that_the_box_lacks() -> None:
    with pytest.raises(
        CheckpointError, match="no model 'bundled:bast'; medvol comes with bundled:base and bundled:best; did you mean"
    ):
        model_folder("bundled:bast")
    with pytest.raises(CheckpointError, match="medvol comes with"):
        TinyPolicy("bundled:").require_ready()


def test_the_box_is_small() -> None:
    assert sum(path.stat().st_size for name in NAMES for path in files_of(name)) <= MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_halved_and_sealed(name: str) -> None:
    folder = model_folder(name)
    judge_folder(folder)
    assert read_sidecar(folder)["policy"]["component"] == "policies/TinyPolicy"
    content = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert {entry["dtype"] for key, entry in header.items() if key != "__metadata__"} == {"F16"}
    assert count_numbers(folder) > 3_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_was_measured_and_how_it_is_made(name: str) -> None:
    card = (model_folder(name) / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    for words in (
        f"python benchmarks/bundled.py --names {name.partition(':')[2]}",
        "synthetic scans only",
        "36 patients",
        "held-out phrasings",
        "| DSC |",
        "| absent |",
    ):
        assert words in card


@pytest.mark.parametrize("name", NAMES)
def test_a_name_opens_its_policy_and_stays_its_name(name: str) -> None:
    """A checkpoint that names it can be read on another machine."""
    spec = find_policy(name)
    assert spec["settings"] == {"model": name}
    policy = rebuild(spec)
    assert type(policy) is TinyPolicy
    assert policy.training_data.drawn
    assert find_base(policy) is None, "it began with random weights"


def test_named_in_yaml() -> None:
    named = {"class_path": "TinyPolicy", "init_args": {"model": BASE}}
    assert name_policies({"model": {"policy": BASE, "name": BASE}}) == {"model": {"policy": named, "name": BASE}}


def test_computed_in_single_precision() -> None:
    policy = TinyPolicy(BEST)
    assert {parameter.dtype for parameter in policy.load().parameters()} == {torch.float32}
    assert policy.identity()["model"] == BEST


@pytest.mark.slow
def test_wheel_and_sdist_carry_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hatchling.build import build_sdist, build_wheel

    monkeypatch.chdir(REPOSITORY)
    wheel = zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path)))
    with tarfile.open(tmp_path / build_sdist(str(tmp_path))) as sdist:
        root = sdist.getnames()[0].split("/")[0]
        files = [path for name in NAMES for path in files_of(name)]
        assert SIDECAR in {path.name for path in files}
        for path in files:
            inside = path.relative_to(REPOSITORY).as_posix()
            assert wheel.read(inside) == path.read_bytes()
            assert sdist.extractfile(f"{root}/{inside}").read() == path.read_bytes()
