"""Which adapter runs a model type, of medvol's own and of others."""

from importlib.metadata import EntryPoint

import pytest

from medvol.core.errors import CheckpointError, ComponentImportError
from medvol.policies.families.gemma3 import Gemma3Network
from medvol.policies.vlm import families
from medvol.policies.vlm.families import GROUP, find_family


def publish(monkeypatch, **adapters: tuple[str, ...]) -> None:
    points = [EntryPoint(name, value, GROUP) for name, values in adapters.items() for value in values]
    monkeypatch.setattr(families, "find_points", lambda group: points)


def test_an_adapter_of_medvol():
    assert find_family("gemma3", "folder") is Gemma3Network


def test_an_adapter_of_a_plug_in(monkeypatch):
    publish(monkeypatch, another=("medvol.policies.families.gemma3:Gemma3Network",))
    assert find_family("another", "folder") is Gemma3Network


@pytest.mark.parametrize("kind", ["llama", None, 3, ["gemma3"], {"a": 1}])
def test_an_unknown_model_type_is_told_with_those_that_run(kind):
    with pytest.raises(
        CheckpointError, match=r"'folder' is a .* model; this policy runs gemma3, internvl.*adds a family"
    ):
        find_family(kind, "folder")


def test_two_adapters_of_one_model_type(monkeypatch):
    publish(monkeypatch, gemma3=("one:Network", "two:Network"))
    with pytest.raises(CheckpointError, match="is claimed by"):
        find_family("gemma3", "folder")


def test_an_adapter_that_cannot_be_imported(monkeypatch):
    publish(monkeypatch, new=("no_such_module:Network",))
    with pytest.raises(ComponentImportError, match=r"medvol\.families: 'new' .*failed to import.*no_such_module"):
        find_family("new", "folder")
