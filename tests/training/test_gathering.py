"""What a run notes of its training: on top of what was known, once a scan, and nothing that was not trained on."""

from types import SimpleNamespace

import numpy as np
import pytest

from medvol.core.training_data import Cases, Stage, TrainingData, read_training_data
from medvol.core.types import Case, Query
from medvol.datasets.deformed import DeformedDataset
from medvol.datasets.joined import JoinedDataset
from medvol.datasets.phantom import PhantomDataset
from medvol.imaging.geometry import make_volume
from medvol.policies.tiny import TinyPolicy
from medvol.training import gathering
from medvol.training.export import export_model
from medvol.training.gathering import Gatherer, describe_cases, read_trained_on
from tests.training.test_grpo import TEMPLATE, make_data, make_module, make_trainer


def make_case(query: str, side: int = 10, name: str = "") -> Case:
    return Case(query, make_volume(np.zeros((side,) * 3, np.float32), (1.0, 1.0, 1.0), "MR", name), Query(query))


def make_trainer_of(steps: int) -> SimpleNamespace:
    return SimpleNamespace(world_size=1, global_step=steps, datamodule=None, lightning_module=None)


def start(known: TrainingData | None = None, reword: bool = False) -> Gatherer:
    gatherer = Gatherer("SFTModule", reword)
    gatherer.start(SimpleNamespace(training_data=known))
    return gatherer


def test_a_run_adds_to_what_was_known_and_changes_nothing_before():
    known = TrainingData({"liver"}, {"CT": {"width_mm": (1.0, 2.0)}}, (Stage("SFTModule", 9),))
    gatherer = start(known)
    gatherer.meet([make_case("the spleen"), make_case("Left kidney")])
    found = gatherer.finish(make_trainer_of(4), {"dsc": 0.123456})
    assert found.words == {"liver", "the", "spleen", "left", "kidney"}
    assert set(found.ranges) == {"CT", "MR"}
    assert [(stage.module, stage.steps) for stage in found.stages] == [("SFTModule", 9), ("SFTModule", 4)]
    assert found.stages[-1].scores == {"dsc": 0.1235}
    assert found.stages[-1].train is None
    assert known.words == {"liver"}
    assert gatherer.finish(make_trainer_of(4), {}).stages[:1] == known.stages, "telling twice adds nothing"


def test_a_scan_is_measured_once_under_its_name(monkeypatch):
    measured = []
    monkeypatch.setattr(TrainingData, "meet_scan", lambda self, volume: measured.append(volume.volume_id))
    gatherer = start()
    for name in ("a", "b", "a", "", "", "b"):
        gatherer.meet([make_case("x", name=name)])
    assert measured == ["a", "b", "", ""]
    monkeypatch.setattr(gathering, "_MOST_NAMES", 2)
    gatherer.meet([make_case("x", name="c")])
    gatherer.meet([make_case("x", name="a")])
    assert measured[-2:] == ["c", "a"], "names are not kept without end"


def test_a_checkpoint_goes_on_where_it_stopped():
    """Two steps, then two more after a checkpoint, is as four steps."""
    batches = [[make_case(f"word{i}", side=5 + i)] for i in range(4)]
    whole, first, second = start(), start(), Gatherer("SFTModule", False)
    for batch in batches:
        whole.meet(batch)
    for batch in batches[:2]:
        first.meet(batch)
    checkpoint = {gathering.TRAINING_DATA: first.finish(make_trainer_of(2), {}).to_dict()}
    told = second.restore(checkpoint)
    assert told is not None
    assert told.stages[-1].steps == 2
    second.start(SimpleNamespace(training_data=told))
    for batch in batches[2:]:
        second.meet(batch)
    assert second.finish(make_trainer_of(4), {}).to_dict() == whole.finish(make_trainer_of(4), {}).to_dict()


def test_a_checkpoint_without_it_tells_nothing():
    assert read_trained_on({}) is None
    assert Gatherer("SFTModule", False).restore({}) is None


@pytest.mark.parametrize("reword", [True, False])
def test_carrier_phrases_count_only_where_they_are_used(reword):
    assert ("outline" in start(reword=reword).finish(make_trainer_of(0), {}).words) == reword


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")
def test_grpo_keeps_what_its_start_knew(tmp_path):
    known = TrainingData({"gall"}, {"MR": {"width_mm": (30.0, 40.0)}}, (Stage("SFTModule", 7, train=Cases("Scans")),))
    export_model(TinyPolicy(template=TEMPLATE), tmp_path / "start", known)
    module = make_module(policy=TinyPolicy(model=str(tmp_path / "start")), reword=0.0)
    data = make_data(volumes=2)
    make_trainer(tmp_path / "run", 1).fit(module, data)
    found = read_training_data(tmp_path / "run" / "model")
    asked = {
        word for index in range(len(data.splits["train"])) for word in data.splits["train"][index].query.text.split()
    }
    assert "gall" in found.words
    assert found.words - {"gall"} <= {word.casefold().strip(",.?") for word in asked}
    assert len(found.words) > 3
    assert set(found.ranges) == {"MR", "CT"}
    assert [(stage.module, stage.steps) for stage in found.stages] == [("SFTModule", 7), ("GRPOModule", 1)]
    assert found.stages[-1].train.data_set == "PhantomDataset"
    assert not found.drawn, "its start knew real scans"
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| GRPOModule | 1 |" in card
    assert "synthetic scans only" not in card
    assert module.policy.training_data is not None
    assert module.policy.training_data.to_dict() == found.to_dict()


def test_patients_are_counted_once_and_phantoms_are_none():
    phantoms = PhantomDataset(num_volumes=3, shape=(9, 32, 32))
    made = DeformedDataset(phantoms, 7, shape=(8, 32, 32), targets=["liver"])
    found = describe_cases(JoinedDataset([phantoms, made]))
    assert (found.volumes, found.patients, found.drawn) == (10, 3, False)
    assert describe_cases(phantoms).patients == 0
