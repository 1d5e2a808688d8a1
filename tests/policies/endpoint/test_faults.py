"""Everything that a server can do wrong: each is one sentence, of the prompt alone; and what is tried again."""

import asyncio
import time
from email.utils import formatdate

import pytest
from chat_server import ANSWER, ChatServer, Reply, chat

from medvol.core.errors import PolicyError
from medvol.core.types import Sampling
from medvol.policies.endpoint_parts.asker import Asker
from medvol.policies.endpoint_parts.connection import Connection
from medvol.policies.endpoint_parts.dialect import Dialect
from medvol.policies.endpoint_parts.key import Key
from medvol.policies.endpoint_parts.settings import RequestSettings
from medvol.policies.endpoint_parts.spending import Spending


def error(status: int, words: object, **headers: str) -> Reply:
    return Reply({"error": {"message": words, "code": 7}}, status, headers)


FAULTS = {
    "400": (error(400, "too many images"), 'answered 400 (Bad Request): "too many images"; check policy.model'),
    "401": (error(401, "no key"), 'answered 401 (Unauthorized): "no key"; put a key of this server into the'),
    "403": (error(403, "not yours"), 'answered 403 (Forbidden): "not yours"; the key in OPENAI_API_KEY may not use'),
    "404": (Reply({"detail": "Not Found"}, 404), 'answered 404 (Not Found): "Not Found"; check policy.url, which'),
    "413": (Reply(b"<html>big</html>", 413), '<html>big</html>"; draw fewer or smaller slices'),
    "422": (Reply({"detail": [{"loc": ["n"]}]}, 422), "answered 422 (Unprocessable"),
    "429": (
        error(429, "slow down"),
        'answered 429 (Too Many Requests): "slow down"; lower policy.requests.concurrency',
    ),
    "500": (error(500, "boom"), 'answered 500 (Internal Server Error): "boom"; look into the server'),
    "503": (Reply(b"", 503), "answered 503 (Service Unavailable); look into the server"),
    "599": (Reply(b"", 599), "answered 599; look into the server"),
    "418": (Reply(b"", 418), "check policy.url and policy.model"),
    "control characters": (error(500, "a\x1b[31mb\nc\u202e"), r': "a\x1b[31mb c\u202e"; look'),
    "long words": (error(500, "word " * 5000), 'word wo..."; look'),
    "endless words": (Reply(b"x" * 3_000_000, 500), 'xxx..."; look'),
    "redirect": (
        Reply(b"", 307, {"Location": "http://elsewhere.test/v1?token=t0ken"}),
        "sends the request on to http://elsewhere.test/v1 (307 (Temporary Redirect)), which is not followed; give",
    ),
    "not JSON": (Reply(b"hello"), 'answered 200 (OK) with something that is not JSON: "hello"; check that policy.url'),
    "event stream": (Reply(b"data: {}\n\n"), "not JSON"),
    "no UTF-8": (Reply(b"\xff\xfe{"), "not JSON"),
    "not a number": (Reply(b'{"choices": NaN}'), "not JSON"),
    "deep": (Reply(b"[" * 100_000), "not JSON"),
    "other JSON": (Reply([1, 2]), 'answered without choices: "[1, 2]"; check'),
    "error in a success": (
        Reply({"error": {"message": "overloaded"}}),
        'answered without choices: "overloaded"; check',
    ),
    "too few choices": (chat(), "answered with too few choices: none; ask otherwise"),
    "choice without a message": (Reply({"choices": [{"text": "x"}]}), "a choice that has no message"),
    "choice of the wrong type": (Reply({"choices": ["x"]}), "a choice that has no message"),
    "empty": (chat(""), "gave an empty answer (finish_reason stop); raise policy.max_new_tokens"),
    "blank": (chat(" \n"), "gave an empty answer"),
    "null": (chat(None), "gave an empty answer"),
    "wrong type": (
        chat([{"type": "text", "text": ANSWER}]),
        "gave an answer of the type list, which is no text; check",
    ),
    "number": (chat(7), "of the type int, which is no text"),
    "refusal": (chat(None, refusal="I cannot"), 'refused to answer (finish_reason stop): "I cannot"; ask otherwise'),
    "over-long": (Reply(b"[" + b" " * 2_000_000 + b"]"), "with more than"),
    "cut": (Reply(b'{"choices": [', promised=50), "broke off before its answer was whole"),
    "hang": (Reply(delay_s=30), "did not answer within 0.4 s; raise policy.requests.timeout_s"),
}


