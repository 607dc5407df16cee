"""Keepers of versions in Ollama, in whose place a stand-in answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from modelyard.engines import OllamaServer
from modelyard.engines.keeper import READY_PATH
from modelyard.errors import InvalidInput, NotFound
from ports import free_port

from .ollama_stand_in import Ollama, ollama_server
from .running import answers
from .support import smollm2, wait_for

pytestmark = pytest.mark.engine

KEEPER = """
import sys
from pathlib import Path
from modelyard.engines.keeper import run
from modelyard.engines.ollama import OllamaServer

url, folder, name, locks, port = sys.argv[1:]
sys.exit(run(OllamaServer(url), Path(folder), name=name, locks=Path(locks), host="127.0.0.1", port=int(port)))
"""
NAME, OTHER = "modelyard/tiny:0123", "modelyard/tiny:4567"


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[tuple[str, Ollama]]:
    with ollama_server(tmp_path / "ollama") as found:
        yield found


@contextmanager
def keeper(
    url: str, locks: Path, name: str = NAME, folder: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A keeper's process, and the address that tells whether it is ready."""
    port = free_port()
    command = [sys.executable, "-W", "error", "-c", KEEPER, url, str(folder or smollm2()), name, str(locks), str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        yield process, f"http://127.0.0.1:{port}{READY_PATH}"
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def test_a_version_is_in_ollama_as_long_as_somebody_wants_it(ollama: tuple[str, Ollama], tmp_path: Path) -> None:
    url, kept = ollama
    with keeper(url, tmp_path) as (first, ready), keeper(url, tmp_path) as (second, also_ready):
        wait_for(lambda: answers(ready) and answers(also_ready))
        assert list(kept.models) == [NAME]
        assert ended(first) == (0, "")
        assert list(kept.models) == [NAME]
        assert answers(also_ready)
        assert ended(second) == (0, "")
    assert kept.models == {}


def test_what_a_killed_keeper_left_is_taken_out_by_the_next(ollama: tuple[str, Ollama], tmp_path: Path) -> None:
    url, kept = ollama
    with keeper(url, tmp_path) as (first, ready):
        wait_for(lambda: answers(ready))
        first.kill()
        first.wait()
        assert list(kept.models) == [NAME]
    with keeper(url, tmp_path, OTHER) as (_, ready):
        wait_for(lambda: answers(ready))
        assert list(kept.models) == [OTHER]


def test_it_is_not_ready_while_ollama_lacks_the_model(ollama: tuple[str, Ollama], tmp_path: Path) -> None:
    url, kept = ollama
    with keeper(url, tmp_path) as (_, ready):
        wait_for(lambda: answers(ready))
        kept.models.clear()
        assert httpx.get(ready, timeout=10).status_code == 503


@pytest.mark.parametrize(
    ("file", "said"),
    [("model-00001-of-00002.gguf", "Ollama takes no model in parts; choose the engine llamacpp for it"), (None, "no")],
)
def test_what_ollama_cannot_take_ends_with_one_line(
    ollama: tuple[str, Ollama], tmp_path: Path, file: str | None, said: str
) -> None:
    (tmp_path / "model").mkdir()
    if file:
        (tmp_path / "model" / file).write_bytes(b"GGUF")
    with keeper(ollama[0], tmp_path / "locks", folder=tmp_path / "model") as (process, _):
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith(f"error: {said}") and err.count("\n") == 1


def test_an_ollama_that_is_not_there(tmp_path: Path) -> None:
    with keeper(f"http://127.0.0.1:{free_port()}", tmp_path) as (process, _):
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (1, 1)
    assert err.startswith("error: no Ollama answers at http://127.0.0.1:")


def test_contents_that_are_not_what_their_sum_says_are_refused(ollama: tuple[str, Ollama], tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidInput, match="digest does not match"):
        OllamaServer(ollama[0]).create(NAME, tmp_path / "model.gguf", "0" * 64)


def ask_everything(url: str, locks: Path) -> None:
    """What modelyard uses of Ollama's API."""
    server = OllamaServer(url)
    with ExitStack() as stack:
        _, ready = stack.enter_context(keeper(url, locks))
        wait_for(lambda: answers(ready))
        assert server.release()
        question = {"messages": [{"role": "user", "content": "Say hello."}], "options": {"num_predict": 8, "seed": 1}}
        assert server.predict(NAME, question)["message"]["content"]
        assert server.predict(NAME, {"prompt": "Once", "options": {"num_predict": 4}})["response"]
        pieces = list(server.stream(NAME, question))
        assert len(pieces) > 2 and pieces[-1]["done"] is True
        assert len(server.predict(NAME, {"input": ["a", "b"]})["embeddings"]) == 2
        client = stack.enter_context(openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0))
        said = client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "Hi"}], max_tokens=8)
        assert said.choices[0].message.content
    server.remove(NAME)
    assert not server.has(NAME)
    server.remove(NAME)  # one that is not there stays away
    with pytest.raises(NotFound):
        server.predict(NAME, {"prompt": "hi"})


@pytest.mark.ollama
def test_a_real_ollama(tmp_path: Path) -> None:
    url = os.environ.get("OLLAMA_HOST")
    assert url, "OLLAMA_HOST names no Ollama, such as http://127.0.0.1:11434"
    ask_everything(url, tmp_path)


def test_the_stand_in(ollama: tuple[str, Ollama], tmp_path: Path) -> None:
    ask_everything(ollama[0], tmp_path)
