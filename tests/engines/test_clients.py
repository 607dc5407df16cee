from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from modelyard.engines import (
    ENGINES,
    Engine,
    LlamaCppServer,
    OllamaServer,
    PyTorchServer,
    StreamBroken,
    TorchServeServer,
    VLLMServer,
)
from modelyard.engines.http import NotReachable, message_of
from modelyard.errors import EngineError, InvalidInput, ModelyardError, NotFound, Unavailable

from .support import Scripted, scripted_engine

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
PROMPT: dict[str, Any] = {"prompt": "hi", "options": {"num_predict": 3}}
INPUT: dict[str, Any] = {"input": "hi"}
TENSORS: dict[str, Any] = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}


CLASSES: dict[str, Callable[[str], Engine]] = {
    "pytorch": PyTorchServer,
    "vllm": VLLMServer,
    "ollama": OllamaServer,
    "llamacpp": LlamaCppServer,
    "torchserve": TorchServeServer,
}


def test_the_engines_are_listed_under_their_names() -> None:
    assert CLASSES == ENGINES
    assert all(engine.name == name for name, engine in ENGINES.items())


def build(name: str, url: str) -> Engine:
    return CLASSES[name](url)


OPENAI = [(CHAT, "/v1/chat/completions"), (PROMPT, "/v1/completions"), (INPUT, "/v1/embeddings")]
CALLS = [
    *[("vllm", request, path, {**request, "model": "ns/m:v1.0.0"}) for request, path in OPENAI],
    *[("llamacpp", request, path, {**request, "model": "ns/m:v1.0.0"}) for request, path in OPENAI],
    *[
        ("ollama", request, path, {**request, "model": "ns/m:v1.0.0", "stream": False})
        for request, path in [(CHAT, "/api/chat"), (PROMPT, "/api/generate"), (INPUT, "/api/embed")]
    ],
    ("pytorch", TENSORS, "/v2/models/ns/m:v1.0.0/infer", TENSORS),
    ("pytorch", INPUT, "/v1/embeddings", {**INPUT, "model": "ns/m:v1.0.0"}),
    ("pytorch", {"data": [1]}, "/predictions/ns/m:v1.0.0", {"data": [1]}),
    ("torchserve", TENSORS, "/v2/models/ns/m:v1.0.0/infer", TENSORS),
    ("torchserve", {"input": "hi"}, "/predictions/ns/m:v1.0.0", {"input": "hi"}),
]


@pytest.mark.parametrize(("name", "request_data", "path", "sent"), CALLS)
def test_each_request_goes_to_its_endpoint(name: str, request_data: Any, path: str, sent: Any) -> None:
    script = Scripted(body=b'{"answer": 42}')
    with scripted_engine(script) as url:
        assert build(name, url).predict("ns/m:v1.0.0", request_data) == {"answer": 42}
    assert script.asked == [(path, sent)]


def test_a_name_cannot_leave_its_place_in_the_path() -> None:
    script = Scripted()
    with scripted_engine(script) as url:
        PyTorchServer(url).predict("a b?c#d", TENSORS)
    assert script.asked[0][0] == "/v2/models/a%20b%3Fc%23d/infer"


@pytest.mark.parametrize("server", [PyTorchServer, TorchServeServer])
def test_a_handler_of_torchserve_may_answer_with_any_value(server: type[Engine]) -> None:
    with scripted_engine(Scripted(body=b"[1, 2]")) as url:
        assert server(url).predict("m", {"data": 1}) == {"predictions": [1, 2]}


ANSWERS: list[tuple[int, bytes, type[ModelyardError], str]] = [
    (400, b'{"error": {"message": "bad\\nrequest", "type": "x"}}', InvalidInput, "answered 400: bad request"),
    (404, b'{"error": "model \'m\' not found"}', NotFound, "model 'm' not found"),
    (422, b'{"detail": "no such field"}', InvalidInput, "no such field"),
    (429, b'{"error": "busy"}', Unavailable, "busy"),
    (500, b'{"code": 500, "message": "worker died"}', EngineError, "worker died"),
    (503, b"no healthy upstream", Unavailable, "no healthy upstream"),
    (502, b"", EngineError, "no reason given"),
    (200, b"<html>", EngineError, "not JSON"),
    (200, b"[]", EngineError, "a list where an object was expected"),
]


@pytest.mark.parametrize("name", sorted(ENGINES))
@pytest.mark.parametrize(("status", "body", "kind", "expected"), ANSWERS)
def test_an_engines_errors_become_ours(
    name: str, status: int, body: bytes, kind: type[ModelyardError], expected: str
) -> None:
    with scripted_engine(Scripted(status, body)) as url, pytest.raises(kind) as caught:
        build(name, url).predict("m", TENSORS if name == "torchserve" else INPUT)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_an_engine_that_is_not_there(name: str) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(NotReachable, match=f"answers at {url}; start"):
            build(name, url).predict("m", INPUT)


