"""Before a run: the key is there, and the server is there and takes it."""

import pytest
from chat_server import ANSWER, ChatServer, Reply, chat

from medvol.core.errors import ConfigError, MissingExtraError
from medvol.policies import endpoint


def test_a_server_is_looked_for_once_and_nothing_is_asked_of_the_model(connect, prompts):
    with ChatServer(chat(ANSWER)) as server:
        policy = connect(server)
        for _ in range(3):
            policy.require_ready()
        assert (server.paths, server.requests) == (["/v1/models"], [])
        policy.generate(prompts[:1])
    assert policy._spending.requests == 1


@pytest.mark.parametrize("status", [403, 404, 500, 501])
def test_a_server_that_does_not_tell_its_models_is_there(connect, status):
    with ChatServer(listing=Reply(status=status)) as server:
        connect(server).require_ready()


def test_a_key_that_the_server_does_not_take(connect, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-medvol-0123456789")
    sentence = r'answered 401 \(Unauthorized\): "who is \[key\]"; put a key of this server into .* OPENAI_API_KEY'
    refusing = ChatServer(listing=Reply({"error": "who is sk-medvol-0123456789"}, 401))
    with refusing as server, pytest.raises(ConfigError, match=sentence):
        connect(server).require_ready()
    assert server.headers[0]["Authorization"] == "Bearer sk-medvol-0123456789"


def test_a_variable_that_is_not_set_is_named(connect, monkeypatch):
    monkeypatch.setenv("SET_KEY", "sk-medvol-0123456789")
    with ChatServer() as server:
        with pytest.raises(ConfigError, match=r"names the environment variable NO_SUCH_KEY, which is not set; put"):
            connect(server, key_variable="NO_SUCH_KEY").require_ready()
        assert server.listed == 0
        for variable in ("SET_KEY", "OPENAI_API_KEY", None):
            connect(server, key_variable=variable).require_ready()
        assert server.listed == 3


def test_a_server_that_is_not_there_is_looked_for_again(connect):
    with ChatServer() as server:
        url, policy = server.url, connect(server)
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"^{url} cannot be reached: .*; start the server, or check policy\.url"):
            policy.require_ready()


@pytest.mark.parametrize(
    ("url", "variables"),
    [
        ("http://256.1.1.1/v1", {}),
        ("http://xn--/v1", {}),
        ("http://example.invalid/v1", {"ALL_PROXY": "ftp://127.0.0.1:1"}),
        ("http://example.invalid/v1", {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "[::1]:80"}),
        ("https://example.invalid/v1", {"SSL_CERT_FILE": "/no/such/file"}),
    ],
)
def test_what_no_request_can_be_made_with_is_named(monkeypatch, url, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ConfigError, match=rf"^{url} cannot be asked \(.*\); check the address, and in the environment "
    ):
        endpoint.EndpointPolicy(url, "m").require_ready()


def test_a_server_that_hangs(connect):
    sentence = r"did not answer within 0\.3 s; raise policy\.requests\.timeout_s"
    with ChatServer(listing=Reply(delay_s=30)) as server, pytest.raises(ConfigError, match=sentence):
        connect(server, {"timeout_s": 0.3}).require_ready()


def test_a_missing_library_is_named(connect, monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "medvol.policies.endpoint_parts.connection", raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r'pip install "medvol-r1\[endpoint\]"'):
        endpoint.EndpointPolicy("http://127.0.0.1:1/v1", "m").require_ready()
