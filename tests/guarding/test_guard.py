"""Components that misbehave: each failure is named, stays in its case, and changes nothing that others read."""

import gc
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from medvol.core.errors import (
    CheckpointError,
    DatasetError,
    InvalidComponentError,
    MissingExtraError,
    PolicyError,
    PropagationError,
    RewardError,
    ScanError,
)
from medvol.core.roles import CaseDataset, Policy, Propagator, RewardTerm
from medvol.core.types import Case, Completion, Evidence, Query, Volume
from medvol.datasets.labelled_case import LabelledCase
from medvol.grounding.prompts import build_prompts
from medvol.guarding import guard
from medvol.guarding.cases import count_cases, find_scan_file, list_patients, list_volumes, look_up
from medvol.guarding.guard import ask_policy, identify, propagate_many, read_knowledge, read_template
from medvol.imaging.volume_hash import hash_voxels
from medvol.inference.segmenter import Segmenter
from medvol.rollouts.scorer import RewardScorer
from medvol.testing import make_case, make_rollout

ANSWER = '<think>a mass</think><answer>[{"slice": 4, "bbox_2d_list": [[450, 250, 750, 550]]}]</answer>'


class OwnStop(BaseException):
    """What a plug-in may define for itself."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def fail(*_: Any) -> Any:
    raise ValueError("no\nluck \x1b[31m")


class Multiplying(Propagator):
    """Keeps the type of a product, which autocast decides."""

    seen: torch.dtype

    def propagate(
        self, volume: Any, evidence: Evidence, z_range: tuple[int, int] | None = None
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        self.seen = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        return np.zeros(volume.shape, bool)


class MultiplyingReward(RewardTerm):
    """The same."""

    seen: torch.dtype

    def __call__(self, rollout: Any, case: Case) -> float:
        self.seen = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        return 1.0


def test_frozen_parts_compute_in_their_own_precision() -> None:
    """Within a trainer of bf16-mixed, propagators and rewards are what they are elsewhere."""
    case = make_case()
    propagator, reward = Multiplying(), MultiplyingReward()
    rollout = make_rollout(case)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        propagate_many(propagator, case.volume, [rollout.evidence], [None])
        RewardScorer([reward]).score(rollout, case)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert propagator.seen == reward.seen == torch.float32


RAISING: dict[str, Callable[..., Any]] = {
    "an exception": fail,
    "sys.exit": lambda *_: sys.exit(3),
    "sys.exit without a code": lambda *_: sys.exit(),
    "an own BaseException": lambda *_: (_ for _ in ()).throw(OwnStop("mine")),
    "an exception without a text": lambda *_: (_ for _ in ()).throw(Unspeakable()),
    "recursion": lambda *a: RAISING["recursion"](*a),
    "a failed assertion": lambda *_: (_ for _ in ()).throw(AssertionError),
    "the end of an iteration": lambda *_: next(iter(())),
}


class DonePolicy(Policy):
    """Answers by a function of prompts, n and sampling."""

    def __init__(self, generate: Callable[..., Any]) -> None:
        self.do = generate

    def generate(self, prompts, n=1, sampling=None):
        return self.do(prompts, n, sampling)

    def identity(self):
        return {"name": "DonePolicy"}


class DonePropagator(Propagator):
    """Propagates by a function of volume and evidence."""

    def __init__(self, propagate: Callable[..., Any], many: Callable[..., Any] | None = None) -> None:
        self.do, self.many = propagate, many

    def propagate(self, volume, evidence, z_range=None):
        return self.do(volume, evidence)

    def propagate_many(self, volume, evidences, z_ranges=None):
        if self.many is not None:
            return self.many(volume, evidences)
        return super().propagate_many(volume, evidences, z_ranges)

    def identity(self):
        return {"name": "DonePropagator"}


class DoneReward(RewardTerm):
    """Scores by a function of rollout and case."""

    def __init__(self, score: Callable[..., Any]) -> None:
        self.do = score

    def __call__(self, rollout, case):
        return self.do(rollout, case)


class DoneDataset(CaseDataset):
    """Gives by a function of the index."""

    def __init__(self, give: Callable[..., Any]) -> None:
        self.do = give

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.do(index)

    def volume_key(self, index):
        return "v"

    def patient_id(self, index):
        return "p"


def propagate(propagator: Propagator, volume: Any, anchor: Evidence) -> np.ndarray:
    """Mask of one anchor, through the guard."""
    return propagate_many(propagator, volume, [anchor], [None])[0]


def good_mask(volume: Any, evidence: Any) -> np.ndarray:
    return np.zeros(volume.shape, bool)


def answers(prompts: Any, n: int, sampling: Any) -> list[list[Completion]]:
    return [[Completion(ANSWER)] * n for _ in prompts]


def make_prompts(count: int = 2):
    return build_prompts(make_case().volume, ["the mass", "the other"][:count], DonePolicy(answers).template)


def sneak(array: np.ndarray) -> torch.Tensor:
    """A tensor on the same memory, which NumPy's lock does not reach."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)