def test_an_engine_that_does_not_answer_in_time() -> None:
    script = Scripted(status=0)
    with scripted_engine(script) as url:
        with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s") as caught:
            VLLMServer(url, timeout_s=0.2).predict("m", CHAT)
        assert not isinstance(caught.value, NotReachable)
        script.release.set()
        with pytest.raises(EngineError, match="cut the connection"):
            VLLMServer(url).predict("m", CHAT)


@pytest.mark.parametrize(
    ("url", "request_data", "expected"),
    [
        ("http://127.0.0.1:1", {"text": "hi"}, "none of the keys messages, prompt, input"),
        ("http://127.0.0.1:1", {**CHAT, "stream": True}, "predict gives whole answers"),
        ("http://127.0.0.1:1", {"input": {1, 2}}, "can't be written as JSON"),
        ("http://127.0.0.1:1", {"input": float("nan")}, "can't be written as JSON"),
        ("localhost:8000", CHAT, "'localhost:8000' is not an address"),
        ("http://a:b:c", CHAT, "'http://a:b:c' is not an address"),
    ],
)
def test_requests_and_addresses_that_cannot_be_taken(url: str, request_data: Any, expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected):
        VLLMServer(url).predict("m", request_data)


def test_messages_are_one_bounded_line() -> None:
    assert message_of("a\n  b") == "a b"
    assert len(message_of("x" * 10_000)) == 500
    assert message_of('{"error": {"code": 7}}') == '{"code": 7}'


SSE = b': hello\n\ndata: {"n": 1}\n\nevent: x\ndata: {"n": 2}\n\n'
LINES = b'{"n": 1}\n\n{"n": 2}\n'
STREAMS = [("vllm", SSE, b"data: [DONE]\n\n", 0), ("llamacpp", SSE, b"data:[DONE]\n\n", 0)]
STREAMS += [("ollama", LINES, b'{"done": true}\n', 1)]


def streaming(name: str, url: str) -> VLLMServer | LlamaCppServer | OllamaServer:
    server = build(name, url)
    assert isinstance(server, VLLMServer | LlamaCppServer | OllamaServer)
    return server


@pytest.mark.parametrize(("name", "body", "end", "more"), STREAMS)
def test_a_stream_gives_its_pieces(name: str, body: bytes, end: bytes, more: int) -> None:
    script = Scripted(body=body + end)
    with scripted_engine(script) as url:
        pieces = list(streaming(name, url).stream("m", CHAT))
    assert pieces[:2] == [{"n": 1}, {"n": 2}]
    assert len(pieces) == 2 + more
    assert script.asked[0][1] == {**CHAT, "model": "m", "stream": True}


@pytest.mark.parametrize(("name", "body", "end", "more"), STREAMS)
@pytest.mark.parametrize("declared", [None, 5_000], ids=["it ends", "its connection breaks"])
def test_a_stream_without_its_end_is_broken(
    name: str, body: bytes, end: bytes, more: int, declared: int | None
) -> None:
    pieces = []
    with scripted_engine(Scripted(body=body, declared=declared)) as url, pytest.raises(StreamBroken, match="broke"):
        for piece in streaming(name, url).stream("m", CHAT):
            pieces.append(piece)  # noqa: PERF402 - what came before the error counts
    assert pieces == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("name", "line", "kind", "said"),
    [
        ("vllm", b'data: {"error": {"message": "out of memory"}}\n', EngineError, "amid its answer: out of memory"),
        ("llamacpp", b'error: {"error": {"message": "too long"}}\n', EngineError, "too long"),
        ("ollama", b'{"error": "runner stopped"}\n', EngineError, "runner stopped"),
        ("vllm", b"data: {\n", StreamBroken, "not JSON"),
        ("ollama", b"[]\n", StreamBroken, "no object"),
    ],
)
def test_an_error_amid_a_stream_is_named(name: str, line: bytes, kind: type[ModelyardError], said: str) -> None:
    with scripted_engine(Scripted(body=line)) as url, pytest.raises(kind, match=said):
        list(streaming(name, url).stream("m", CHAT))


@pytest.mark.parametrize("name", ["vllm", "llamacpp", "ollama"])
@pytest.mark.parametrize(("status", "body", "kind", "expected"), [each for each in ANSWERS if each[0] != 200])
def test_a_stream_that_is_refused(
    name: str, status: int, body: bytes, kind: type[ModelyardError], expected: str
) -> None:
    with scripted_engine(Scripted(status, body)) as url, pytest.raises(kind, match=expected):
        next(streaming(name, url).stream("m", CHAT))


def test_embeddings_are_not_streamed() -> None:
    with pytest.raises(InvalidInput, match="none of the keys messages, prompt"):
        next(VLLMServer("http://127.0.0.1:1").stream("m", INPUT))
