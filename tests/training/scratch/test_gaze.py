"""Where SFT has a policy look: at the target, whatever number of the answer it writes."""

import re

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from medvol.datasets.phantom import PhantomDataset
from medvol.grounding.anchors import label_anchor
from medvol.grounding.grammar import format_evidence
from medvol.grounding.prompts import build_prompts
from medvol.policies.tiny import TinyPolicy
from medvol.training.scratch.gaze import answer_gazes

SHAPE = (8, 48, 48)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.booleans(), st.sampled_from([0.0, 0.6]))
def test_every_number_of_an_answer_has_a_gaze_at_what_it_says(seed, count, thinks, jitter):
    rng = np.random.default_rng(seed)
    target = rng.random((8, 12, 12)) < 0.1
    shown = sorted(rng.choice(8, count, replace=False).tolist())
    clear = [z for z in shown if target[z].any()]
    span = [clear[0], clear[-1]] if thinks and clear else []
    thought = f"vertebra L1 spans slices {span[0]} to {span[1]}" if span else "vertebra L1"
    anchor = label_anchor(target, shown, "largest", True, jitter, rng, rationale=thought)
    text = format_evidence(anchor, 12, 12)
    gazes = answer_gazes(text, anchor, target, shown, span)
    if not clear:
        assert gazes == []
        return
    numbers = [int(text[gaze.start : gaze.stop]) for gaze in gazes]
    answer = text[text.index("<answer>") :]
    assert numbers == span + [int(number) for number in re.findall(r"\d+", answer.replace("2d", ""))]
    assert len(gazes) == len(span) + 1 + 4 * len(anchor.boxes)
    slices = [*span, *[anchor.key_slice] * (1 + 4 * len(anchor.boxes))]
    assert [shown[gaze.position] for gaze in gazes] == slices
    for gaze, z in zip(gazes, slices, strict=True):
        assert gaze.mask.any()
        assert not (gaze.mask & ~target[z]).any()
    if jitter == 0:
        for i, box in enumerate(anchor.boxes):
            x1, y1, x2, y2 = box.astype(int)
            for gaze in gazes[len(span) + 1 + 4 * i :][:4]:
                ys, xs = np.nonzero(gaze.mask)
                assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (x1, y1, x2, y2)


def questions(policy):
    data = PhantomDataset("train", 2, shape=SHAPE)
    pairs = []
    for patient in sorted({case.patient_id for case in data}):
        cases = [case for case in data if case.patient_id == patient][:2]
        prompts = build_prompts(cases[0].volume, [case.query.text for case in cases], policy.template)
        for case, prompt in zip(cases, prompts, strict=True):
            anchor = label_anchor(case.target, prompt.slices.indices, "largest", rationale="spans 1 to 2")
            text = format_evidence(anchor, *case.target.shape[1:], policy.template.coordinate_step)
            gazes = answer_gazes(text, anchor, case.target, prompt.slices.indices)
            pairs.append((prompt, policy.encode(text), gazes))
    return zip(*pairs, strict=True)


def test_shares_are_those_of_eager_attention_over_separate_sequences():
    policy = TinyPolicy()
    prompts, answers, gazes = questions(policy)
    scores, shares = policy.log_probs_and_gaze(prompts, answers, gazes)
    for own, rows in zip(scores, policy.log_probs(prompts, [[answer] for answer in answers]), strict=True):
        assert torch.equal(own, rows[0])

    network = policy.load()
    network.model.model.language_model.config._attn_implementation = "eager"
    expected = []
    for prompt, answer, looks in zip(prompts, answers, gazes, strict=True):
        prefix = network.prefix(prompt.slices)
        query = network.encode_query(prompt.query)
        ids = torch.cat([prefix.ids, torch.tensor(query), torch.from_numpy(answer.token_ids)])
        behind = prefix.next_position + torch.arange(len(ids) - len(prefix.ids))
        with torch.no_grad():
            output = network.model.model(
                input_ids=ids[None],
                position_ids=torch.cat([prefix.positions, behind.expand(3, -1)], dim=1)[:, None],
                mm_encoder_outputs={"image": network.see([prompt.slices])},
                output_attentions=True,
            )
        attention = output.attentions[1][0].numpy()  # heads, from, to; the second of four layers
        images = np.flatnonzero(ids.numpy() == network.model.config.image_token_id).reshape(-1, 4, 4)
        pieces = [network.tokenizer.decode([int(token)]).strip() for token in answer.token_ids]
        numbers = [i for i, piece in enumerate(pieces) if piece.isdigit()]
        numbers = numbers[len(numbers) - len(looks) :]
        for look, token in zip(looks, numbers, strict=True):
            filled = look.mask.reshape(4, 12, 4, 12).mean((1, 3))
            there = images[look.position][filled >= min(0.4, filled.max() / 2)]
            expected.append(attention[:, len(prefix.ids) + len(query) + token - 1, there].sum(1).mean())
    np.testing.assert_allclose(shares.detach().exp().numpy(), expected, rtol=1e-5)


def test_the_gaze_loss_turns_attention_to_the_target():
    policy = TinyPolicy(freeze_vision=True)
    prompts, answers, gazes = questions(policy)
    optimiser = torch.optim.AdamW(policy.trainable_parameters(), lr=2e-3)
    means = []
    for _ in range(12):
        loss = -policy.log_probs_and_gaze(prompts, answers, gazes)[1].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        means.append(float(loss.detach()))
    assert means[-1] < means[0] / 2


def test_an_answer_without_gazes_is_scored_alone():
    policy = TinyPolicy()
    prompts, answers, _ = questions(policy)
    scores, shares = policy.log_probs_and_gaze(prompts, answers, [[] for _ in prompts])
    assert len(scores) == len(prompts)
    assert len(shares) == 0


def test_every_anchor_has_its_gazes():
    target = np.zeros((8, 12, 12), bool)
    target[1, 2:6, 2:6] = target[6, 7:10, 1:9] = True
    answer = label_anchor(target, rule="largest", max_anchors=3)
    gazes = answer_gazes(format_evidence(answer, 12, 12), answer, target, range(8))
    assert [gaze.position for gaze in gazes] == [1] * 5 + [6] * 5
    for gaze in gazes:
        np.testing.assert_array_equal(gaze.mask, target[gaze.position])
