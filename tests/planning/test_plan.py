"""Plans: what several devices share, what settings save, and how much a batch takes."""

from dataclasses import replace

import pytest

from medvol.core.roles import Propagator
from medvol.planning.arithmetic import count_work
from medvol.planning.levers import find_levers
from medvol.planning.live_bytes import Peak
from medvol.planning.memory import divide
from medvol.planning.phases import DRAWING, LEARNING, Phase, Trace
from medvol.planning.plan import make_plan
from medvol.planning.prompt_tokens import PromptTokens
from medvol.planning.propagator_weights import count_propagator
from medvol.planning.step import Step
from medvol.policies.tiny import TinyPolicy
from medvol.policies.vision_language import QwenVLPolicy

TOKENS = PromptTokens(slices=4, image=60, text=20, query=10, limit=1000)
PARTS = {"trained weights": 400, "gradients": 400, "optimiser": 800, "language model": 130, "reference": 400}
TRACE = Trace(
    TOKENS,
    20,
    (Phase(DRAWING, Peak(2130, PARTS)), Phase(LEARNING, Peak(2130, PARTS))),
    {"trained weights": 200, "gradients": 200, "optimiser": 400},
    50,
    100,
)


def test_the_tokens_of_a_batch():
    step = Step("GRPO", batch=3, queries=2, answers=4, answer_tokens=20, reference=True, updates=2)
    work = count_work(step, TOKENS, 20)
    assert work.row_tokens == 80 + 2 * 10 + 8 * 20
    assert (work.draws, work.tokens_drawn, work.tokens_read) == (24, 480, 3 * 100)
    assert (work.tokens_referred, work.tokens_learned, work.steps_per_batch) == (780, 780, 2)
    taught = count_work(Step("SFT", batch=3, queries=2, accumulation=4), TOKENS, 20)
    assert (taught.draws, taught.tokens_learned, taught.steps_per_batch) == (0, 3 * 4 * 140, 0.25)
    best = count_work(Step("rejection sampling", batch=3, queries=2, answers=4), TOKENS, 20)
    assert (best.draws, best.tokens_drawn, best.tokens_read) == (24, 480, 3 * 100)
    assert (best.row_tokens, best.tokens_learned, best.steps_per_batch) == (80 + 2 * 10 + 2 * 20, 3 * 140, 1)


@pytest.mark.parametrize(("batch", "devices", "per_pass", "volumes", "passes"), [(7, 2, None, 4, 1), (7, 2, 3, 4, 2)])
def test_the_fullest_device(batch, devices, per_pass, volumes, passes):
    step = Step("GRPO", batch=batch, devices=devices, volumes_per_pass=per_pass)
    assert (step.volumes, step.passes) == (volumes, passes)


def test_what_devices_share():
    one, sharded = Step("GRPO", answers=4, reference=True), Step("GRPO", answers=4, devices=4, sharded=True)
    (_, learning) = divide(TRACE, one, "cuda", False, 7)
    assert learning.parts["propagator"] == 7
    assert learning.parts["language model, prompt"] == round(130 * 80 / (80 + 10 + 80))
    assert learning.total == 2130 + 7
    drawing, learning = divide(TRACE, sharded, "cuda", False, 0)
    assert drawing.parts["trained weights"] == 400  # whole while answers are drawn
    assert learning.parts["trained weights"] == 400 - 150
    assert (learning.parts["gradients"], learning.parts["optimiser"]) == (400 - 150, 800 - 300)
    assert learning.parts["layers gathered by fsdp2"] == 100
    (copies, _) = divide(TRACE, replace(sharded, sharded=False), "cuda", False, 0)
    assert copies.parts["buckets of ddp"] == 400


def test_a_reference_on_the_host():
    step = Step("GRPO", answers=4, reference=True)
    assert "reference" not in divide(TRACE, step, "cuda", True, 0)[1].parts
    assert divide(TRACE, step, "cpu", True, 0)[1].parts["reference"] == 400


