"""What a server is asked: the prompt as the template says, samples, bounds; and what is made of its answers."""

import asyncio
import base64
import io
import os
import signal
import threading
from contextlib import suppress

import numpy as np
import pytest
from chat_server import ANSWER, ChatServer, Reply, chat, plain, wait_until
from PIL import Image

from medvol.core.errors import ConfigError, PolicyError
from medvol.core.types import Sampling
from medvol.grounding.grammar import parse_evidence
from medvol.policies.endpoint import EndpointPolicy
from medvol.policies.endpoint_parts.settings import RequestSettings
from medvol.policies.endpoint_parts.spending import BoundReachedError, Spending

AT_RANDOM = Sampling(temperature=0.8, max_new_tokens=50, seed=7)


def test_slices_come_first_each_after_its_tag_then_instruction_and_query(connect, prompts):
    with ChatServer() as server:
        ((answer,),) = connect(server).generate(prompts[:1])
    assert answer.text == ANSWER
    assert server.paths == ["/v1/chat/completions"]
    ((message,),) = [request["messages"] for request in server.requests]
    assert message["role"] == "user"
    *drawn, last = message["content"]
    assert [part["text"] for part in drawn[::2]] == ["<slice 0>", "<slice 2>", "<slice 3>"]
    assert last == {"type": "text", "text": "box the target\nthe liver"}
    for part, pixels in zip(drawn[1::2], prompts[0].slices.pixels, strict=True):
        start, _, data = part["image_url"]["url"].partition(",")
        assert (part["type"], start) == ("image_url", "data:image/png;base64")
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        assert shown.shape == (8, 16, 3)
        assert np.abs(shown / 255 - pixels.transpose(1, 2, 0)).max() <= 0.5 / 255 + 1e-6


def test_sampling_is_passed_on(connect, prompts):
    with ChatServer() as server:
        connect(server).generate(prompts[:1], 2, AT_RANDOM)
    asked = {name: value for name, value in server.requests[0].items() if name != "messages"}
    expected = {"model": "served/model", "temperature": 0.8, "max_tokens": 50, "seed": 7, "n": 2, "logprobs": True}
    assert asked == expected


def test_a_model_that_reasons_first_is_given_more_tokens(connect, prompts):
    with ChatServer() as server:
        connect(server, max_new_tokens=4000).generate(prompts[:1], 2, AT_RANDOM)
    assert server.requests[0]["max_tokens"] == 4000


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://127.0.0.1:1", "of no kind"])
def test_what_stays_on_this_machine_passes_no_proxy(connect, prompts, monkeypatch, proxy):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with ChatServer() as server:
        ((answer,),) = connect(server).generate(prompts[:1])
        assert answer.text == ANSWER
        by_name = EndpointPolicy(server.url.replace("127.0.0.1", "localhost"), "m", requests=RequestSettings(retries=0))
        assert by_name.generate(prompts[:1])[0][0].text == ANSWER


def test_greedy_samples_are_asked_for_once(connect, prompts):
    with ChatServer() as server:
        rows = connect(server).generate(prompts, 3)
    assert [len(row) for row in rows] == [3, 3, 3]
    assert len(server.requests) == 3
    assert "n" not in server.requests[0]


def test_log_probabilities_are_taken_where_they_are_given(connect, prompts):
    odd = [chat("c", log_probs=row) for row in ([-0.5, 0.1], [None], [True], [])]
    with ChatServer(chat("a", log_probs=[-0.5, -0.25]), chat("b"), *odd) as server:
        policy = connect(server)
        told, silent, *wrong = (policy.generate(prompts[:1])[0][0] for _ in range(6))
    assert told.log_probs.tolist() == [-0.5, -0.25]
    assert told.token_ids.tolist() == [-1, -1]
    assert silent.log_probs is None
    assert silent.token_ids.shape == (0,)
    assert [answer.log_probs for answer in wrong] == [None] * 4


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize(
    ("thought", "content", "read"),
    [
        ("a cube", "<answer>[]</answer>", "<think>a cube</think><answer>[]</answer>"),
        ("a cube", "<think>b</think><answer>[]</answer>", "<think>b</think><answer>[]</answer>"),
        ("first <answer>[]</answer>?", "<answer>[]</answer>", "<answer>[]</answer>"),
        ("long" * 2048, "<answer>[]</answer>", "<answer>[]</answer>"),
        (None, "<answer>[]</answer>", "<answer>[]</answer>"),
        (["a"], "<answer>[]</answer>", "<answer>[]</answer>"),
    ],
)
def test_a_think_block_that_the_server_gives_apart_is_put_back(connect, prompts, name, thought, content, read):
    with ChatServer(chat(content, **{name: thought})) as server:
        ((answer,),) = connect(server).generate(prompts[:1])
    assert answer.text == read