@pytest.mark.parametrize(("reply", "sentence"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_sentence_and_harms_no_other_prompt(connect, prompts, reply, sentence):
    def picky(request):
        return reply if "spleen" in request["messages"][0]["content"][-1]["text"] else chat(ANSWER)

    with ChatServer(picky) as server:
        policy = connect(server, {"timeout_s": 0.4 if reply.delay_s else 20.0})
        with pytest.raises(PolicyError) as caught:
            policy.generate(prompts)
        said = str(caught.value)
        assert said.startswith(f"{server.url} ")
        assert sentence in said
        assert len(said) < 700
        assert said.isprintable()
        assert "t0ken" not in said
        kept = [policy.generate([prompt])[0][0].text for prompt in (prompts[0], prompts[2])]
    assert kept == [ANSWER, ANSWER]
    assert len(server.requests) == 3


def test_a_server_that_is_not_there(connect, prompts):
    with ChatServer() as server:
        policy = connect(server)
    with pytest.raises(PolicyError, match=r"cannot be reached: .*; start the server, or check policy.url"):
        policy.generate(prompts[:1])


def test_half_a_letter_is_replaced(connect, prompts):
    with ChatServer(Reply(b'{"choices": [{"message": {"content": "a\\ud800b"}}]}')) as server:
        ((answer,),) = connect(server).generate(prompts[:1])
    assert answer.text == "a?b"


def test_an_answer_that_was_cut_says_what_to_raise(connect, prompts, caplog):
    def choice(content, finish):
        return Reply({"choices": [{"finish_reason": finish, "message": {"content": content}}]})

    with ChatServer(
        choice("<think>long", "length"), choice("<think>long", "length"), choice(ANSWER, "length")
    ) as server:
        said = [connect(server).generate([prompt])[0][0].text for prompt in prompts]
    assert said == ["<think>long", "<think>long", ANSWER]
    sentence = f"{server.url} cut an answer at 256 tokens (finish_reason length); raise policy.max_new_tokens"
    assert [record.getMessage().startswith(sentence) for record in caplog.records] == [True]


def ask(server, prompt, settings, pauses, n=1, sampling=None, dialect=None):
    """What becomes of one prompt; pauses are noted and not waited for."""

    async def pause(seconds):
        pauses.append(seconds)

    async def run():
        async with Connection(server.url, Key(None, server.url), settings.timeout_s) as connection:
            asker = Asker(connection, "m", settings, Spending(settings), dialect or Dialect(), pause)
            return await asker.ask(prompt, n, sampling or Sampling())

    return asyncio.run(run())


AGAIN = {
    "429": Reply(status=429),
    "500": Reply(status=500),
    "503": Reply(status=503),
    "408": Reply(status=408),
    "cut": Reply(b"{", promised=5),
    "hang": Reply(delay_s=30),
}


@pytest.mark.parametrize("reply", AGAIN.values(), ids=AGAIN)
def test_what_may_pass_is_tried_again_after_growing_pauses(prompts, reply):
    pauses: list[float] = []
    with ChatServer(reply, reply, reply, chat(ANSWER)) as server:
        (answer,) = ask(server, prompts[0], RequestSettings(retries=3, timeout_s=0.5 if reply.delay_s else 20), pauses)
    assert answer.text == ANSWER
    assert len(server.requests) == 4
    assert [low <= pause <= 2 * low for low, pause in zip((0.5, 1, 2), pauses, strict=True)] == [True] * 3


@pytest.mark.parametrize("silence", [Reply(delay_s=30), Reply(b"{", promised=5)], ids=["hang", "cut"])
def test_a_server_that_fell_silent_is_tried_once_a_question_until_it_answers(prompts, silence):
    """Its tries and pauses are not paid for again with every case."""
    dialect, pauses, settings = Dialect(), [], RequestSettings(retries=2, timeout_s=0.3)
    with ChatServer(*[silence] * 5, chat(ANSWER), silence, chat(ANSWER)) as server:
        failed = [ask(server, prompts[0], settings, pauses, dialect=dialect) for _ in range(3)]
        assert ["tried 3 times" in str(failure) for failure in failed] == [True, False, False]
        assert len(server.requests) == 5
        for _ in range(2):
            (answer,) = ask(server, prompts[0], settings, pauses, dialect=dialect)
            assert answer.text == ANSWER
    assert len(server.requests) == 8
    assert len(pauses) == 3


def test_a_question_that_hangs_to_its_end_is_silence_too(prompts):
    dialect = Dialect()
    with ChatServer(Reply(delay_s=30)) as server:
        ask(server, prompts[0], RequestSettings(case_timeout_s=0.3), [], dialect=dialect)
    assert not dialect.there


def test_a_server_that_fails_in_words_keeps_its_tries(prompts):
    dialect = Dialect()
    with ChatServer(Reply(status=503)) as server:
        for _ in range(2):
            ask(server, prompts[0], RequestSettings(retries=1), [], dialect=dialect)
    assert len(server.requests) == 4


def test_pauses_are_by_chance(prompts):
    pauses: list[float] = []
    with ChatServer(Reply(status=500)) as server:
        for _ in range(3):
            ask(server, prompts[0], RequestSettings(retries=1), pauses)
    assert len(set(pauses)) == 3


def test_tries_end_and_are_counted(prompts):
    pauses: list[float] = []
    with ChatServer(error(500, "boom")) as server:
        failed = ask(server, prompts[0], RequestSettings(retries=2), pauses)
    assert len(server.requests) == 3
    assert len(pauses) == 2
    assert '500 (Internal Server Error): "boom" (tried 3 times); look into' in str(failed)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_what_will_not_pass_is_not_tried_again(prompts, status):
    pauses: list[float] = []
    with ChatServer(Reply(status=status)) as server:
        assert isinstance(ask(server, prompts[0], RequestSettings(retries=4), pauses), PolicyError)
    assert (len(server.requests), pauses) == (1, [])


@pytest.mark.parametrize("said", ["30", "30.0", "date"])
def test_a_server_that_asks_to_wait_is_obeyed(prompts, said):
    pauses: list[float] = []
    value = formatdate(time.time() + 31, usegmt=True) if said == "date" else said
    with ChatServer(Reply(status=429, headers={"Retry-After": value}), chat(ANSWER)) as server:
        (answer,) = ask(server, prompts[0], RequestSettings(), pauses)
    assert answer.text == ANSWER
    assert 25 <= pauses[0] <= 31.5


@pytest.mark.parametrize("said", ["soon", "-5", "nan", "Thu, 99 Foo 2000"])
def test_a_wait_that_means_nothing_is_passed_over(prompts, said):
    pauses: list[float] = []
    with ChatServer(Reply(status=429, headers={"Retry-After": said}), chat(ANSWER)) as server:
        ask(server, prompts[0], RequestSettings(), pauses)
    assert 0.5 <= pauses[0] <= 1


def test_a_wait_beyond_the_time_of_a_question_ends_it(prompts):
    pauses: list[float] = []
    with ChatServer(error(429, "slow down", **{"Retry-After": "3600"})) as server:
        failed = ask(server, prompts[0], RequestSettings(case_timeout_s=60), pauses)
    assert pauses == []
    assert '"slow down", and another try is 3600 s away, too late for this question; lower' in str(failed)


def test_a_question_has_a_time_of_its_own(prompts):
    with ChatServer(Reply(delay_s=30)) as server:
        failed = ask(server, prompts[0], RequestSettings(case_timeout_s=0.4), [])
    assert "did not answer the question within 0.4 s, all tries included; raise policy.requests.case_ti" in str(failed)


def test_one_sample_that_fails_fails_the_prompt(prompts):
    with ChatServer(chat("one"), Reply(status=400)) as server:
        failed = ask(server, prompts[0], RequestSettings(), [], 3, Sampling(temperature=1.0))
    assert "answered 400" in str(failed)
