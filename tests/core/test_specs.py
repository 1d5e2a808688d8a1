"""Specs: components and modules named as they are published, rebuilt wherever their class lies now."""

import enum
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from distributions import forget_modules, write_distribution

import medvol
from medvol.core.errors import CheckpointError, InvalidComponentError, MedvolError
from medvol.core.prompts import PromptTemplate
from medvol.core.registry import REWARDS
from medvol.core.roles import RewardTerm
from medvol.core.specs import SCHEMA, describe_component, rebuild
from medvol.evaluation.module import EvaluationModule
from medvol.policies.scripted import ScriptedPolicy
from medvol.policies.tiny import TinyPolicy
from medvol.propagators.extrude import ExtrudePropagator

REWARD = """
from medvol import RewardTerm
class AcmeReward(RewardTerm):
    def __init__(self, weight: float = 1.0) -> None: self.weight = weight
    def __call__(self, rollout, case): return self.weight
"""


@dataclass(frozen=True)
class Loss:
    """How a loss is measured."""

    beta: float = 0.1
    clip: tuple[float, float] = (0.2, 0.3)
    terms: Mapping[str, RewardTerm] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A part of a run."""

    loss: Loss
    template: PromptTemplate | None = None
    steps: int = 0


class Nested(RewardTerm):
    """Keeps settings in settings."""

    def __init__(
        self,
        loss: Loss,
        stages: Sequence[Stage] = (),
        by_name: dict[str, Loss | None] | None = None,
        inner: RewardTerm | None = None,
    ) -> None:
        self.loss, self.stages, self.by_name, self.inner = loss, stages, by_name, inner

    def __call__(self, rollout, case):
        return 0.0


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    forget_modules(tmp_path)


def test_a_component_goes_by_its_registered_name() -> None:
    assert describe_component(TinyPolicy(seed=3)) == {
        "schema": 1,
        "component": "policies/TinyPolicy",
        "distribution": f"medvol-r1 {medvol.__version__}",
        "settings": {
            "model": None,
            "template": None,
            "seed": 3,
            "query_banks": [],
            "freeze_vision": False,
            "words": None,
        },
    }


def test_a_module_goes_by_its_public_name() -> None:
    spec = describe_component(EvaluationModule(ScriptedPolicy(["x"]), ExtrudePropagator()))
    assert spec["component"] == "medvol/EvaluationModule"
    assert spec["settings"]["propagator"]["component"] == "propagators/ExtrudePropagator"
    assert "medvol.core" not in str(spec), "no private path"
    assert type(rebuild(spec, EvaluationModule)) is EvaluationModule
    with pytest.raises(CheckpointError, match="'medvol/EvaluationModule', which is not a component"):
        rebuild(spec)


def test_settings_in_settings_come_back_as_they_were() -> None:
    loss = Loss(0.5, (0.1, 0.4), {"own": REWARDS.get("FormatReward")(strict=True)})
    template = PromptTemplate(num_slices=3)
    given = Nested(Loss(), (Stage(loss, template, 7), Stage(Loss())), {"a": Loss(2.0), "b": None}, Nested(loss))
    spec = describe_component(given)
    assert spec["settings"]["loss"] == {"beta": 0.1, "clip": [0.2, 0.3], "terms": {}}
    again = rebuild(spec)
    assert describe_component(again) == spec
    first, second = again.stages
    assert (again.loss, second.loss) == (Loss(), Loss())
    assert (first.template, second.template, first.steps) == (template, None, 7)
    assert (first.loss.beta, first.loss.clip) == (0.5, (0.1, 0.4))
    assert first.loss.terms["own"].strict is True
    assert again.by_name == {"a": Loss(2.0), "b": None}
    assert type(again.inner) is Nested


def test_a_class_that_is_not_published_goes_by_its_path() -> None:
    spec = describe_component(Nested(Loss()))
    assert spec["component"] == f"{__name__}.Nested"
    assert "distribution" not in spec


def test_a_class_registered_here_goes_by_its_name() -> None:
    with REWARDS.registered("Nested", Nested):
        spec = describe_component(Nested(Loss()))
        assert spec["component"] == "rewards/Nested"
        assert type(rebuild(spec)) is Nested
    with pytest.raises(CheckpointError, match="'rewards/Nested' was saved and is not installed here"):
        rebuild(spec)


def test_what_is_saved_outlives_a_move_of_the_file(site: Path) -> None:
    write_distribution(
        site, "acme", "AcmeReward = acme_one.inside:AcmeReward", {"acme_one/inside.py": REWARD}, "rewards"
    )
    spec = describe_component(REWARDS.get("AcmeReward")(weight=0.25))
    assert spec["component"] == "rewards/AcmeReward"
    assert spec["distribution"] == "acme 1.0"
    assert "acme_one" not in str(spec)
    write_distribution(site, "acme", "AcmeReward = acme_two:AcmeReward", {"acme_two.py": REWARD}, "rewards")
    again = rebuild(spec)
    assert (type(again).__module__, again.weight) == ("acme_two", 0.25)


def test_a_class_handed_on_by_another_module_is_found(site: Path) -> None:
    sources = {"acme_hidden.py": REWARD, "acme_front.py": "from acme_hidden import AcmeReward\n"}
    write_distribution(site, "acme", "AcmeReward = acme_front:AcmeReward", sources, "rewards")
    reward = REWARDS.get("AcmeReward")()
    assert type(reward).__module__ == "acme_hidden"
    assert describe_component(reward)["component"] == "rewards/AcmeReward"


def test_what_is_not_installed_names_who_published_it() -> None:
    spec = {"schema": SCHEMA, "component": "rewards/GoneReward", "distribution": "gone-rewards 2.1", "settings": {}}
    with pytest.raises(CheckpointError, match=r"'rewards/GoneReward'.* install 'gone-rewards 2\.1'"):
        rebuild(spec)


@pytest.mark.parametrize("schema", [0, 2, "1", None, True, [1]])
def test_an_unknown_schema_is_said_in_one_sentence(schema: object) -> None:
    spec = {**describe_component(ExtrudePropagator()), "schema": schema}
    with pytest.raises(CheckpointError, match="and this medvol reads schema 1; use the version") as refusal:
        rebuild(spec)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("settings", [{"weight": "x", "colour": 1}, {"half_depth_slices": {"a": 1}}])
def test_settings_that_do_not_fit_are_refused(settings: dict) -> None:
    with pytest.raises(MedvolError):
        rebuild({**describe_component(ExtrudePropagator()), "settings": settings})


def test_a_setting_that_is_not_plain_is_refused() -> None:
    with pytest.raises(InvalidComponentError, match="Nested keeps a object under 'loss'"):
        describe_component(Nested(object()))


class Mode(enum.Enum):
    """How it works."""

    FAST = "fast"


class Many(RewardTerm):
    """Settings of kinds that plain values do not have."""

    def __init__(
        self,
        rate: float = 1.0,
        folder: Path = Path("/tmp"),
        names: frozenset[str] = frozenset(),
        weights: dict[int, float] | None = None,
        mode: Mode = Mode.FAST,
        far_mm: float | None = None,
    ) -> None:
        self.rate, self.folder, self.names, self.weights = rate, folder, names, weights
        self.mode, self.far_mm = mode, far_mm
        self._folder = None  # what is loaded later

    def __call__(self, rollout, case):
        return 0.0


def test_settings_come_back_as_the_kinds_they_were(tmp_path: Path) -> None:
    given = Many(np.float64(0.5), tmp_path, frozenset({"a"}), {1: 2.0}, Mode.FAST, -math.inf)
    spec = describe_component(given)
    assert type(spec["settings"]["rate"]) is float
    assert spec["settings"]["far_mm"] == "-.inf"
    json.dumps(spec, allow_nan=False)
    torch.save({"spec": spec}, tmp_path / "x.pt")
    assert torch.load(tmp_path / "x.pt", weights_only=True)["spec"] == spec
    again = rebuild(spec)
    for name in ("rate", "folder", "names", "weights", "mode", "far_mm"):
        assert getattr(again, name) == getattr(given, name), name
        assert type(getattr(again, name)) in (type(getattr(given, name)), float), name
    assert "folder" in repr(given)


def test_what_is_loaded_later_is_not_taken_for_a_setting() -> None:
    """``self._model = None`` hid ``self.model``, and one network answered in the name of another."""
    assert describe_component(Many(folder=Path("/a")))["settings"]["folder"] == "/a"
    assert Many(folder=Path("/a")).identity() != Many(folder=Path("/b")).identity()


def test_of_two_plug_ins_of_one_name_the_one_that_was_saved_is_built(site: Path) -> None:
    for owner in ("acme", "bolt"):
        source = {f"{owner}_own/inside.py": REWARD}
        write_distribution(site, owner, f"AcmeReward = {owner}_own.inside:AcmeReward", source, "rewards")
    from bolt_own.inside import AcmeReward

    spec = describe_component(AcmeReward(0.25))
    assert spec["distribution"].startswith("bolt")
    assert type(rebuild(spec)) is AcmeReward
