"""``medvol convert --adapter``: an adapter by itself, that peft reads and that opens again with its base."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from medvol.cli import main
from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.types import Sampling
from medvol.inference.segmenter import Segmenter
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE
from medvol.policies.vision_language import QwenVLPolicy
from medvol.training.checkpoint import SpecCheckpoint, load_policy
from tests.policies.conftest import ask
from tests.training.test_precision import make_data, make_module, make_trainer

peft = pytest.importorskip("peft", reason="needs the extra qwen")

ANSWER = '<answer>[{"slice": 3, "bbox_2d_list": [[20, 40, 60, 1000]]}]</answer>'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model ``base``, and a run that trained adapters of it by so much that they matter."""
    folder = tmp_path_factory.mktemp("run")
    TinyPolicy(template=replace(TINY_TEMPLATE, num_slices=8, height_px=48, width_px=48)).save(folder / "wide")
    QwenVLPolicy(str(folder / "wide"), dtype="bfloat16").save(folder / "base")
    module = make_module("sft", str(folder / "base"), lora_rank=4)
    module.optimizer = replace(module.optimizer, learning_rate=0.02)
    make_trainer(folder, 6, callbacks=[SpecCheckpoint()]).fit(module, make_data())
    checkpoint = str(folder / "checkpoints" / "last.ckpt")
    assert main(["convert", checkpoint, str(folder / "merged")]) == 0
    assert main(["convert", checkpoint, str(folder / "adapter"), "--adapter"]) == 0
    return folder


def policy_of(run: Path, **settings: object) -> QwenVLPolicy:
    return QwenVLPolicy(str(run / "base"), dtype="bfloat16", **settings)


def score(policy: QwenVLPolicy) -> torch.Tensor:
    prompts = ask(policy.template)[:2]
    with torch.no_grad():
        return torch.cat([row[0] for row in policy.log_probs(prompts, [[policy.encode(ANSWER)]] * 2)])


def test_the_folder_holds_the_adapter_alone(run: Path) -> None:
    names = {path.name for path in (run / "adapter").iterdir()}
    expected = {"adapter_config.json", "adapter_model.safetensors", "medvol.json", "training_data.json", "README.md"}
    assert names == expected
    state = load_file(run / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    trained = load_policy(run / "checkpoints" / "last.ckpt").load().named_parameters()
    own = [parameter for name, parameter in trained if ".lora_" in name]
    assert sum(tensor.numel() for tensor in state.values()) == sum(parameter.numel() for parameter in own)
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8, "base"), "no path of ours"
    card = (run / "adapter" / "README.md").read_text()
    assert "library_name: peft" in card
    assert "--policy VisionLanguagePolicy --policy.model BASE --policy.adapter THIS_FOLDER" in card


def test_it_opens_again_with_its_base_and_answers_as_the_merged_model(run: Path) -> None:
    opened, merged = policy_of(run, adapter=str(run / "adapter")), QwenVLPolicy(str(run / "merged"), dtype="bfloat16")
    assert opened.identity()["sha256"] == merged.identity()["sha256"]
    assert opened.identity()["sha256"] != policy_of(run).identity()["sha256"]
    torch.testing.assert_close(score(opened), score(merged), rtol=0, atol=0)
    prompts = ask(opened.template)[:2]
    found, expected = (policy.generate(prompts, 1, Sampling(max_new_tokens=12)) for policy in (opened, merged))
    assert [[c.text for c in row] for row in found] == [[c.text for c in row] for row in expected]


def test_peft_reads_it(run: Path) -> None:
    wide = {"dtype": torch.float32}
    base = AutoModelForImageTextToText.from_pretrained(run / "base", **wide)
    merged = peft.PeftModel.from_pretrained(base, run / "adapter").merge_and_unload().state_dict()
    policy = QwenVLPolicy(str(run / "base"), adapter=str(run / "adapter"))
    own = policy.load().model.state_dict()
    plain = AutoModelForImageTextToText.from_pretrained(run / "base", **wide).state_dict()
    assert any(not torch.equal(merged[name], plain[name]) for name in plain)
    for name, tensor in merged.items():
        torch.testing.assert_close(own[name], tensor, rtol=0, atol=1e-6)