@pytest.mark.parametrize("raising", RAISING.values(), ids=list(RAISING))
def test_whatever_a_component_raises_is_named_as_its_own(raising: Callable[..., Any]) -> None:
    case = make_case()
    anchor = Evidence(4, np.array([[1.0, 1, 9, 9]]))
    module = r"of the module \S*test_guard"
    with pytest.raises(PolicyError, match=rf"^the policy DonePolicy {module} failed: \w+"):
        ask_policy(DonePolicy(raising), make_prompts())
    with pytest.raises(PropagationError, match=rf"^the propagator DonePropagator {module} failed: \w+"):
        propagate(DonePropagator(raising), case.volume, anchor)
    with pytest.raises(PropagationError, match=rf"^the propagator DonePropagator {module} failed: \w+"):
        propagate_many(DonePropagator(raising), case.volume, [anchor, anchor], [None, None])
    with pytest.raises(RewardError, match=rf"^the reward DoneReward {module} failed on case 'case-12px': \w+"):
        RewardScorer([DoneReward(raising)]).score(make_rollout(case), case)
    with pytest.raises(DatasetError, match=rf"^the data set DoneDataset {module} failed on case 0: \w+"):
        look_up(DoneDataset(raising), 0)


def test_a_message_is_one_line_without_control_characters() -> None:
    with pytest.raises(PolicyError) as refusal:
        ask_policy(DonePolicy(fail), make_prompts())
    assert str(refusal.value).endswith(r"failed: ValueError: no luck \x1b[31m")
    with pytest.raises(PolicyError) as refusal:
        ask_policy(DonePolicy(lambda *_: (_ for _ in ()).throw(ValueError("x" * 10**6))), make_prompts())
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("error", [MissingExtraError("sam2", "sam2"), CheckpointError("gone"), ScanError("cut")])
def test_what_tells_of_the_set_up_passes_as_it_is(error: Exception) -> None:
    def stop(*_: Any) -> Any:
        raise error

    with pytest.raises(type(error)) as passed:
        ask_policy(DonePolicy(stop), make_prompts())
    assert passed.value is error
    with pytest.raises(type(error)) as passed:
        propagate(DonePropagator(stop), make_case().volume, Evidence(None, np.empty((0, 4))))
    assert passed.value is error


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (None, "returned None; generate returns 2 lists of 1 completion, one a prompt"),
        ([], "returned a list of 0; generate returns"),
        ([[Completion("a")]], "returned a list of 1;"),
        ([[Completion("a")], []], "returned a list of 0 for a prompt;"),
        ([[Completion("a")], [Completion("a")] * 2], "returned a list of 2 for a prompt;"),
        ([Completion("a"), Completion("b")], "returned a Completion for a prompt;"),
        ("ab", "returned 'ab';"),
        ((row for row in ()), "returned a generator;"),
        ([["a"], ["b"]], "returned 'a' where a Completion belongs"),
        ([[None], [None]], "returned None where a Completion belongs"),
        ([[Completion(b"a")], [Completion("a")]], "whose text is a bytes"),
        ([[Completion(None)], [Completion("a")]], "whose text is None"),
        ([[Completion("\ud800")], [Completion("a")]], "a text that is no Unicode, '\\\\ud800'"),
        ([[Completion("a", [1, 2])], [Completion("a")]], "whose token_ids are a list of 2"),
        ([[Completion("a", np.ones(2))], [Completion("a")]], "whose token_ids are a NumPy array of float64"),
        ([[Completion("a", np.ones(2, int), np.ones(3))], [Completion("a")]], "whose log_probs are a NumPy array"),
        ([[Completion("a", np.ones(1, int), np.array(["b"]))], [Completion("a")]], "whose log_probs are a NumPy array"),
    ],
)
def test_what_a_policy_returns_is_looked_at(rows: Any, said: str) -> None:
    with pytest.raises(PolicyError, match=r"^the policy DonePolicy of the module") as refusal:
        ask_policy(DonePolicy(lambda *_: rows), make_prompts())
    assert said.replace("\\\\", "\\") in str(refusal.value)


