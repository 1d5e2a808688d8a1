"""A real server: ``transformers serve`` with a small vision-language model that the test builds and teaches."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from medvol.cli import main
from medvol.core.errors import PolicyError
from medvol.core.prompts import Prompt
from medvol.core.types import Sampling, Volume
from medvol.grounding.prompts import build_prompts
from medvol.policies.endpoint import EndpointPolicy
from medvol.policies.endpoint_parts.settings import RequestSettings
from medvol.policies.tiny import TinyPolicy
from medvol.policies.tiny_network import TINY_TEMPLATE

ABSENT = [name for name in ("fastapi", "openai", "uvicorn") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ABSENT), reason=f"transformers serve needs {', '.join(ABSENT)}; install the extra dev"),
]

TEMPLATE = replace(TINY_TEMPLATE, num_slices=4, height_px=24, width_px=48)
QUERIES = ("the cube", "the spleen")
ANSWERS = (
    '<think> a cube</think><answer>[{"slice": 2, "bbox_2d_list": [[260, 260, 740, 740]]}]</answer>',
    "<answer>[]</answer>",
)
SERVED = tuple(answer.replace("<think> ", "<think>") for answer in ANSWERS)
"""The same as the server gives them, which takes the think block out and trims it."""


def draw_cube() -> np.ndarray:
    voxels = np.full((4, 8, 8), -100, np.float32)
    voxels[1:4, 2:6, 2:6] = 60
    return voxels


def ask(policy: TinyPolicy) -> list[Prompt]:
    """Both queries about the cube; its slices have the 256 values of a picture, so that both policies see the same."""
    volume = Volume(draw_cube(), np.diag([2.0, 2.0, 5.0, 1.0]), volume_id="cube")
    prompts = build_prompts(volume, list(QUERIES), policy.template)
    slices = replace(prompts[0].slices, pixels=np.rint(prompts[0].slices.pixels * 255).astype(np.float32) / 255)
    return [replace(prompt, slices=slices) for prompt in prompts]


@pytest.fixture(scope="module")
def taught() -> TinyPolicy:
    """The tiny policy, taught both answers by heart."""
    policy = TinyPolicy(template=TEMPLATE)
    policy.load().train()
    prompts, answers = ask(policy), [[policy.encode(answer)] for answer in ANSWERS]
    optimizer = torch.optim.AdamW(policy.trainable_parameters(), 2e-3)
    for _ in range(60):
        loss = -torch.cat([row[0] for row in policy.log_probs(prompts, answers)]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    policy.load().eval()
    return policy


@pytest.fixture(scope="module")
def folder(taught: TinyPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its model folder, with what a server asks of one beside it."""
    from transformers import GenerationConfig

    place = tmp_path_factory.mktemp("served") / "model"
    taught.save(place)
    end = taught.load().end_id
    GenerationConfig(do_sample=True, eos_token_id=end, pad_token_id=end).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server with the model."""
    log = tmp_path_factory.mktemp("log") / "server.txt"
    program = "from transformers.cli.transformers import main; main()"
    arguments = ["serve", str(folder), "--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    with log.open("w") as file:
        server = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=file, stderr=subprocess.STDOUT)
    try:
        yield wait_for_address(server, log)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for_address(server: subprocess.Popen, log: Path) -> str:
    """The port that the server says it listens on."""
    for _ in range(240):
        said = re.search(r"running on (http://127\.0\.0\.1:[1-9]\d*)", log.read_text())
        if said:
            return f"{said[1]}/v1"
        try:
            server.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"the server did not start: {log.read_text()[-3000:]}")


@pytest.fixture
def served(url: str, folder: Path) -> EndpointPolicy:
    return EndpointPolicy(url, str(folder), TEMPLATE, requests=RequestSettings(concurrency=1, timeout_s=120.0))


def test_a_served_model_sees_and_says_what_it_does_here(served, taught):
    prompts = ask(taught)
    here = [row[0].text for row in taught.generate(prompts)]
    assert here == list(ANSWERS)
    assert [row[0].text for row in served.generate(prompts)] == list(SERVED)
    answers = [len(row[0].token_ids) for row in taught.generate(prompts)]
    sizes = [taught.measure_prompt(prompt).tokens for prompt in prompts]
    assert served._spending.requests == 2
    assert served._spending.tokens == sum(sizes) + sum(answers)


def test_greedy_answers_are_the_same_again_and_log_probabilities_are_not_made_up(served, taught):
    first, second = (served.generate(ask(taught)) for _ in range(2))
    assert [row[0].text for row in first] == [row[0].text for row in second]
    assert first[0][0].log_probs is None


def test_samples_are_drawn_one_by_one_where_the_server_gives_one_choice(served, taught):
    prompts, hot = ask(taught)[:1], Sampling(temperature=50.0, max_new_tokens=8, seed=3)
    (row,) = served.generate(prompts, 3, hot)
    assert len({completion.text for completion in row}) == 3
    assert served._spending.requests == 3
    (again,) = served.generate(prompts, 3, hot)
    assert [completion.text for completion in again] == [completion.text for completion in row]


def test_the_length_of_an_answer_is_bounded(served, taught):
    seven = Sampling(max_new_tokens=7)
    (((here,),), ((short,),)) = (policy.generate(ask(taught)[:1], 1, seven) for policy in (taught, served))
    assert len(here.token_ids) == 7
    assert short.text.strip() == here.text.replace("<think> ", "<think>").strip()


def test_a_model_that_the_server_does_not_have(url, taught):
    policy = EndpointPolicy(url, "another", TEMPLATE)
    with pytest.raises(
        PolicyError, match=r'answered 400 \(Bad Request\): "Server is pinned to .* requested \'another\''
    ):
        policy.generate(ask(taught)[:1])


def test_an_address_without_its_end(url, folder, taught):
    policy = EndpointPolicy(url.removesuffix("/v1"), str(folder), TEMPLATE)
    with pytest.raises(PolicyError, match=r'answered 404 \(Not Found\): "Not Found"; check policy.url, which mostly'):
        policy.generate(ask(taught))


def test_segment_and_a_row_of_a_report(url, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scan, out = tmp_path / "ct.nii.gz", tmp_path / "out"
    nib.save(nib.Nifti1Image(draw_cube().transpose(2, 1, 0), np.diag([-2.0, -2.0, 5.0, 1.0])), scan)
    layout = [f"--policy.template={json.dumps(TEMPLATE.to_dict())}"]
    asked = ["--policy", "EndpointPolicy", "--policy.url", url, "--policy.model", str(folder), *layout]
    assert main(["segment", str(scan), QUERIES[0], *asked, "--modality", "CT", "--out", str(out)]) == 0
    (record,) = out.glob("*.json")
    assert json.loads(record.read_text())["completion"] == SERVED[0]
    policy = {"class_path": "EndpointPolicy", "init_args": {"url": url, "model": str(folder)}}
    policy["init_args"]["template"] = {**TEMPLATE.to_dict(), "windows": list(TEMPLATE.windows)}
    propagator = {"class_path": "ExtrudePropagator", "init_args": {"half_depth_slices": 1}}
    data = {"test": {"class_path": "light_policy.LightDataset", "init_args": {"count": 2}}}
    content = {
        "model": {"class_path": "EvaluationModule", "init_args": {"policy": policy, "propagator": propagator}},
        "data": {"class_path": "CaseDataModule", "init_args": data},
        "trainer": {"accelerator": "cpu", "logger": False},
    }
    Path("served.yaml").write_text(yaml.safe_dump(content))
    assert main(["test", "--config", "served.yaml"]) == 0
    capsys.readouterr()
    assert main(["report", "runs/served", "--markdown"]) == 0
    assert "| served |" in capsys.readouterr().out
    evaluation = json.loads(Path("runs/served/evaluation.json").read_text())
    assert evaluation["policy"]["model"] == str(folder)