def test_a_server_that_gives_one_choice_is_asked_again_for_each_and_remembered(connect, prompts):
    def one(request):
        return plain({**request, "n": 1})

    with ChatServer(one) as server:
        policy = connect(server)
        (row,) = policy.generate(prompts[:1], 3, AT_RANDOM)
        assert len({completion.text for completion in row}) == 3
        assert [(request.get("n"), request["seed"]) for request in server.requests[:1]] == [(3, 7)]
        assert sorted((request.get("n", 0), request["seed"]) for request in server.requests[1:]) == [(0, 8), (0, 9)]
        (again,) = policy.generate(prompts[:1], 3, AT_RANDOM)
        assert [completion.text for completion in again] == [completion.text for completion in row]
        assert all("n" not in request for request in server.requests[3:])
        assert len(server.requests) == 6


def test_a_server_that_refuses_several_choices_is_asked_for_each(connect, prompts):
    def one(request):
        return Reply({"error": {"message": "only one"}}, 400) if "n" in request else plain(request)

    with ChatServer(one) as server:
        (row,) = connect(server).generate(prompts[:1], 2, AT_RANDOM)
    assert len(row) == 2
    assert sorted(request["seed"] for request in server.requests) == [7, 7, 8]


def test_more_choices_than_asked_for_are_cut(connect, prompts):
    with ChatServer(chat("a", "b", "c")) as server:
        (row,) = connect(server).generate(prompts[:1], 2, AT_RANDOM)
    assert [completion.text for completion in row] == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "refused", "instead"),
    [
        ("'logprobs' is not supported", "logprobs", None),
        ("extra field: seed", "seed", None),
        ("use 'max_completion_tokens' instead", "max_tokens", ("max_completion_tokens", 50)),
    ],
)
def test_a_field_that_a_server_refuses_by_name_is_changed(connect, prompts, caplog, words, refused, instead):
    def picky(request):
        return Reply({"error": {"message": words}}, 400) if refused in request else chat(ANSWER)

    with ChatServer(picky) as server:
        policy = connect(server)
        policy.generate(prompts, 1, AT_RANDOM)
        policy.generate(prompts[:1], 1, AT_RANDOM)
    assert refused not in server.requests[-1]
    assert instead is None or instead in server.requests[-1].items()
    assert len(server.requests) <= 3 + 3 + 1
    assert caplog.text.count(f"refuses '{refused}'") == (instead is None)


def test_no_more_requests_than_allowed_are_under_way(connect, prompts):
    def slow(request):
        return Reply(chat(ANSWER).content, delay_s=0.1)

    with ChatServer(slow) as server:
        connect(server, {"concurrency": 2}).generate(prompts * 3)
    assert len(server.requests) == 9
    assert server.most_at_once == 2


@pytest.mark.parametrize(
    ("bound", "sent"), [({"max_requests": 2}, 2), ({"max_tokens": 150}, 2), ({"max_tokens": 1}, 1)]
)
def test_beyond_a_bound_questions_fail_and_nothing_is_sent(connect, prompts, bound, sent, caplog):
    usage = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
    ((name, value),) = bound.items()
    with ChatServer(chat(ANSWER, usage=usage)) as server:
        policy = connect(server, {"concurrency": 1, **bound})
        with pytest.raises(PolicyError, match=rf"policy\.requests\.{name} is {value} and is reached; raise it, or"):
            policy.generate(prompts)
        answered = 0
        for prompt in prompts:
            with suppress(PolicyError):
                answered += len(policy.generate([prompt]))
    assert (len(server.requests), answered) == (sent, sent)
    warnings = [record.getMessage() for record in caplog.records if "nothing more is asked" in record.getMessage()]
    assert warnings == [
        f"policy.requests.{name} is {value} and is reached, with {sent} requests and {100 * sent} tokens: nothing more "
        "is asked, and further questions count as failed"
    ]


def test_time_is_counted_from_the_first_request():
    now = [1000.0]
    spending = Spending(RequestSettings(max_time_s=60), clock=lambda: now[0])
    spending.begin()
    now[0] += 59
    spending.begin()
    now[0] += 1
    with pytest.raises(BoundReachedError, match=r"max_time_s is 60 and is reached"):
        spending.begin()
    assert spending.requests == 2


def test_tokens_cannot_be_bounded_where_they_are_not_counted(connect, prompts):
    with ChatServer() as server, pytest.raises(ConfigError, match="does not say how many tokens"):
        connect(server, {"max_tokens": 100}).generate(prompts[:1])


def test_one_prompt_that_fails_costs_the_others_nothing(connect, prompts):
    def picky(request):
        asked = request["messages"][0]["content"][-1]["text"]
        return Reply({"error": "no spleens here"}, 400) if "spleen" in asked else chat(ANSWER)

    with ChatServer(picky) as server:
        policy = connect(server)
        with pytest.raises(PolicyError, match="no spleens here"):
            policy.generate(prompts)
        ((first,),) = policy.generate(prompts[:1])
        with pytest.raises(PolicyError, match="no spleens here"):
            policy.generate(prompts[1:2])
        assert first.text == ANSWER
        assert len(server.requests) == 3
        policy.generate(prompts[:1])  # what was kept is used up
        assert len(server.requests) == 4


def test_what_was_kept_is_given_for_the_same_question_alone(connect, prompts):
    with ChatServer(Reply(status=400), *[plain] * 5) as server:
        policy = connect(server, {"concurrency": 1})
        with pytest.raises(PolicyError):
            policy.generate(prompts)
        policy.generate(prompts[2:], 1, AT_RANDOM)
        assert len(server.requests) == 4