def test_good_answers_pass() -> None:
    assert [[c.text for c in row] for row in ask_policy(DonePolicy(answers), make_prompts(), 3)] == [[ANSWER] * 3] * 2
    assert ask_policy(DonePolicy(lambda p, n, s: tuple((Completion("a"),) for _ in p)), make_prompts())


def test_a_list_of_prompts_is_the_policys_own() -> None:
    prompts = make_prompts()

    def clearing(given: Any, n: int, sampling: Any) -> Any:
        found = answers(given, n, sampling)
        given.clear()
        return found

    assert len(ask_policy(DonePolicy(clearing), prompts)) == 2
    assert len(prompts) == 2


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (None, "returned None; a mask is a NumPy array of bool of shape (9, 48, 56)"),
        (np.zeros((9, 48, 56), np.uint8), "returned a NumPy array of uint8 of shape (9, 48, 56)"),
        (np.zeros((56, 48, 9), bool), "returned a NumPy array of bool of shape (56, 48, 9)"),
        (np.zeros((48, 56), bool), "of shape (48, 56)"),
        (torch.zeros((9, 48, 56), dtype=torch.bool), "returned a Tensor"),
        ([[True]], "returned a list of 1"),
    ],
    ids=["None", "uint8", "order", "flat", "tensor", "list"],
)
def test_what_a_propagator_returns_is_looked_at(mask: Any, said: str) -> None:
    volume, anchor = make_case().volume, Evidence(4, np.array([[1.0, 1, 9, 9]]))
    with pytest.raises(PropagationError) as refusal:
        propagate(DonePropagator(lambda *_: mask), volume, anchor)
    assert said in str(refusal.value)
    with pytest.raises(PropagationError):
        propagate_many(DonePropagator(lambda *_: mask), volume, [anchor], [None])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_as_many_masks_as_anchors(count: int) -> None:
    volume, anchor = make_case().volume, Evidence(4, np.array([[1.0, 1, 9, 9]]))
    wrong = DonePropagator(good_mask, lambda volume, evidences: [good_mask(volume, None)] * count)
    with pytest.raises(PropagationError, match=rf"returned a list of {count} for 2 anchors"):
        propagate_many(wrong, volume, [anchor] * 2, [None] * 2)


def test_a_mask_is_in_memory_of_its_own() -> None:
    volume, anchor = make_case().volume, Evidence(4, np.array([[1.0, 1, 9, 9]]))
    bits = np.zeros(volume.shape, np.float32)
    volume = replace(volume, voxels=bits)
    views = {
        "of the volume": lambda v, e: v.voxels.view(bool)[..., ::4],
        "of one value": lambda v, e: np.broadcast_to(np.True_, v.shape),
        "of a subclass": lambda v, e: np.ma.masked_array(np.ones(v.shape, bool)),
    }
    for view in views.values():
        mask = propagate(DonePropagator(view), volume, anchor)
        assert type(mask) is np.ndarray
        mask[:] = True
        assert not bits.any()


@pytest.mark.parametrize("name", ["voxels", "affine"])
def test_a_propagator_that_writes_to_the_volume_is_stopped(name: str) -> None:
    case = make_case()
    before = hash_voxels(case.volume.voxels, case.volume.affine)

    def scribble(volume: Any, evidence: Any) -> Any:
        getattr(volume, name)[:] = 0
        return good_mask(volume, evidence)

    with pytest.raises(PropagationError, match="read-only: work on a copy"):
        Segmenter(DonePolicy(answers), DonePropagator(scribble)).segment(case.volume, "the mass")
    assert hash_voxels(case.volume.voxels, case.volume.affine) == before
    case.volume.voxels[0] = 1  # the caller's array can be written to again