def test_an_adapter_of_pefts_own_is_read(run: Path, tmp_path: Path) -> None:
    base = AutoModelForImageTextToText.from_pretrained(run / "base", dtype=torch.float32)
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"], init_lora_weights=False)
    theirs = peft.get_peft_model(base, config)
    theirs.save_pretrained(tmp_path / "theirs")
    expected = theirs.merge_and_unload().state_dict()
    own = QwenVLPolicy(str(run / "base"), adapter=str(tmp_path / "theirs")).load().model.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(own[name], tensor, rtol=0, atol=1e-6)


def test_more_can_be_trained_on_top_but_is_no_adapter_of_the_base(run: Path, tmp_path: Path) -> None:
    policy = policy_of(run, adapter=str(run / "adapter"), lora_rank=2)
    torch.testing.assert_close(score(policy), score(policy_of(run, adapter=str(run / "adapter"))), rtol=0, atol=0)
    prompts = ask(policy.template)[:2]
    reference = policy.reference_log_probs(prompts, [[policy.encode(ANSWER)]] * 2)
    torch.testing.assert_close(torch.cat([row[0] for row in reference]), score(policy), rtol=0, atol=0)
    with pytest.raises(ConfigError, match="on top of another one"):
        policy.save(tmp_path / "out", adapter=True)


def test_a_policy_without_adapters_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trains its weights and no adapter"):
        TinyPolicy().save(tmp_path / "out", adapter=True)
    assert not (tmp_path / "out").exists()


def test_an_adapter_alone_is_no_model_folder(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds an adapter alone; name its base model too: VisionLanguagePolicy"):
        Segmenter(run / "adapter")


def damage_other_base(folder: Path) -> None:
    state = load_file(folder / "base" / "model.safetensors")
    state["model.language_model.norm.weight"] += 1
    save_file(state, folder / "base" / "model.safetensors", {"format": "pt"})
    (folder / "base" / "medvol.json").unlink()


def damage_tensor(folder: Path) -> None:
    path = folder / "adapter" / "adapter_model.safetensors"
    state = load_file(path)
    state.popitem()
    save_file(state, path)
    (folder / "adapter" / "medvol.json").unlink()


def damage_shape(folder: Path) -> None:
    path = folder / "adapter" / "adapter_model.safetensors"
    state = {name: tensor[:1] if "lora_B" in name else tensor for name, tensor in load_file(path).items()}
    save_file(state, path)
    (folder / "adapter" / "medvol.json").unlink()


def damage_kind(folder: Path) -> None:
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
    (folder / "adapter" / "medvol.json").unlink()


def damage_scale(folder: Path) -> None:
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "r": 0}))
    (folder / "adapter" / "medvol.json").unlink()


def damage_seal(folder: Path) -> None:
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 8', '"lora_alpha": 80'))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_other_base, "was trained beside other weights than those of this model"),
        (damage_tensor, "holds other tensors than pairs of LoRA"),
        (damage_shape, "does not fit its base model at"),
        (damage_kind, "another kind than plain LoRA"),
        (damage_scale, "cannot be read as an adapter's"),
        (damage_seal, "is not as medvol wrote it"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    run: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    for part in ("base", "adapter"):
        shutil.copytree(run / part, tmp_path / part)
    damage(tmp_path)
    template = None if (tmp_path / "adapter" / "medvol.json").exists() else QwenVLPolicy(str(run / "base")).template
    for dtype in ("bfloat16", "float32"):
        policy = QwenVLPolicy(str(tmp_path / "base"), None, dtype, adapter=str(tmp_path / "adapter"))
        policy._template = None if (tmp_path / "base" / "medvol.json").exists() else template
        with pytest.raises(CheckpointError, match=said):
            policy.load()


def test_a_folder_without_an_adapter_is_refused_at_the_start(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no adapter"):
        policy_of(run, adapter=str(tmp_path)).require_ready()


def test_adapter_is_for_runs_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "w.pt", str(tmp_path / "out"), "--adapter"]) == 2
    assert "--adapter is for the .ckpt of a run; got 'w.pt'" in capsys.readouterr().err
