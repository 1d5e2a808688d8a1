"""Checkpoints that are damaged, or made to do harm: one sentence, and nothing imported, run or allocated."""

import sys
import zipfile
from types import SimpleNamespace

import pytest
import torch

from medvol.cli import main
from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.specs import describe_component, rebuild
from medvol.evaluation.module import EvaluationModule
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.training.checkpoint import load_policy


@pytest.fixture(scope="module")
def sound():
    module = EvaluationModule(TinyPolicy(seed=3), ExtrudePropagator())
    module.configure_model()
    return {"state_dict": dict(module.state_dict()), "medvol_spec": describe_component(module)}


@pytest.fixture
def content(sound):
    """A copy whose spec and names can be changed."""
    policy = {**sound["medvol_spec"]["settings"]["policy"]}
    policy["settings"] = {**policy["settings"]}
    spec = {**sound["medvol_spec"], "settings": {**sound["medvol_spec"]["settings"], "policy": policy}}
    return SimpleNamespace(state=dict(sound["state_dict"]), spec=spec, policy=policy)


def first(state):
    return next(name for name in sorted(state) if "layers.1" in name)


def cyclic():
    values = []
    values.append(values)
    return values


def doubled(levels):
    values = [1]
    for _ in range(levels):
        values = [values, values]
    return values


