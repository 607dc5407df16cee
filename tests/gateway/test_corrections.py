"""What an engine calls its own failure although the client is wrong: the client is told, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from engines.support import Scripted, scripted_engine
from modelyard.gateway import Endpoint, Gateway, Route, RouteTable
from modelyard.gateway.statistics import Served
from modelyard.settings import GatewaySettings

from .upstreams import Client, Upstream, backend, wait_for

Start = Callable[[str], Upstream]
CHAT = Served("chat", "v1.0.0", "production")
UNREAD = 'Failed to parse messages: {"a": "ü\\n✓"} \\" "}'


def apply(gateway: Gateway, endpoint: Endpoint, *, engine: str = "llamacpp", fallback: tuple[str, ...] = ()) -> None:
    one, spare = replace(backend("chat", endpoint), engine=engine), backend("spare")
    routes = (Route(("chat",), ((one.id, 1),), fallback=fallback), Route(("spare",), ((spare.id, 1),)))
    gateway.apply(RouteTable((one, spare), routes))


def at(url: str) -> Endpoint:
    address = httpx.URL(url)
    return Endpoint(address.host, address.port or 80)


def said(status: int, message: str, kind: str = "server_error") -> Scripted:
    """As llama.cpp writes it."""
    return Scripted(status, json.dumps({"error": {"code": status, "message": message, "type": kind}}).encode())


@pytest.mark.parametrize("fallback", [(), ("spare",)])
@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (501, "This server does not support embeddings.", "not_supported"),
        (501, "", "not_supported"),
        (500, UNREAD, "invalid_request"),
        (500, "Failed to parse tools: " + "[1, 2], " * 250_000, "invalid_request"),
        (500, "image input is not supported - hint: none", "invalid_request"),
    ],
)
def test_a_clients_mistake_is_called_one_in_the_engines_words(
    gateway: Gateway, client: Client, status: int, message: str, code: str, fallback: tuple[str, ...]
) -> None:
    with scripted_engine(said(status, message)) as url:
        apply(gateway, at(url), fallback=fallback)
        answer = client.post("chat")
    assert answer.status == 400
    wanted = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    assert answer.error() == wanted
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["x-modelyard-model"].startswith("chat:v1.0.0@")
    wait_for(lambda: gateway.statistics().requests == {(CHAT, 400): 1})
    assert not gateway.statistics().failures


@pytest.mark.parametrize(
    "script",
    [
        said(500, "Compute error."),
        said(500, 'it said: "Failed to parse messages: "'),
        said(503, "Failed to parse messages: too late"),
        said(400, "Failed to parse messages: as it should be"),
        Scripted(500, b"Failed to parse messages: "),
        Scripted(500, b'{"error":{"message":"Failed to parse messages: '),
        Scripted(500, b'{"error":{"message":"Failed to parse messages: \\'),
        Scripted(500, b""),
        Scripted(200, b'{"message": "Failed to parse messages: "}'),
    ],
    ids=lambda script: f"{script.status} {script.body[:60]!r}",
)
def test_whatever_else_it_says_stays(gateway: Gateway, client: Client, script: Scripted) -> None:
    with scripted_engine(script) as url:
        apply(gateway, at(url))
        answer = client.post("chat")
    assert (answer.status, answer.body) == (script.status, script.body)
    wait_for(lambda: gateway.statistics().requests == {(CHAT, script.status): 1})
    assert gateway.statistics().failures == ({(CHAT, "engine_error"): 1} if script.status >= 500 else {})


def test_other_engines_are_taken_at_their_word(gateway: Gateway, client: Client) -> None:
    script = said(500, "Failed to parse messages: x")
    with scripted_engine(script) as url:
        apply(gateway, at(url), engine="pytorch")
        answer = client.post("chat")
    assert (answer.status, answer.body) == (500, script.body)


def test_streams_pass_piece_by_piece(gateway: Gateway, upstream: Start, settings: GatewaySettings) -> None:
    server = upstream("chat")
    apply(gateway, server.endpoint())
    url = f"http://127.0.0.1:{settings.port}/v1/chat/completions"
    body: dict[str, Any] = {"model": "chat", "stream": 3, "pause": True}
    with httpx.stream("POST", url, json=body, timeout=30) as answer:
        pieces = answer.iter_lines()
        assert next(pieces) == 'data: {"a": 1}'  # while the engine holds the rest back
        server.release.set()
        assert list(pieces)[-2:] == ["data: [DONE]", ""]
