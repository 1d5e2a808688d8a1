"""Where AdamW keeps its moments: the same steps as torch's AdamW, and nothing of them on the device."""

import pytest
import torch
from device_runs import TINY, phantoms, write
from torch._subclasses.fake_tensor import FakeTensorMode

from medvol.cli import main
from medvol.core.errors import ConfigError, MissingExtraError
from medvol.planning.live_bytes import LiveBytes
from medvol.training.moments import HostAdamW, make_adamw, require_same_moments
from medvol.training.settings import GRPOOptimizerSettings, OptimizerSettings
from medvol.training.strategies import FSDP2Strategy, require_proven

BETAS = (0.9, 0.95)


def make_parameters(seed=0, size=5000):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(size, generator=generator)), torch.nn.Parameter(torch.ones(3, 2))]


def take_steps(optimizer, parameters, first, last):
    """Steps with gradients that depend on the number of the step; in each second one a parameter has none."""
    for number in range(first, last):
        generator = torch.Generator().manual_seed(100 + number)
        for place, parameter in enumerate(parameters):
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = gradient if place == 0 or number % 2 else None
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (number + 1)
        optimizer.step()


def make(kind, parameters):
    return make_adamw(parameters, OptimizerSettings(weight_decay=0.1, moments=kind), BETAS)


def test_moments_on_the_host_take_the_steps_of_adamw_bit_by_bit():
    own, theirs = make_parameters(), make_parameters()
    host, plain = make("host", own), make("device", theirs)
    assert type(plain) is torch.optim.AdamW
    take_steps(host, own, 0, 5)
    take_steps(plain, theirs, 0, 5)
    for one, other in zip(own, theirs, strict=True):
        assert torch.equal(one, other)
    ours, other = host.state_dict(), plain.state_dict()
    assert ours["state"].keys() == other["state"].keys()
    for place, row in other["state"].items():
        assert {name: torch.equal(ours["state"][place][name], value) for name, value in row.items()} == dict.fromkeys(
            ("step", "exp_avg", "exp_avg_sq"), True
        )


@pytest.mark.parametrize(("before", "after"), [("host", "host"), ("device", "host"), ("host", "device")])
def test_a_run_goes_on_from_moments_of_the_other_place(before, after, tmp_path):
    whole = make_parameters()
    take_steps(make(before, whole), whole, 0, 6)
    half = make_parameters()
    first = make(before, half)
    take_steps(first, half, 0, 3)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = make(after, half)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    take_steps(second, half, 3, 6)
    for one, other in zip(half, whole, strict=True):
        assert torch.equal(one, other)


def test_no_moment_stays_on_a_gpu():
    """A step on a GPU that is made up: it holds the moments of one parameter at a time, and none behind it."""
    with FakeTensorMode(), LiveBytes(lambda tensor: tensor.device.type == "cuda") as live:
        parameters = [torch.nn.Parameter(torch.empty(size, device="cuda")) for size in (1000, 600, 600)]
        for parameter in parameters:
            parameter.grad = torch.empty(parameter.shape, device="cuda")
        kept = live.total
        assert kept == 2 * 4 * 2200
        optimizer = HostAdamW(parameters, lr=0.1)
        optimizer.step()
        assert live.total == kept
        assert 2 * 4 * 1000 <= live.peak.total - kept <= 4 * 4 * 1000
        assert not optimizer.state
        assert {tensor.device.type for row in optimizer.moments.values() for tensor in row.values()} == {"cpu"}
        live.begin()
        optimizer.load_state_dict(optimizer.state_dict())
        assert live.peak.total == kept


def test_moments_of_8_bits_are_near_and_go_on(tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs the extra qlora")
    own, theirs, half = make_parameters(), make_parameters(), make_parameters()
    rounded = make("8bit", own)
    take_steps(rounded, own, 0, 6)
    take_steps(make("device", theirs), theirs, 0, 6)
    assert rounded.state[own[0]]["state1"].dtype == torch.uint8
    assert rounded.state[own[1]]["state1"].dtype == torch.float32  # too small to be worth it
    steps = 0.01 * sum(1 / (number + 1) for number in range(6))
    assert 0 < (own[0] - theirs[0]).abs().max() < 0.3 * steps
    torch.testing.assert_close(own[1], theirs[1], atol=1e-6, rtol=0)
    first = make("8bit", half)
    take_steps(first, half, 0, 3)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = make("8bit", half)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    take_steps(second, half, 3, 6)
    for one, other in zip(half, own, strict=True):
        assert torch.equal(one, other)


def test_a_missing_library_is_named(monkeypatch):
    for name in ("bitsandbytes", "bitsandbytes.optim"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingExtraError, match=r'pip install "medvol-r1\[qlora\]"'):
        make("8bit", make_parameters())


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer.moments is 'disk'; it is one of device, host, 8bit"):
        GRPOOptimizerSettings(moments="disk")
    with pytest.raises(ConfigError, match=r"fsdp2 and model.optimizer.moments is host"):
        require_proven(FSDP2Strategy(), "host")
    require_proven(FSDP2Strategy(), "device")
    plain = {"optimizer_states": [{"state": {0: {"exp_avg": 1}}}]}
    rounded = {"optimizer_states": [{"state": {0: {"__bnb_optimizer_quant_state__": {}}}}]}
    with pytest.raises(ConfigError, match="holds moments that are not in 8 bits"):
        require_same_moments(OptimizerSettings(moments="8bit"), plain)
    with pytest.raises(ConfigError, match="holds moments that are in 8 bits"):
        require_same_moments(OptimizerSettings(moments="host"), rounded)
    require_same_moments(OptimizerSettings(moments="host"), plain)
    require_same_moments(OptimizerSettings(moments="8bit"), rounded)
    require_same_moments(OptimizerSettings(moments="8bit"), {"optimizer_states": [{"state": {}}]})


@pytest.mark.slow
def test_a_fit_with_moments_on_the_host_learns_the_same(tmp_path):
    """Through the trainer, with its checkpoints: the same weights bit by bit."""
    module = {
        "class_path": "SFTModule",
        "init_args": {"policy": TINY, "propagator": "ExtrudePropagator", "evaluation": {"max_new_tokens": 8}},
    }
    data = {"train": phantoms("train", 2), "batch_size": 1, "queries_per_volume": 1}

    def fit(name, moments, steps, *options):
        module["init_args"]["optimizer"] = {"learning_rate": 1e-3, "warmup_steps": 0, "moments": moments}
        path = write(tmp_path / f"{name}.yaml", module, data, max_steps=steps, logger=False)
        folder = tmp_path / name
        assert main(["fit", "--config", str(path), f"--trainer.default_root_dir={folder}", *options]) == 0
        return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)

    plain, host = fit("plain", "device", 4), fit("host", "host", 4)
    for name, value in plain["state_dict"].items():
        assert torch.equal(host["state_dict"][name], value)
    ours, theirs = (found["optimizer_states"][0]["state"] for found in (host, plain))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[place]["exp_avg_sq"], row["exp_avg_sq"]) for place, row in theirs.items())
