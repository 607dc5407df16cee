"""What every engine keeps, on the real ones; Ollama's place is taken by a stand-in."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from modelyard.engines import LlamaCppServer, OllamaServer, StreamBroken, VLLMServer
from modelyard.errors import EngineError, InvalidInput, NotFound, Unavailable

from . import running
from .running import Running, answers
from .support import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.long, pytest.mark.timeout(600)]

LONG = {"prompt": "Once", "max_tokens": 200, "ignore_eos": True, "options": {"num_predict": 200}}
VLLM = pytest.param("vllm", marks=pytest.mark.side_environment)
TORCHSERVE = pytest.param("torchserve", marks=pytest.mark.side_environment)

every_engine = pytest.mark.parametrize("engine", ["pytorch", "llamacpp", "ollama", VLLM, TORCHSERVE], indirect=True)
that_modelyard_starts = pytest.mark.parametrize("engine", ["pytorch", "llamacpp", "ollama", VLLM], indirect=True)
that_has_many_models = pytest.mark.parametrize("engine", ["pytorch", "ollama", VLLM, TORCHSERVE], indirect=True)
for_language_models = pytest.mark.parametrize("engine", ["llamacpp", "ollama", VLLM], indirect=True)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Running]]:
    """Each is started when it is first asked for."""
    found: dict[str, Running] = {}
    with ExitStack() as stack:

        def get(name: str) -> Running:
            if name not in found:
                found[name] = stack.enter_context(getattr(running, name)(tmp_path_factory.mktemp(name)))
            return found[name]

        yield get


@pytest.fixture
def engine(request: pytest.FixtureRequest, engines: Callable[[str], Running]) -> Running:
    return engines(request.param)


@every_engine
def test_it_says_that_it_is_ready(engine: Running) -> None:
    assert answers(engine.ready_url)


@every_engine
def test_it_answers(engine: Running) -> None:
    answer = engine.client.predict(engine.model, engine.request)
    if "outputs" in answer:
        assert answer["outputs"][0]["data"] == [2.0, 4.0]
    else:
        assert said(answer)


@that_has_many_models
def test_a_model_that_it_does_not_have(engine: Running) -> None:
    with pytest.raises(NotFound) as caught:
        engine.client.predict("nobody", engine.request)
    assert "\n" not in str(caught.value)


@every_engine
def test_a_request_that_it_cannot_take(engine: Running) -> None:
    with pytest.raises((InvalidInput, EngineError, Unavailable)) as caught:
        engine.client.predict(engine.model, engine.wrong)
    assert "answered" in str(caught.value) and "\n" not in str(caught.value)


@for_language_models
def test_it_streams_what_it_answers(engine: Running) -> None:
    pieces = list(client_of(engine).stream(engine.model, engine.request))
    assert len(pieces) > 3
    assert "".join(map(said, pieces)) == said(engine.client.predict(engine.model, engine.request))


@for_language_models
def test_a_stream_that_it_refuses(engine: Running) -> None:
    with pytest.raises((InvalidInput, EngineError)):
        next(client_of(engine).stream(engine.model, engine.wrong))


@that_modelyard_starts
def test_its_process_is_found_by_the_replica(engine: Running) -> None:
    assert engine.process and engine.replica in psutil.Process(engine.process.pid).cmdline()


@pytest.mark.parametrize("engine", ["llamacpp", VLLM], indirect=True)
def test_who_stops_listening_ends_the_work(engine: Running) -> None:
    pieces = client_of(engine).stream(engine.model, LONG)
    next(pieces)
    assert requests_under_way(engine) == 1
    pieces.close()  # type: ignore[attr-defined]  # it is a generator
    wait_for(lambda: requests_under_way(engine) == 0)


@that_modelyard_starts
def test_it_finishes_its_stream_before_it_ends(engine: Running) -> None:
    """The last of those that share the engines."""
    assert engine.process
    begun: Iterator[dict[str, Any]] = iter(())
    if engine.name in ("llamacpp", "vllm"):
        begun = client_of(engine).stream(engine.model, LONG)
        next(begun)
    engine.process.send_signal(signal.SIGTERM)
    assert sum(1 for _ in begun) > 100 or engine.name in ("pytorch", "ollama")
    assert engine.process.wait(60) == 0
    assert not answers(engine.ready_url)


def test_a_stream_that_is_broken_off(tmp_path: Path) -> None:
    with running.llamacpp(tmp_path) as engine:
        assert engine.process
        pieces = client_of(engine).stream(engine.model, LONG)
        next(pieces)
        engine.process.kill()
        with pytest.raises(StreamBroken, match=r"llama\.cpp at http://127\.0\.0\.1:\d+ broke the stream off"):
            list(pieces)


@pytest.mark.side_environment
def test_torchserve_answers_what_its_handler_makes_of_an_object(tmp_path: Path) -> None:
    with running.torchserve(tmp_path, envelope="") as engine:
        assert engine.client.predict("twice", {"data": [1.0, 2.0]}) == {"predictions": [2.0, 4.0]}
        with pytest.raises(Unavailable, match="Prediction failed"):
            engine.client.predict("twice", {"nothing": 1})


def client_of(engine: Running) -> LlamaCppServer | OllamaServer | VLLMServer:
    client = engine.client
    assert isinstance(client, LlamaCppServer | OllamaServer | VLLMServer)
    return client


def said(answer: dict[str, Any]) -> str:
    """The text of a chat's answer, or of a piece of one."""
    choice = (answer.get("choices") or [{}])[0]
    message = answer.get("message") or choice.get("message") or choice.get("delta") or {}
    return str(message.get("content") or "")


def requests_under_way(engine: Running) -> int:
    name = {"vllm": "vllm:num_requests_running", "llamacpp": "llamacpp:requests_processing"}[engine.name]
    lines = httpx.get(f"{engine.url}/metrics", timeout=10).text.splitlines()
    return int(float(next(line for line in lines if line.startswith(name)).split()[-1]))
