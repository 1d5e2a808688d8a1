"""Reprs: one line, bounded, without arrays; nothing is read for them and nothing hostile gets through."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import medvol
from medvol.core.prompts import Prompt
from medvol.core.registry import REGISTRIES, Registry
from medvol.core.reprs import LONGEST, describe_value
from medvol.core.roles import CaseDataset, Policy, Propagator, RewardTerm
from medvol.core.types import Case, Completion, Evidence, Query, Rollout, SliceStack, Source, Volume
from medvol.datasets import NiftiDataset, PhantomDataset
from medvol.datasets.settings import PatientSettings, QuestionSettings
from medvol.inference.segmentation import Segmentation
from medvol.policies import ScriptedPolicy, TinyPolicy
from medvol.propagators import RegionPropagator
from medvol.rewards import ConsistencyReward, FormatReward
from medvol.testing import make_case, make_rollout


def of_everything(text: str = "a name") -> list[Any]:
    """One of each type, with a text wherever a text goes."""
    case = make_case()
    source = Source(None, np.eye(4), (1, 2, 3), np.ones((3, 2)), object(), text)
    volume = replace(case.volume, volume_id=text, source=source)
    case = Case(text, volume, Query(text, text), case.target, text)
    evidence = Evidence(4, np.ones((3, 4)), text)
    stack = SliceStack(tuple(range(64)), np.zeros((64, 3, 8, 8), np.float32), (64, 8, 8))
    completion = Completion(text, np.arange(9), np.zeros(9, np.float32))
    return [
        source,
        volume,
        case.query,
        case,
        evidence,
        stack,
        Prompt(stack, text, medvol.PromptTemplate()),
        completion,
        Rollout(text, completion, evidence, text, case.target, text),
        Segmentation(volume, text, case.target, evidence, completion, {text: text}),
        ScriptedPolicy([text] * 9),
        NiftiDataset(
            root=text, patients=PatientSettings(exclude=[text]), questions=QuestionSettings(targets=[text] * 9)
        ),
    ]


@pytest.mark.parametrize("text", ["a name", "", "a\nb\x1b[31m\r\u202e", "\ud800", "x" * 10**6, "é漢"])
def test_one_bounded_line(text: str) -> None:
    for thing in of_everything(text):
        shown = repr(thing)
        assert shown.startswith(f"{type(thing).__name__}(")
        assert shown.endswith(")")
        assert len(shown) <= LONGEST
        assert shown.isprintable(), shown
        assert "array" not in shown


@given(st.text())
def test_any_text(text: str) -> None:
    for thing in (Query(text, text), Completion(text), FormatReward(), Evidence(None, np.empty((0, 4)), text)):
        assert repr(thing).isprintable() or any(letter in repr(thing) for letter in text)
        assert len(repr(thing)) <= LONGEST
        assert "\n" not in repr(thing)


def test_what_is_said() -> None:
    assert repr(ConsistencyReward()) == "ConsistencyReward()"
    assert repr(ConsistencyReward(delta=3)) == "ConsistencyReward(delta=3)"
    assert repr(TinyPolicy(seed=3)) == "TinyPolicy(seed=3)"
    assert repr(RegionPropagator()) == "RegionPropagator()"
    assert repr(Query("the spleen", "spleen")) == "Query(text='the spleen', target='spleen')"
    assert repr(Evidence(4, np.ones((2, 4)), "seen")) == "Evidence(key_slice=4, boxes=<float64 2x4>, rationale='seen')"
    assert "<float32 9x48x56>" in repr(make_case().volume)
    shown = repr(make_case())
    assert shown.startswith("Case(case_id='case-12px', volume=Volume(voxels=<float32 9x48x56>")
    assert "query=Query(text='the bright mass'" in shown
    assert "evidence=Evidence(key_slice=4" in repr(make_rollout(make_case()))


def test_a_data_set_counts_what_it_knows_and_reads_nothing() -> None:
    dataset = PhantomDataset(num_volumes=3, seed=1)
    assert repr(dataset) == "PhantomDataset(num_volumes=3, seed=1)"
    number = len(dataset)
    assert repr(dataset) == f"PhantomDataset(num_volumes=3, seed=1, {number} cases)"
    assert repr(NiftiDataset(root="/nowhere")) == "NiftiDataset(root='/nowhere')"


def test_a_stored_volume_stays_on_disk(tmp_path) -> None:
    class OnDisk(Volume):
        @property
        def voxels(self):
            raise AssertionError("read")

    volume = OnDisk.__new__(OnDisk)
    vars(volume).update(affine=np.eye(4), modality="MR", volume_id="v", source=None)
    assert repr(volume) == "OnDisk(affine=<float64 4x4>, modality='MR', volume_id='v')"


class Networked(Policy):
    """Holds a network and what cannot be shown."""

    def __init__(self, network: Any, odd: Any = None, sizes: tuple[int, ...] = ()) -> None:
        self.network, self._odd, self.sizes = network, odd, sizes

    def generate(self, prompts, n=1, sampling=None):
        return []


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None


def test_networks_and_odd_values() -> None:
    network = torch.nn.Sequential(*[torch.nn.Linear(9, 9) for _ in range(99)])
    assert repr(Networked(network, Unshowable(), [1, 2])) == (
        "Networked(network=<Sequential>, odd=<Unshowable>, sizes=[1, 2])"
    )
    assert repr(Networked(np.zeros(3), {"a": 1})) == "Networked(network=<float64 3>, odd=<1 keys>)"
    assert describe_value(torch.zeros(3)) == "<Tensor>"
    assert repr(Volume(None, None)).startswith("Volume(voxels=None")


def test_roles_that_keep_nothing() -> None:
    class Careless(RewardTerm):
        def __init__(self, weight: float = 1.0) -> None: ...

        def __call__(self, rollout, case):
            return 1.0

    class Propagates(Propagator):
        def propagate(self, volume, evidence, z_range=None): ...

    class Gives(CaseDataset):
        def __len__(self):
            raise AssertionError("counted")

        def __getitem__(self, index): ...

        def volume_key(self, index): ...

        def patient_id(self, index): ...

    assert [repr(Careless()), repr(Propagates()), repr(Gives())] == ["Careless()", "Propagates()", "Gives()"]


def test_a_module_is_one_line() -> None:
    module = medvol.EvaluationModule(
        ScriptedPolicy(["a"]), RegionPropagator(), medvol.EvaluationSettings(max_new_tokens=9)
    )
    assert repr(module) == (
        "EvaluationModule(policy=ScriptedPolicy(answers=['a']), propagator=RegionPropagator(), "
        "evaluation=EvaluationSettings(max_new_tokens=9))"
    )


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_registries_are_mappings_of_names(registry: Registry) -> None:
    names = registry.names()
    assert list(registry) == names
    assert len(registry) == len(names)
    assert names[0] in registry
    assert "Nothing" not in registry
    assert 3 not in registry
    assert registry[names[0]] is registry.get(names[0])
    shown = repr(registry)
    assert shown.startswith(f"<Registry {registry.kind}: {names[0]}")
    assert shown.endswith(">")
    assert len(shown) <= LONGEST
    with pytest.raises(KeyError, match="no 'Nothing'"):
        registry["Nothing"]
