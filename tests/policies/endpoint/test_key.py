"""The key: sent to its server, and found nowhere else."""

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from chat_server import ANSWER, ChatServer, Reply, chat

from medvol.cli import main
from medvol.core.errors import ConfigError, PolicyError
from medvol.policies.endpoint import EndpointPolicy

KEY = "sk-medvol-0123456789-secret"
FEW = ("--policy.template.num_slices", "3", "--policy.template.height_px", "16", "--policy.template.width_px", "16")


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return KEY


def test_the_key_is_sent_when_there_is_one(connect, prompts, monkeypatch):
    with ChatServer() as server:
        connect(server).generate(prompts[:1])
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")  # as `export KEY=$(cat file)` never has, but a file does
        connect(server).generate(prompts[:1])
        monkeypatch.setenv("OTHER_KEY", "another-key")
        connect(server, key_variable="OTHER_KEY").generate(prompts[:1])
        connect(server, key_variable=None).generate(prompts[:1])
    sent = [headers.get("Authorization") for headers in server.headers]
    assert sent == [None, f"Bearer {KEY}", "Bearer another-key", None]


@pytest.mark.parametrize("value", ["two words", "sk-line\nbreak-0123", "sk-é0123456"])
def test_what_cannot_be_a_key_is_refused_unseen(connect, prompts, monkeypatch, value):
    monkeypatch.setenv("OPENAI_API_KEY", value)
    with (
        ChatServer() as server,
        pytest.raises(ConfigError, match="OPENAI_API_KEY holds what cannot be a key") as caught,
    ):
        connect(server).generate(prompts[:1])
    assert value[:6] not in str(caught.value)
    assert not server.requests


def test_no_key_goes_over_the_network_unencrypted(prompts, key):
    policy = EndpointPolicy("http://gpu.example/v1", "m")
    with pytest.raises(ConfigError, match=r"would go to http://gpu\.example/v1 unencrypted; use https"):
        policy.generate(prompts[:1])


ECHOES = {
    "401": Reply({"error": {"message": f"incorrect key {KEY}"}}, 401),
    "at the edge": Reply(("x" * 290 + KEY).encode(), 500),
    "redirect": Reply(b"", 302, {"Location": f"http://127.0.0.1:1/{KEY}"}),
    "not JSON": Reply(KEY.encode()),
    "success with an error": Reply({"error": KEY}),
    "refusal": chat(None, refusal=f"no {KEY}"),
    "finish reason": Reply({"choices": [{"message": {"content": ""}, "finish_reason": KEY}]}),
}


@pytest.mark.parametrize("reply", ECHOES.values(), ids=ECHOES)
def test_a_server_that_repeats_the_key_does_not_spread_it(connect, prompts, key, caplog, reply):
    caplog.set_level(logging.DEBUG)
    with ChatServer(reply) as server:
        policy = connect(server)
        with pytest.raises(PolicyError) as caught:
            policy.generate(prompts[:1])
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    for text in (str(caught.value), caplog.text, repr(policy), repr(vars(policy)), str(policy.identity())):
        assert KEY not in text
        assert KEY[:12] not in text


def files_with(text: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("said", [ANSWER.replace("a cube", f"a cube {KEY}"), f"no answer but {KEY}"])
def test_no_file_and_no_line_of_a_run_holds_it(tmp_path, key, capfd, caplog, said):
    caplog.set_level(logging.DEBUG)
    scan = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 4), np.int16) - 500 + np.arange(4, dtype=np.int16), np.eye(4)), scan)
    with ChatServer(chat(said)) as server:
        arguments = ["segment", scan, "the cube", "--modality", "CT", "--out", tmp_path / "out", "--policy"]
        arguments += ["EndpointPolicy", "--policy.url", server.url, "--policy.model", "m", *FEW, "--samples", "2"]
        status = main(list(map(str, arguments)))
    assert status == (0 if said.startswith("<think>") else 1)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert list((tmp_path / "out").glob("*.json"))
    assert files_with("[key]", tmp_path)
    assert not files_with(KEY, tmp_path)
    output = capfd.readouterr()
    assert KEY not in output.out + output.err + caplog.text
