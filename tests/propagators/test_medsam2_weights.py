"""Weights: found, converted, refused; never downloaded unless asked, never unpickled."""

import json
import logging

import huggingface_hub
import pytest
import torch

from medvol.cli import main
from medvol.core.atomic_files import file_sha256
from medvol.core.errors import CheckpointError, ConfigError
from medvol.propagators.sam2_family import medsam2_presets
from medvol.propagators.sam2_family.medsam2_conversion import BACKBONES, convert_state, guess_size, video_config
from medvol.propagators.sam2_family.medsam2_weights import convert_weights, find_weights, load_model


class Payload:
    """What an evil checkpoint would run."""

    def __reduce__(self):
        return print, ("run",)


def test_names_convert_and_values_do_not_change(small_weights):
    converted = convert_state(small_weights.state)
    kept = load_model(find_weights(small_weights.folder)).state_dict()
    assert converted.keys() == kept.keys()
    assert all(torch.equal(converted[name], kept[name]) for name in kept)
    total = sum(float(tensor.double().sum()) for tensor in small_weights.state.values())
    places = converted["shared_image_embedding.positional_embedding"]
    assert sum(float(t.double().sum()) for t in converted.values()) - float(places.double().sum()) == pytest.approx(
        total
    )


@pytest.mark.slow
@pytest.mark.parametrize(("size", "config"), [("tiny", "t"), ("small", "s"), ("base_plus", "b+"), ("large", "l")])
def test_every_size_of_sam2_converts(size, config):
    pytest.importorskip("sam2", reason="the extra sam2 is not installed")
    from transformers import Sam2VideoModel

    from medvol.propagators.sam2_family.sam2_network import SAM2Predictor

    network = SAM2Predictor(f"configs/sam2.1/sam2.1_hiera_{config}.yaml", 1024).model
    with torch.device("meta"):
        expected = Sam2VideoModel(video_config(size, 1024)).state_dict()
    converted = convert_state(network.state_dict())
    assert guess_size(network.state_dict()) == size
    assert {name: tensor.shape for name, tensor in converted.items()} == {n: t.shape for n, t in expected.items()}


@pytest.mark.slow
def test_convert_writes_a_folder_with_its_digest(t512_weights, tmp_path, capsys):
    folder = tmp_path / "folder"
    assert main(["convert", t512_weights.checkpoint, str(folder)]) == 0
    digest = file_sha256(folder / "model.safetensors")
    assert digest in capsys.readouterr().out
    facts = json.loads((folder / "medvol.json").read_text())
    assert facts["files"]["model.safetensors"] == digest
    assert facts["source_sha256"] == file_sha256(find_weights(t512_weights.checkpoint).path)
    states = [load_model(find_weights(str(w))).state_dict() for w in (t512_weights.checkpoint, folder)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert main(["convert", t512_weights.checkpoint, str(folder)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_damaged_weights_are_refused(small_weights, tmp_path):
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(small_weights.folder, folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_model(find_weights(str(folder)))


STEM = "image_encoder.trunk.patch_embed.proj.weight"
LONG = f"image_encoder.trunk.blocks.{'9' * 5000}.weight"


@pytest.mark.parametrize("size", [0, -32, 31, 10**9])
def test_an_image_size_out_of_range_is_refused(size, tmp_path):
    with pytest.raises(ConfigError, match=f"got {size}"):
        convert_weights("MedSAM2_latest", str(tmp_path / "model"), image_size=size)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"weight": Payload()}}, "not a file of plain values and tensors"),
        ([1, 2], "holds no state dictionary"),
        ({"model": {"weight": torch.zeros(2)}}, "not those of SAM 2.1 or MedSAM2"),
        ({"model": {3: torch.zeros(2)}}, "holds no state dictionary"),
        ({"model": {STEM: torch.zeros(()), "obj_ptr_tpos_proj.weight": torch.zeros(2)}}, "cannot be loaded"),
        (
            {"model": {STEM: torch.zeros(96, 1), LONG: torch.zeros(2), "obj_ptr_tpos_proj.weight": torch.zeros(2)}},
            "loaded",
        ),
    ],
)
def test_files_that_are_no_checkpoints_are_refused(content, message, tmp_path, capsys):
    path = tmp_path / "file.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        load_model(find_weights(str(path)))
    assert "run" not in capsys.readouterr().out


def test_missing_tensors_are_named(small_weights):
    from medvol.propagators.sam2_family.medsam2_weights import build_model

    state = convert_state(small_weights.state)
    config = load_model(find_weights(small_weights.folder)).config
    state.pop("no_memory_embedding")
    with pytest.raises(CheckpointError, match="no_memory_embedding"):
        build_model(config, state)


def test_a_hiera_of_another_size_is_refused(small_weights):
    with pytest.raises(CheckpointError, match="width 16 with 5 blocks is none of tiny, small, base_plus, large"):
        load_model(find_weights(small_weights.checkpoint))


def test_unknown_weights_suggest_a_name():
    with pytest.raises(CheckpointError, match="did you mean 'MedSAM2_latest'"):
        find_weights("medsam2_lates")


@pytest.mark.parametrize("name", ["MedSAM2_latest", "SAM2.1_tiny", "somebody/some-tracker"])
def test_nothing_is_fetched_unless_asked(name, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"not on this machine .*set download to true"):
        find_weights(name)
    with pytest.raises(CheckpointError, match="not on this machine"):
        convert_weights(name, str(tmp_path / "folder"))


def test_licences_are_shown_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(medsam2_presets, "_told", set())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for name in ("MedSAM2_2411", "SAM2.1_large"):
                with pytest.raises(CheckpointError):
                    find_weights(name)
    assert [record.args[0] for record in caplog.records] == ["MedSAM2_2411", "SAM2.1_large"]
    assert "CC BY-SA 4.0" in caplog.text
    assert "Apache-2.0" in caplog.text


def test_a_folder_is_not_written_over(tmp_path):
    with pytest.raises(ConfigError, match="is there already"):
        convert_weights("MedSAM2_latest", str(tmp_path))


def test_every_preset_names_a_size_that_converts():
    assert {preset.image_size for preset in medsam2_presets.PRESETS.values()} == {512, 1024}
    assert all(preset.file.endswith(".pt") and preset.licence for preset in medsam2_presets.PRESETS.values())
    assert set(BACKBONES) == {"tiny", "small", "base_plus", "large"}
