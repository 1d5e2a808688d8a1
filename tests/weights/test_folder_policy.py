"""A model folder says which policy wrote it, a stranger's too."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from distributions import TRAINABLE, write_distribution

from medvol.cli import main
from medvol.core.errors import CheckpointError
from medvol.core.prompts import PromptTemplate
from medvol.core.registry import POLICIES
from medvol.core.sidecar import SIDECAR
from medvol.core.specs import describe_component, rebuild
from medvol.core.training_data import TrainingData
from medvol.inference.segmenter import Segmenter
from medvol.policies.tiny import TinyPolicy
from medvol.policies.vision_language import QwenVLPolicy, VisionLanguagePolicy
from medvol.testing.trainable_checks import check_folder_opens
from medvol.weights.folder_policy import find_policy


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """A trainable policy of another distribution."""
    site = tmp_path / "site"
    write_distribution(site, "acme-policy", "AcmePolicy = acme_policy:AcmePolicy", {"acme_policy.py": TRAINABLE})
    monkeypatch.syspath_prepend(str(site))
    yield POLICIES.get("AcmePolicy")
    sys.modules.pop("acme_policy", None)


def edit(folder: Path, change) -> None:
    content = json.loads((folder / SIDECAR).read_text())
    change(content)
    (folder / SIDECAR).write_text(json.dumps(content))


def test_a_tiny_folder_is_opened_by_its_policy(tmp_path: Path) -> None:
    policy = TinyPolicy(seed=5)
    policy.save(tmp_path / "model")
    sidecar = json.loads((tmp_path / "model" / SIDECAR).read_text())
    assert sidecar["policy"] == {**describe_component(policy), "settings": {}}
    assert PromptTemplate.from_dict(sidecar["template"]) == policy.template
    again = Segmenter(tmp_path / "model").policy
    assert type(again) is TinyPolicy
    assert again.identity()["sha256"] == policy.identity()["sha256"]


def test_a_folder_keeps_the_type_of_its_weights(tmp_path: Path) -> None:
    TinyPolicy().save(tmp_path / "start")
    QwenVLPolicy(str(tmp_path / "start"), dtype="bfloat16", freeze_vision=True).save(tmp_path / "model")
    again = rebuild(find_policy(tmp_path / "model"))
    assert (type(again), again.dtype, again.freeze_vision) == (QwenVLPolicy, "bfloat16", False)


def test_a_published_folder_is_opened_by_its_family(tmp_path: Path) -> None:
    TinyPolicy().save(tmp_path / "model")
    (tmp_path / "model" / SIDECAR).unlink()
    policy = rebuild(find_policy(tmp_path / "model"))
    assert (type(policy), policy.model) == (VisionLanguagePolicy, str(tmp_path / "model"))


def test_a_strangers_policy_is_saved_and_opened(acme: type, tmp_path: Path) -> None:
    policy = acme(start=0.25, template=PromptTemplate(num_slices=3, height_px=16, width_px=16))
    with torch.no_grad():
        policy.load()["weight"].fill_(2.0)
    policy.training_data = TrainingData(words={"spleen"})
    policy.save(tmp_path / "model")
    spec = find_policy(tmp_path / "model")
    assert spec["component"] == "policies/AcmePolicy"
    assert spec["distribution"] == "acme-policy 1.0"
    again = Segmenter(tmp_path / "model").policy
    assert type(again) is acme
    assert (again.start, again.template) == (0.25, policy.template)
    assert again.load()["weight"].item() == 2.0
    assert again.training_data.words == {"spleen"}


def test_a_strangers_policy_keeps_the_contract_of_folders(acme: type) -> None:
    check_folder_opens(acme(start=1.5))


def test_segment_takes_a_strangers_folder(acme: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import nibabel as nib

    policy = acme(start=1.5)
    policy.save(tmp_path / "model")
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 4), np.int16), np.diag([2.0, 2.0, 5.0, 1.0])), tmp_path / "ct.nii.gz")
    command = ["segment", str(tmp_path / "ct.nii.gz"), "the cube", "--policy", str(tmp_path / "model")]
    command += ["--propagator", "ExtrudePropagator", "--modality", "CT", "--assume_orientation", "RAS"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    (record,) = (tmp_path / "out").glob("*.json")
    content = json.loads(record.read_text())
    assert content["policy"]["name"] == "AcmePolicy"
    assert content["policy"]["distribution"] == "acme-policy 1.0"
    assert content["policy"]["start"] == 1.5


def test_a_strangers_checkpoint_is_converted_and_opened(acme: type, tmp_path: Path) -> None:
    from medvol.evaluation.module import EvaluationModule
    from medvol.propagators.extrude import ExtrudePropagator

    module = EvaluationModule(acme(), ExtrudePropagator())
    module.configure_model()
    with torch.no_grad():
        module.network["weight"].fill_(3.0)
    checkpoint = {"state_dict": module.state_dict(), "medvol_spec": describe_component(module)}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert main(["convert", str(tmp_path / "last.ckpt"), str(tmp_path / "model")]) == 0
    again = rebuild(find_policy(tmp_path / "model"))
    assert type(again) is acme
    assert again.load()["weight"].item() == 3.0


def test_a_checkpoint_survives_a_move_of_the_class(acme: type, tmp_path: Path) -> None:
    from medvol.evaluation.module import EvaluationModule
    from medvol.propagators.extrude import ExtrudePropagator
    from medvol.training.checkpoint import load_policy

    module = EvaluationModule(acme(), ExtrudePropagator())
    module.configure_model()
    torch.save({"state_dict": module.state_dict(), "medvol_spec": describe_component(module)}, tmp_path / "last.ckpt")
    sources = {"acme_moved/policies/one.py": TRAINABLE}
    points = "AcmePolicy = acme_moved.policies.one:AcmePolicy"
    write_distribution(tmp_path / "site", "acme-policy", points, sources)
    (tmp_path / "site" / "acme_policy.py").unlink()
    del sys.modules["acme_policy"]
    assert type(load_policy(tmp_path / "last.ckpt")).__module__ == "acme_moved.policies.one"


def test_a_policy_that_is_not_installed_names_what_to_install(acme: type, tmp_path: Path, capsys) -> None:
    acme().save(tmp_path / "model")
    edit(tmp_path / "model", lambda s: s["policy"].update(component="policies/GonePolicy", distribution="gone 2.1"))
    with pytest.raises(CheckpointError, match=r"'policies/GonePolicy' .*not installed here; install 'gone 2\.1'"):
        find_policy(tmp_path / "model")
    assert main(["segment", "scan.nii.gz", "the liver", "--policy", str(tmp_path / "model")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


DAMAGE = {
    "a list": lambda s: s.update(policy=[1]),
    "nothing": lambda s: s.update(policy=None),
    "words": lambda s: s.update(policy="TinyPolicy"),
    "no name": lambda s: s["policy"].pop("component"),
    "another schema": lambda s: s["policy"].update(schema=9),
    "a function": lambda s: s["policy"].update(component="os.system"),
    "a module on the path": lambda s: s["policy"].update(component="lying_here.Policy"),
    "a reward": lambda s: s["policy"].update(component="rewards/FormatReward"),
    "a policy without weights": lambda s: s["policy"].update(component="policies/CentreBoxPolicy"),
    "a server": lambda s: s["policy"].update(
        component="policies/EndpointPolicy",
        settings={"url": "http://127.0.0.1:9/v1", "model": "m", "key_variable": "MY_SECRET"},
    ),
    "a server within": lambda s: s["policy"]["settings"].update(
        inner=[{"schema": 1, "component": "policies/EndpointPolicy", "settings": {"url": "http://127.0.0.1:9/v1"}}]
    ),
    "a class of medvol": lambda s: s["policy"].update(component="medvol/Segmenter"),
    "no settings": lambda s: s["policy"].pop("settings"),
    "settings with dots": lambda s: s["policy"].update(settings={"model.x": 1}),
    "settings with dashes": lambda s: s["policy"].update(settings={"x --out": 1}),
    "files in a list": lambda s: s.update(files=[]),
    "another file": lambda s: s["files"].update({"more.json": "0"}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_sidecar_is_judged_before_anything_is_imported(damage, acme, tmp_path: Path, monkeypatch) -> None:
    acme().save(tmp_path / "model")
    (tmp_path / "lying_here.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Policy: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    edit(tmp_path / "model", damage)
    with pytest.raises(CheckpointError) as refusal:
        find_policy(tmp_path / "model")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "canary").exists()
    assert "lying_here" not in sys.modules


def test_a_changed_file_of_a_strangers_folder_is_noticed(acme: type, tmp_path: Path) -> None:
    acme().save(tmp_path / "model")
    (tmp_path / "model" / "acme" / "weight.json").write_text("7.0")
    with pytest.raises(CheckpointError, match="not as medvol wrote it"):
        find_policy(tmp_path / "model")


def test_an_empty_folder_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither medvol\.json nor config\.json"):
        find_policy(tmp_path)


def test_a_sidecar_that_is_cut_is_refused(tmp_path: Path) -> None:
    (tmp_path / SIDECAR).write_text('{"policy": ')
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        find_policy(tmp_path)


def test_a_sealed_folder_is_hashed_once_on_its_way_to_an_answer(tmp_path: Path, monkeypatch) -> None:
    """Found, found again at each reading of a configuration, judged and loaded."""
    from medvol.core import settled_files

    TinyPolicy().save(tmp_path / "model")
    read: list[str] = []
    whole, now = settled_files.file_sha256, settled_files.time.time_ns
    monkeypatch.setattr(settled_files, "file_sha256", lambda path: read.append(path.name) or whole(path))
    monkeypatch.setattr(settled_files.time, "time_ns", lambda: now() + 60 * 10**9)
    for _ in range(3):
        policy = rebuild(find_policy(tmp_path / "model"))
    policy.load()
    assert read.count("model.safetensors") == 1
    assert len(read) == len(set(read))