DAMAGE = {
    "no spec": lambda c: vars(c).update(spec=None),
    "a spec that is a list": lambda c: vars(c).update(spec=[1, 2]),
    "a spec of words": lambda c: vars(c).update(spec="os.system"),
    "a spec without settings": lambda c: vars(c).update(spec={"schema": 1, "component": "medvol/EvaluationModule"}),
    "a spec that names a number": lambda c: vars(c).update(spec={"schema": 1, "component": 3, "settings": {}}),
    "another schema": lambda c: c.policy.update(schema=2),
    "no schema": lambda c: c.policy.pop("schema"),
    "a schema that is true": lambda c: c.policy.update(schema=True),
    "settings that are a list": lambda c: c.spec.update(settings=[1]),
    "settings without names": lambda c: c.policy.update(settings={3: 4}),
    "no policy": lambda c: c.spec["settings"].pop("policy"),
    "a policy of words": lambda c: c.spec["settings"].update(policy="tiny"),
    "a policy that is a function": lambda c: c.policy.update(component="os.system", settings={"command": "true"}),
    "a policy that opens programs": lambda c: c.policy.update(component="subprocess.Popen", settings={"args": "true"}),
    "a policy that was never there": lambda c: c.policy.update(component="policies/GonePolicy"),
    "a role that was never there": lambda c: c.policy.update(component="surgeons/TinyPolicy"),
    "a policy of another role": lambda c: c.policy.update(component="rewards/TinyPolicy"),
    "a reward for a policy": lambda c: c.policy.update(component="rewards/FormatReward", settings={}),
    "a function of medvol": lambda c: c.policy.update(component="medvol/read_volume", settings={"path": "x"}),
    "a class of medvol that is none of its components": lambda c: c.policy.update(component="medvol/Volume"),
    "a class that is gone from its module": lambda c: c.policy.update(component="medvol.policies.tiny.Gone"),
    "a module that was never there": lambda c: c.policy.update(component="medvol.policies.gone.TinyPolicy"),
    "the command line": lambda c: c.policy.update(component="medvol.__main__.main"),
    "a path without a module": lambda c: c.policy.update(component="TinyPolicy"),
    "an empty path": lambda c: c.policy.update(component=""),
    "a path with dots": lambda c: c.policy.update(component="..medvol...x"),
    "another setting": lambda c: c.policy["settings"].update(colour="red"),
    "a setting of another type": lambda c: c.policy["settings"].update(template="many"),
    "a template of 10 ** 9 slices": lambda c: c.policy["settings"].update(template={"num_slices": 10**9}),
    "settings in a circle": lambda c: c.policy["settings"].update(query_banks=cyclic()),
    "settings that double": lambda c: c.policy["settings"].update(query_banks=doubled(40)),
    "a seed of bytes": lambda c: c.policy["settings"].update(seed=b"x"),
    "a seed that is a tensor": lambda c: c.policy["settings"].update(seed=torch.zeros(3)),
    "a seed that is a list": lambda c: c.policy["settings"].update(seed=[[1]]),
    "a tensor of integers": lambda c: c.state.update({first(c.state): c.state[first(c.state)].int()}),
    "a tensor of complex numbers": lambda c: c.state.update({first(c.state): c.state[first(c.state)] * 1j}),
    "a tensor is missing": lambda c: c.state.pop(first(c.state)),
    "a tensor too many": lambda c: c.state.update({"network.extra": torch.zeros(2)}),
    "a tensor of another shape": lambda c: c.state.update({first(c.state): torch.zeros(2)}),
    "a tensor larger than its numbers": lambda c: c.state.update({first(c.state): torch.zeros(1).expand(10**6, 10**6)}),
    "a tensor that is a number": lambda c: c.state.update({first(c.state): 3}),
    "a name that is a number": lambda c: c.state.update({3: torch.zeros(2)}),
    "a sparse tensor": lambda c: c.state.update({first(c.state): torch.zeros(2, 2).to_sparse()}),
    "no weights": lambda c: c.state.clear(),
    "weights in a list": lambda c: vars(c).update(state=[torch.zeros(2)]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_refused(content, damage, tmp_path, capsys):
    damage(content)
    path = tmp_path / "x.ckpt"
    torch.save({"state_dict": content.state, "medvol_spec": content.spec}, path)
    with pytest.raises((CheckpointError, ConfigError)):
        load_policy(path)
    assert main(["convert", str(path), str(tmp_path / "model")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("medvol: ")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "model").exists()


def test_a_sound_checkpoint_gives_its_policy(content, tmp_path, sound):
    torch.save({"state_dict": content.state, "medvol_spec": content.spec}, tmp_path / "x.ckpt")
    found = load_policy(tmp_path / "x.ckpt").load().state_dict()
    assert all(torch.equal(found[name], sound["state_dict"][f"network.{name}"]) for name in found)


def test_a_module_on_the_path_is_not_imported(content, tmp_path, monkeypatch):
    (tmp_path / "lying_here.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Reward: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for path in ("lying_here.Reward", "lying_here.sub.Reward"):
        with pytest.raises(CheckpointError, match=r"import lying_here.* first if you trust it"):
            rebuild({"schema": 1, "component": path, "settings": {}})
    assert not (tmp_path / "canary").exists()
    assert "lying_here" not in sys.modules


def test_rewards_of_a_checkpoint_are_not_needed_for_its_policy(content, tmp_path):
    content.spec["settings"]["rewards"] = [{"schema": 1, "component": "somebody.elses.Reward", "settings": {}}]
    torch.save({"state_dict": content.state, "medvol_spec": content.spec}, tmp_path / "x.ckpt")
    assert load_policy(tmp_path / "x.ckpt") is not None
    with pytest.raises(CheckpointError, match=r"somebody\.elses"):
        rebuild(content.spec, EvaluationModule)


def test_a_class_that_is_imported_already_is_taken():
    propagator = rebuild({"schema": 1, "component": "medvol.propagators.extrude.ExtrudePropagator", "settings": {}})
    assert isinstance(propagator, ExtrudePropagator)


def test_a_compressed_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1_000_000)}}, tmp_path / "plain.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "plain.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(CheckpointError, match="compressed"):
        load_policy(tmp_path / "x.ckpt")


def test_no_variable_turns_the_gate_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"state_dict": {}, "evil": Evil(tmp_path / "canary")}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="plain values"):
        load_policy(tmp_path / "x.ckpt")
    assert not (tmp_path / "canary").exists()


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")