def _by_tensor(array: np.ndarray) -> None:
    sneak(array).zero_()


def _by_flag(array: np.ndarray) -> None:
    array.setflags(write=True)
    array[:] = 0


@pytest.mark.parametrize("write", [_by_tensor, _by_flag])
def test_a_volume_that_was_changed_all_the_same_is_used_no_more(write: Callable[[np.ndarray], None]) -> None:
    volume, anchor = make_case().volume, Evidence(4, np.array([[1.0, 1, 9, 9]]))

    def scribble(volume: Any, evidence: Any) -> Any:
        write(volume.voxels)
        return good_mask(volume, evidence)

    with pytest.raises(
        InvalidComponentError, match=r"DonePropagator of .* changed what it was given \(volume\.voxels\)"
    ):
        propagate(DonePropagator(scribble), volume, anchor)
    with pytest.raises(InvalidComponentError, match="could be trusted"):
        propagate(DonePropagator(good_mask), volume, anchor)
    propagate(DonePropagator(good_mask), make_case().volume, anchor)


@dataclass(frozen=True)
class ComparedVolume(Volume):
    """A plug-in's own, which is compared by its values and so has no hash."""

    extra: int = 0


def test_volumes_without_a_hash_are_told_apart() -> None:
    given, anchor = make_case().volume, Evidence(4, np.array([[1.0, 1, 9, 9]]))
    spoilt, other = (ComparedVolume(given.voxels.copy(), given.affine) for _ in range(2))
    with pytest.raises(TypeError, match="unhashable"):
        hash(spoilt)

    def scribble(volume: Any, evidence: Any) -> Any:
        _by_tensor(volume.voxels)
        return good_mask(volume, evidence)

    with pytest.raises(InvalidComponentError, match="changed what it was given"):
        propagate(DonePropagator(scribble), spoilt, anchor)
    with pytest.raises(InvalidComponentError, match="could be trusted"):
        propagate(DonePropagator(good_mask), spoilt, anchor)
    propagate(DonePropagator(good_mask), other, anchor)


def test_what_was_done_to_a_volume_is_forgotten_with_it() -> None:
    given = make_case().volume
    spoilt = ComparedVolume(given.voxels.copy(), given.affine)
    before = dict(guard._spoiled)
    with pytest.raises(InvalidComponentError):
        guard._refuse_change("it", ["volume.voxels"], {"volume": spoilt})
    assert len(guard._spoiled) == len(before) + 1
    del spoilt
    gc.collect()
    assert guard._spoiled == before


def test_an_anchor_is_not_written_to() -> None:
    anchor = Evidence(4, np.array([[1.0, 1, 9, 9]]))

    def scribble(volume: Any, evidence: Any) -> Any:
        evidence.boxes += 1
        return good_mask(volume, evidence)

    with pytest.raises(PropagationError, match="read-only"):
        propagate(DonePropagator(scribble), make_case().volume, anchor)
    np.testing.assert_array_equal(anchor.boxes, [[1, 1, 9, 9]])


def test_a_policy_that_writes_to_the_slices_is_stopped() -> None:
    def scribble(prompts: Any, n: int, sampling: Any) -> Any:
        prompts[0].slices.pixels[:] = 0
        return answers(prompts, n, sampling)

    with pytest.raises(PolicyError, match="read-only"):
        ask_policy(DonePolicy(scribble), make_prompts())

    def sneaky(prompts: Any, n: int, sampling: Any) -> Any:
        _by_tensor(prompts[0].slices.pixels)
        return answers(prompts, n, sampling)

    with pytest.raises(InvalidComponentError, match=r"prompts\.0\.slices\.pixels"):
        ask_policy(DonePolicy(sneaky), make_prompts())


@pytest.mark.parametrize("score", [-0.1, 1.1, 1e30, float("nan"), float("inf"), None, "1", [1], True, np.True_, 1 + 0j])
def test_scores_are_numbers_from_0_to_1(score: Any) -> None:
    case = make_case()
    with pytest.raises(RewardError, match=r"the reward DoneReward of .* scored .* \[0, 1\]"):
        RewardScorer([DoneReward(lambda *_: score)]).score(make_rollout(case), case)


