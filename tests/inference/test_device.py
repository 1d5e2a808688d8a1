"""Where a policy and a propagator compute: the device that is asked for, and a GPU by default."""

import pytest
import torch

from medvol.core.devices import find_device
from medvol.core.errors import ConfigError
from medvol.inference.device import bring_to
from medvol.inference.segmenter import Segmenter
from medvol.policies.scripted import ScriptedPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.extrude import ExtrudePropagator
from medvol.propagators.litemedsam import LiteMedSAMPropagator
from medvol.propagators.medsam2 import MedSAM2Propagator
from medvol.propagators.sam2 import SAM2Propagator


class Network(torch.nn.Module):
    """A network that says where it lies, and takes any device whatever the machine has."""

    def __init__(self, device="cpu"):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, device="meta" if device != "cpu" else device))
        self.sent_to = []

    def to(self, device):
        self.sent_to.append(str(device))
        return self


@pytest.fixture
def policy(monkeypatch):
    policy, network = TinyPolicy(), Network()
    monkeypatch.setattr(policy, "load", lambda: network)
    return policy


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps", "xpu:0"])
def test_the_network_is_sent_where_it_is_asked_for(policy, device):
    bring_to(device, policy)
    assert policy.load().sent_to == [device]


@pytest.mark.parametrize(("has_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch, policy, has_gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    bring_to("auto", policy)
    assert policy.load().sent_to == [device]


def test_auto_leaves_a_network_where_somebody_brought_it(monkeypatch, policy):
    network = Network("meta")
    monkeypatch.setattr(policy, "load", lambda: network)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    bring_to("auto", policy)
    assert network.sent_to == []


def test_a_policy_without_a_network_stays():
    bring_to("cuda:99", ScriptedPolicy(["<answer>[]</answer>"]))


def test_a_device_that_is_not_there_is_refused_in_one_sentence():
    with pytest.raises(ConfigError, match=r"TinyPolicy cannot compute on the device 'cuda:99' \(.*\); choose another"):
        bring_to("cuda:99", TinyPolicy())


@pytest.mark.parametrize("device", ["gpu", "", "cuda:", "cuda:-1", "CPU", "meta", 0, None, "cuda:\u0661"])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(ConfigError, match="choose auto, cpu, cuda"):
        Segmenter(ScriptedPolicy(["<answer>[]</answer>"]), ExtrudePropagator(), device=device)


@pytest.mark.parametrize("kind", [MedSAM2Propagator, SAM2Propagator, LiteMedSAMPropagator])
def test_propagators_take_the_same_names(kind):
    assert kind().device == "auto"
    assert kind(device="cuda:1").device == "cuda:1"
    with pytest.raises(ConfigError, match="device is 'gpu'; choose auto"):
        kind(device="gpu")


NAMES = [("auto", True, "cuda"), ("auto", False, "cpu"), ("mps", True, "mps")]


@pytest.mark.parametrize(("device", "has_gpu", "found"), NAMES)
def test_what_a_name_stands_for(monkeypatch, device, has_gpu, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert find_device(device) == found


def test_a_segmenter_asks_on_its_device(volume):
    with pytest.raises(ConfigError, match="'cuda:99'"):
        Segmenter(TinyPolicy(), ExtrudePropagator(), device="cuda:99").segment(volume, "the block")