def test_a_stop_ends_what_is_under_way(connect, prompts):
    with ChatServer(Reply(delay_s=30)) as server:

        def stop():
            wait_until(lambda: len(server.requests) == 3)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=stop).start()
        with pytest.raises(KeyboardInterrupt):
            connect(server, {"timeout_s": 25}).generate(prompts)
        wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("medvol-endpoint")], 5)


def test_it_works_where_a_loop_runs_already_as_in_a_notebook(connect, prompts):
    async def cell():
        return connect(server).generate(prompts[:1])

    with ChatServer() as server:
        ((answer,),) = asyncio.run(cell())
    assert answer.text == ANSWER


# Slices of 8 x 16 px: x counts 1000/16 = 62.5 a pixel, y 1000/8 = 125.
PIXELS = {
    "[[4, 2, 12, 6]]": "[[250, 250, 750, 750]]",
    "[[4.0, 2.5, 12, 6], [0,0,99,99]]": "[[250, 313, 750, 750], [0, 0, 1000, 1000]]",
    "[[12, 2, 4, 6]]": "[[12, 2, 4, 6]]",
    "[[-1, 2, 4, 6]]": "[[-1, 2, 4, 6]]",
}


@pytest.mark.parametrize(("said", "read"), PIXELS.items())
def test_boxes_in_pixels_come_to_the_grammars_units(connect, prompts, said, read):
    text = '<think>near [4, 2, 12, 6]</think><answer>[{{"slice": 2, "bbox_2d_list": {}}}]</answer>'
    with ChatServer(chat(text.format(said))) as server:
        ((answer,),) = connect(server, box_units="pixels").generate(prompts[:1])
        ((plainly,),) = connect(server).generate(prompts[:1])
    assert answer.text == text.format(read)
    assert plainly.text == text.format(said)


def test_pixels_reach_the_volume_at_their_place(connect, prompts):
    with ChatServer(chat('<answer>[{"slice": 2, "bbox_2d_list": [[4, 2, 12, 6]]}]</answer>')) as server:
        ((answer,),) = connect(server, box_units="pixels").generate(prompts[:1])
    # shown as 8 x 16, stored as 30 x 40: x by 2.5, y by 3.75
    assert parse_evidence(answer.text, (4, 30, 40)).boxes.tolist() == [[10.0, 7.5, 30.0, 22.5]]


def test_the_default_instruction_names_the_units():
    thousandths, pixels = (
        EndpointPolicy("http://127.0.0.1:1", "m", box_units=units).template for units in ("thousandths", "pixels")
    )
    assert "integers from 0 to 1000" in thousandths.instruction
    assert "1000" not in pixels.instruction
    assert "in pixels of the slice" in pixels.instruction


def test_identity_holds_what_changes_an_answer(prompts):
    policy = EndpointPolicy("https://host:8443/v1", "m", key_variable="MY_KEY", requests=RequestSettings(concurrency=9))
    said = dict(policy.identity())
    assert said.pop("distribution").startswith("medvol-r1 ")
    expected = {"url": "https://host:8443/v1", "model": "m", "template": None, "box_units": "thousandths"}
    expected["max_new_tokens"] = None
    assert said == {"name": "EndpointPolicy", **expected}


@pytest.mark.parametrize(
    ("settings", "message", "hidden"),
    [
        ({"url": "http://me:pa55@host/v1"}, "holds a user, a password or a query", "pa55"),
        ({"url": "https://host/v1?key=pa55"}, "holds a user, a password or a query", "pa55"),
        ({"url": "localhost:8000/v1"}, "got 'localhost:8000/v1'", ""),
        ({"url": "me:pa55@host:8000/v1"}, "got something that is none", "pa55"),
        ({"url": "host/v1?key=pa55"}, "a user, a password or a query", "pa55"),
        ({"url": "ftp:pa55@host"}, "got something that is none", "pa55"),
        ({"url": "http://host:port/v1"}, "address of a server", ""),
        ({"url": "http://host/v1\n"}, "address of a server", ""),
        ({"url": ""}, "address of a server", ""),
        ({"model": " "}, "model is empty", ""),
        ({"key_variable": "sk-pa55"}, "key_variable names an environment variable", "pa55"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0", ""),
        ({"box_units": "inches"}, "thousandths or pixels", ""),
    ],
)
def test_settings_that_cannot_be_used(settings, message, hidden):
    with pytest.raises(ConfigError, match=message) as caught:
        EndpointPolicy(**{"url": "http://127.0.0.1:1/v1", "model": "m", **settings})
    assert not hidden or hidden not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": 0},
        {"timeout_s": 0},
        {"case_timeout_s": 0},
        {"retries": -1},
        {"max_requests": 0},
        {"max_tokens": 0},
        {"max_time_s": 0},
    ],
)
def test_requests_have_limits(settings):
    with pytest.raises(ConfigError, match=f"requests.{next(iter(settings))} is"):
        RequestSettings(**settings)