@pytest.mark.parametrize("score", [0, 1, 0.5, np.float32(0.5), np.float64(1), np.int64(1), 1 + 1e-12, -1e-12])
def test_numbers_of_any_kind_are_scores(score: Any) -> None:
    case = make_case()
    found = RewardScorer([DoneReward(lambda *_: score)]).score(make_rollout(case), case).scores["DoneReward"]
    assert type(found) is float
    assert 0 <= found <= 1
    assert found == pytest.approx(float(score), abs=1e-9)


WRITES = {
    "target": lambda rollout, case: case.target,
    "mask": lambda rollout, case: rollout.mask,
    "voxels": lambda rollout, case: case.volume.voxels,
    "boxes": lambda rollout, case: rollout.evidence.boxes,
}


@pytest.mark.parametrize("place", WRITES)
def test_a_reward_changes_neither_rollout_nor_case(place: str) -> None:
    case = make_case()
    rollout = make_rollout(case)
    held = WRITES[place](rollout, case)
    before = held.copy()

    def scribble(rollout: Any, case: Any) -> float:
        WRITES[place](rollout, case)[:] = 0
        return 1.0

    with pytest.raises(RewardError, match="read-only"):
        RewardScorer([DoneReward(scribble)]).score(rollout, case)
    np.testing.assert_array_equal(held, before)

    def sneaky(rollout: Any, case: Any) -> float:
        _by_tensor(WRITES[place](rollout, case))
        return 1.0

    with pytest.raises(InvalidComponentError, match=f"the reward DoneReward .* changed what it was given .*{place}"):
        RewardScorer([DoneReward(sneaky)]).score(rollout, case)


@dataclass(frozen=True, eq=False, repr=False)
class NotedCase(Case):
    """A case of a plug-in that holds more."""

    notes: dict[str, Any] = field(default_factory=dict)


def test_what_is_nested_counts_too() -> None:
    plain = make_case()
    notes = {"table": [1, 2], "deep": {"array": np.ones(3), "tensor": torch.ones(2)}}
    case = NotedCase(plain.case_id, plain.volume, plain.query, plain.target, notes=notes)
    rollout = make_rollout(case)
    changes = {
        "notes.table": lambda c: c.notes["table"].append(3),
        "notes.deep.tensor": lambda c: c.notes["deep"]["tensor"].zero_(),
        "notes.keys": lambda c: c.notes.update(more=1),
    }
    for place, change in changes.items():
        with pytest.raises(InvalidComponentError, match=place):
            RewardScorer([DoneReward(lambda r, c, change=change: [change(c), 1.0][1])]).score(rollout, case)
    with pytest.raises(RewardError, match="read-only"):
        RewardScorer([DoneReward(lambda r, c: c.notes["deep"]["array"].fill(0))]).score(rollout, case)


def label(case: Case, labels: np.ndarray) -> LabelledCase:
    values = {field.name: getattr(case, field.name) for field in fields(case)}
    return LabelledCase(**values, labels=labels)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda case: None, "None, not a Case"),
        (lambda case: case.volume, "a Volume, not a Case"),
        (lambda case: replace(case, volume=case.volume.voxels), "whose volume is a NumPy array of float32"),
        (lambda case: replace(case, query="the mass"), "whose query is 'the mass'"),
        (lambda case: replace(case, query=Query(None)), "whose text is None, which is a str"),
        (lambda case: replace(case, case_id=3), "whose case_id is 3, which is a str"),
        (lambda case: replace(case, target=case.target.astype(np.uint8)), "whose target is a NumPy array of uint8"),
        (
            lambda case: replace(case, target=case.target[1:]),
            "whose target is a NumPy array of bool of shape (8, 48, 56)",
        ),
        (lambda case: replace(case, target=[1]), "whose target is a list of 1"),
        (lambda case: label(case, case.target[1:]), "whose labels is a NumPy array of bool of shape (8, 48, 56)"),
        (lambda case: label(case, np.full(case.target.shape, "x")), "whose labels is a NumPy array of <U1"),
        (lambda case: replace(case, volume=replace(case.volume, voxels=None)), None),
    ],
)
def test_what_a_data_set_gives_is_looked_at(spoil: Callable[[Case], Any], said: str | None) -> None:
    with pytest.raises(DatasetError, match="the data set DoneDataset of the module") as refusal:
        look_up(DoneDataset(lambda index: spoil(make_case())), 0)
    assert said is None or said in str(refusal.value)
    assert look_up(DoneDataset(lambda index: make_case()), 0).case_id == "case-12px"


