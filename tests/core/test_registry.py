"""The registry, on distributions written into a folder of the path."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from distributions import forget_modules

import medvol.rewards
from medvol.core import roles
from medvol.core.errors import (
    ComponentImportError,
    DuplicateComponentError,
    InvalidComponentError,
    MissingExtraError,
    UnknownComponentError,
)
from medvol.core.registry import POLICIES, REGISTRIES, REWARDS, Registry, untyped_parameters
from medvol.core.roles import RewardTerm
from medvol.core.suggestions import suggest
from medvol.guarding.probing import probe

REWARD = """
from medvol.core.roles import RewardTerm
class {name}(RewardTerm):
    def __init__(self, {parameters}) -> None: ...
    def __call__(self, rollout, case): return 0.5
"""


class LocalReward(RewardTerm):
    """Defined here, as in a notebook."""

    def __call__(self, rollout: object, case: object) -> float:
        return 0.5


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write a distribution that publishes rewards, given as ``Name=module:Class``."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, *points: str, source: str = "", version: str = "1.0", kind: str = "rewards") -> None:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[medvol.{kind}]\n" + "\n".join(points) + "\n")
        (tmp_path / f"{name}.py").write_text(source)

    yield write
    forget_modules(tmp_path)


def reward(name: str, parameters: str = "weight: float = 1.0") -> str:
    return REWARD.format(name=name, parameters=parameters)


def test_built_ins_are_entry_points_of_this_project() -> None:
    assert {"FormatReward", "AxialReward", "SpatialReward", "ConsistencyReward"} <= set(REWARDS.names())
    assert all(row.distribution == "medvol-r1" for row in REWARDS.describe() if row.name == "FormatReward")


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_every_built_in_can_be_got(registry: Registry) -> None:
    for row in registry.describe():
        if row.distribution == "medvol-r1":
            component = registry.get(row.name)
            assert component.__name__ == row.name
            assert issubclass(component, getattr(roles, registry.role))
            assert f"{component.__module__}:{component.__qualname__}" == row.target


def test_names_import_nothing(install: Callable[..., None]) -> None:
    install("acme_a", "AcmeReward = acme_a:AcmeReward", source="raise RuntimeError('imported')")
    assert "AcmeReward" in REWARDS.names()
    row = next(row for row in REWARDS.describe() if row.name == "AcmeReward")
    assert (row.distribution, row.version, row.target, row.problem) == ("acme_a", "1.0", "acme_a:AcmeReward", "")
    assert "acme_a" not in sys.modules


def test_get_imports_one(install: Callable[..., None]) -> None:
    install("acme_b", "AcmeReward = acme_b:AcmeReward", source=reward("AcmeReward"))
    assert REWARDS.get("AcmeReward").__module__ == "acme_b"
    assert medvol.rewards.AcmeReward is REWARDS.get("AcmeReward")


def test_unknown_name() -> None:
    with pytest.raises(UnknownComponentError) as refusal:
        REWARDS.get("FormatRewrad")
    text = str(refusal.value)
    assert "medvol.rewards: no 'FormatRewrad'" in text
    assert "choices: AxialReward, " in text
    assert text.endswith("did you mean 'FormatReward'?")
    assert isinstance(refusal.value, LookupError)


def test_a_name_of_another_role() -> None:
    with pytest.raises(UnknownComponentError, match=r"\(it is one of medvol.rewards\)"):
        POLICIES.get("FormatReward")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("class Broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("", "AttributeError"),
    ],
)
def test_a_broken_plug_in_hurts_only_whoever_asks(source: str, reason: str, install: Callable[..., None]) -> None:
    install("brokenlib", "BrokenReward = brokenlib:BrokenReward", source=source, version="2.7")
    with pytest.raises(ComponentImportError) as refusal:
        REWARDS.get("BrokenReward")
    assert "'BrokenReward' from brokenlib 2.7 (brokenlib:BrokenReward)" in str(refusal.value)
    assert reason in str(refusal.value)
    assert REWARDS.get("FormatReward").__name__ == "FormatReward"
    with pytest.raises(UnknownComponentError, match="BrokenReward"):
        REWARDS.get("Nothing")
    problems = {row.name: row.problem for row in probe(REWARDS.describe())}
    assert reason in problems["BrokenReward"]
    assert problems["FormatReward"] == ""


def test_a_missing_extra_says_what_to_install(install: Callable[..., None]) -> None:
    source = "from medvol.core.errors import MissingExtraError\nraise MissingExtraError('sam2', 'sam2')"
    install("extralib", "ExtraReward = extralib:ExtraReward", source=source)
    with pytest.raises(MissingExtraError, match=r'pip install "medvol-r1\[sam2\]"'):
        REWARDS.get("ExtraReward")
    problems = {row.name: row.problem for row in probe(REWARDS.describe())}
    assert "medvol-r1[sam2]" in problems["ExtraReward"]


def test_two_distributions_claim_one_name(install: Callable[..., None]) -> None:
    install("first_lib", "SharedReward = first_lib:SharedReward", source=reward("SharedReward"))
    install("second_lib", "SharedReward = second_lib:SharedReward", source=reward("SharedReward"), version="9.1")
    with pytest.raises(DuplicateComponentError) as refusal:
        REWARDS.get("SharedReward")
    assert "first_lib 1.0" in str(refusal.value)
    assert "second_lib 9.1" in str(refusal.value)
    assert REWARDS.names().count("SharedReward") == 1
    problems = [row.problem for row in REWARDS.describe() if row.name == "SharedReward"]
    assert problems == ["claimed by several distributions"] * 2


def test_a_plug_in_cannot_take_a_built_in_name(install: Callable[..., None]) -> None:
    install("thief", "FormatReward = thief:FormatReward", source=reward("FormatReward"))
    with pytest.raises(DuplicateComponentError, match=r"medvol-r1 .* and thief 1\.0|thief 1\.0 and medvol-r1"):
        REWARDS.get("FormatReward")


@pytest.mark.parametrize(
    ("point", "source", "reason"),
    [
        ("NoReward", "class NoReward: ...", "must be a class that inherits RewardTerm"),
        ("make_reward", "def make_reward(): ...", "must be a class that inherits RewardTerm"),
        (
            "HalfReward",
            "from medvol import RewardTerm\nclass HalfReward(RewardTerm):\n    def __init__(self) -> None: ...",
            "lacks what its role asks for: __call__; write it",
        ),
        ("LooseReward", reward("LooseReward", "weight=1.0"), r"\(weight\); annotate"),
        ("OpenReward", reward("OpenReward", "**options: int"), r"\(options\); annotate"),
        ("ListReward", reward("ListReward", "*parts: int"), r"\(parts\); annotate"),
        ("Other", reward("OtherReward") + "Other = OtherReward", "is the class OtherReward; register it under its own"),
    ],
)
def test_a_component_that_breaks_the_contract(
    point: str, source: str, reason: str, install: Callable[..., None]
) -> None:
    install("loose", f"{point} = loose:{point}", source=source)
    with pytest.raises(InvalidComponentError, match=reason):
        REWARDS.get(point)


def test_register_in_a_notebook() -> None:
    with REWARDS.registered("LocalReward", LocalReward):
        assert REWARDS.get("LocalReward") is LocalReward
        assert "LocalReward" in REWARDS.names()
        row = next(row for row in REWARDS.describe() if row.name == "LocalReward")
        assert row.distribution == "(registered here)"
        with pytest.raises(DuplicateComponentError, match="already registered"):
            REWARDS.register("LocalReward", LocalReward)
    assert "LocalReward" not in REWARDS.names()


def test_a_failing_block_still_unregisters() -> None:
    with pytest.raises(KeyError), REWARDS.registered("LocalReward", LocalReward):
        raise KeyError
    assert "LocalReward" not in REWARDS.names()


def test_register_checks_what_it_is_given() -> None:
    with pytest.raises(DuplicateComponentError):
        REWARDS.register("FormatReward", LocalReward)
    with pytest.raises(InvalidComponentError, match="own name"):
        REWARDS.register("MyReward", LocalReward)
    with pytest.raises(InvalidComponentError, match="inherits Policy"):
        POLICIES.register("LocalReward", LocalReward)  # type: ignore[arg-type]


def test_attributes_of_the_rooms() -> None:
    assert medvol.rewards.FormatReward is REWARDS.get("FormatReward")
    with pytest.raises(AttributeError, match="did you mean 'FormatReward'"):
        medvol.rewards.FormatRewards  # noqa: B018
    with pytest.raises(AttributeError):
        medvol.rewards.lower_case  # noqa: B018
    assert not hasattr(medvol.rewards, "__wrapped__")


def test_untyped_parameters_of_a_class_without_constructor() -> None:
    assert untyped_parameters(LocalReward) == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [("fitt", "; did you mean 'fit'?"), ("FIT", "; did you mean 'fit'?"), ("xyz", ""), ("", "")],
)
def test_suggest(word: str, expected: str) -> None:
    assert suggest(word, ["fit", "test", "report"]) == expected


@pytest.mark.parametrize("name", [3, None, 1.5, ("CentreBoxPolicy",)])
def test_what_is_no_name_is_an_unknown_component(name) -> None:
    with pytest.raises(UnknownComponentError, match="give one as text"):
        POLICIES[name]