def test_settings_come_in_order_and_once():
    policy = QwenVLPolicy("nothing", lora_rank=0)
    step = Step("GRPO", batch=4, queries=2, answers=4, answer_tokens=256, slices=64, reference=True, devices=2)
    settings = [lever.setting for lever in find_levers(policy, step)]
    assert settings == [
        "model.policy.gradient_checkpointing: true",
        "model.optimizer.volumes_per_pass: 1",
        "model.policy.offload_reference: true",
        "trainer.strategy: fsdp2",
        "model.policy.dtype: bfloat16",
        "model.policy.freeze_vision: true",
        "model.policy.lora_rank: 64",
        "model.policy.quantised: true",
        "data.queries_per_volume: 1",
        "data.batch_size: 2",
        "model.evaluation.max_new_tokens: 128",
        "model.policy.template.num_slices: 32",
    ]
    tiny = [lever.setting for lever in find_levers(TinyPolicy(), Step("SFT", answer_tokens=40, slices=24))]
    assert tiny == [
        "model.optimizer.moments: host",
        "model.policy.freeze_vision: true",
        "model.policy.template.num_slices: 12",
    ]


def test_moments_go_to_the_host_of_one_device_only():
    """Several devices share them out, and those of adapters are small."""
    wanted = "model.optimizer.moments: host"
    for step, policy, offered in (
        (Step("SFT"), QwenVLPolicy("nothing"), True),
        (Step("SFT", devices=2), QwenVLPolicy("nothing"), False),
        (Step("SFT", moments="8bit"), QwenVLPolicy("nothing"), False),
        (Step("SFT"), QwenVLPolicy("nothing", lora_rank=8), False),
    ):
        assert (wanted in [lever.setting for lever in find_levers(policy, step)]) == offered


def test_what_changes_no_trace_is_not_traced_again(monkeypatch):
    traced = []

    def note(policy, step, device):
        traced.append((policy, step))
        return TRACE

    monkeypatch.setattr("medvol.planning.plan.trace", note)
    step = Step("GRPO", batch=2, answers=4, devices=2, reference=True)
    make_plan(QwenVLPolicy("nothing", freeze_vision=True, lora_rank=0), step, "cuda", all_levers=True)
    known = [(vars(policy.unloaded(offload_reference=False)), replace(step, sharded=False)) for policy, step in traced]
    assert all(one not in known[:place] for place, one in enumerate(known))
    settings = list(find_levers(QwenVLPolicy("nothing", freeze_vision=True), replace(step, slices=4, answer_tokens=20)))
    assert {"model.policy.offload_reference: true", "trainer.strategy: fsdp2"} < {one.setting for one in settings}
    assert len(traced) == 1 + len(settings) - 2


@pytest.mark.slow
def test_a_plan_tries_settings_until_a_step_fits():
    step = Step("SFT", batch=2, scan_shape=(40, 64, 64), workers=1)
    whole = make_plan(TinyPolicy(), step, "cpu")
    assert whole.fits is None
    assert whole.host_bytes == 40 * 64 * 64 * 5 * 2 * 3
    wanted = int(0.8 * whole.peak.total / 0.9)
    plan = make_plan(TinyPolicy(), step, "cpu", memory=wanted)
    assert plan.fits is False
    assert plan.savings[0].setting == "model.policy.freeze_vision: true"
    assert plan.savings[-1].peak_bytes <= 0.9 * wanted
    total = whole.peak.total
    for saving in plan.savings:
        total -= saving.saved_bytes
        assert saving.peak_bytes == total
    assert make_plan(TinyPolicy(), step, "cpu", memory=2 * whole.peak.total).fits


def test_weights_of_propagators():
    from medvol.propagators.medsam2 import MedSAM2Propagator
    from medvol.propagators.region import RegionPropagator

    told: list[str] = []
    assert count_propagator(RegionPropagator(), "cuda", told) == 0
    assert count_propagator(MedSAM2Propagator("MedSAM2_2411", device="cpu"), "cuda", told) == 0
    assert count_propagator(MedSAM2Propagator("MedSAM2_2411"), "cpu", told) == 0
    assert told == []
    assert count_propagator(MedSAM2Propagator("MedSAM2_2411"), "cuda", told) == 4 * 39_000_000
    assert count_propagator(MedSAM2Propagator("SAM2.1_large", device="cuda"), "cuda", told) == 4 * 224_000_000
    assert len(told) == 2

    class Own(Propagator):
        device = "cuda"

        def propagate(self, volume, evidence, z_range=None):
            raise NotImplementedError

    assert count_propagator(Own(), "cuda", told) == 0
    assert "Own" in told[-1]