@pytest.mark.parametrize("key", [3, fail, lambda index: sys.exit(0), b"x"], ids=["3", "raises", "leaves", "bytes"])
@pytest.mark.parametrize(
    ("method", "read"),
    [
        ("volume_key", list_volumes),
        ("patient_id", list_patients),
        ("scan_file", lambda dataset: find_scan_file(dataset, 0)),
    ],
)
def test_names_of_cases_are_looked_at(method: str, read: Callable[[CaseDataset], object], key: Any) -> None:
    namesake = {method: lambda self, index: key(index) if callable(key) else key}
    keyed = type("Keyed", (DoneDataset,), namesake)
    with pytest.raises(DatasetError, match="the data set Keyed of the module"):
        read(keyed(lambda index: make_case()))


def test_names_of_cases_are_given_as_they_are() -> None:
    dataset = DoneDataset(lambda index: make_case())
    assert list_volumes(dataset) == ["v"]
    assert list_patients(dataset) == [dataset.patient_id(0)]
    assert find_scan_file(dataset, 0) is None
    assert count_cases(dataset) == 1


@pytest.mark.parametrize("length", [fail, lambda self: -1, lambda self: None])
def test_a_count_is_looked_at(length: Any) -> None:
    with pytest.raises(DatasetError, match="failed to count its cases"):
        count_cases(type("Odd", (DoneDataset,), {"__len__": length})(lambda index: make_case()))


def test_template_and_identity_are_looked_at() -> None:
    class Odd(DonePolicy):
        template = "slices first"  # type: ignore[assignment]

        def identity(self):
            return None

    with pytest.raises(InvalidComponentError, match=r"policy Odd of .* has the template 'slices first'"):
        read_template(Odd(answers))
    with pytest.raises(InvalidComponentError, match="has the identity None"):
        identify(Odd(answers))


def circle() -> dict[str, Any]:
    values: dict[str, Any] = {}
    values["itself"] = values
    return values


@pytest.mark.parametrize(
    "identity", [circle(), {"seed": 10**5000}, {"rate": float("nan")}, {(1, 2): 3}, {"table": np.arange(9)}]
)
def test_an_identity_can_be_written_to_a_record(identity: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DonePolicy, "identity", lambda self: identity)
    with pytest.raises(InvalidComponentError, match="has an identity that cannot be written"):
        identify(DonePolicy(answers))


@pytest.mark.parametrize(
    ("knowledge", "said"),
    [(property(lambda self: sys.exit(0)), "failed: SystemExit: 0"), ("nonsense", "has the training data 'nonsense'")],
)
def test_training_data_are_looked_at(knowledge: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DonePolicy, "training_data", knowledge)
    with pytest.raises(InvalidComponentError, match=said):
        read_knowledge(DonePolicy(answers))


def test_ctrl_c_of_the_user_acts_at_once() -> None:
    def interrupted(*_: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ask_policy(DonePolicy(interrupted), make_prompts())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_that_a_component_swallows_acts_after_it() -> None:
    def swallowing(prompts: Any, n: int, sampling: Any) -> Any:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            return answers(prompts, n, sampling)
        raise AssertionError("no signal came")

    def turning(*_: Any) -> Any:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException as stop:
            raise ValueError("other") from stop

    for policy in (DonePolicy(swallowing), DonePolicy(turning)):
        with pytest.raises(KeyboardInterrupt):
            ask_policy(policy, make_prompts())


def test_a_keyboard_interrupt_stops_whoever_raises_it() -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    case = make_case()
    with pytest.raises(KeyboardInterrupt):
        ask_policy(DonePolicy(interrupted), make_prompts())
    with pytest.raises(KeyboardInterrupt):
        RewardScorer([DoneReward(interrupted)]).score(make_rollout(case), case)


def test_sigterm_acts_as_its_handler_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(number: int, frame: Any) -> None:
        raise SystemExit(143)

    def terminated(*_: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit, match="143"):
            propagate(DonePropagator(terminated), make_case().volume, Evidence(None, np.empty((0, 4))))
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
