"""The real llama.cpp with the real SmolLM2-135M, in a process as `modelyard serve` runs it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from modelyard.engines import LlamaCppServer
from modelyard.engines.llamacpp import find_gguf
from modelyard.errors import InvalidInput
from ports import free_port

from .support import llamacpp, smollm2, wait_for

pytestmark = pytest.mark.engine
QUESTION = "Say hello."


def ready(url: str, process: subprocess.Popen[str]) -> bool:
    assert process.poll() is None, process.communicate()[1]
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    port = free_port()
    with llamacpp(smollm2(), "smollm2", port) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: ready(url, process))
        yield url, process


def test_it_answers_a_chat(served: tuple[str, subprocess.Popen[str]]) -> None:
    answer = LlamaCppServer(served[0]).predict(
        "smollm2", {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 24, "temperature": 0}
    )
    assert "Hello" in answer["choices"][0]["message"]["content"]


def test_the_openai_client_streams_a_chat(served: tuple[str, subprocess.Popen[str]]) -> None:
    with openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["smollm2"]
        stream = client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=24,
            temperature=0,
            stream=True,
        )
        parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(parts) > 3
    assert "Hello" in "".join(parts)


def test_its_refusals_are_ours(served: tuple[str, subprocess.Popen[str]]) -> None:
    with pytest.raises(InvalidInput, match="'messages'"):
        LlamaCppServer(served[0]).predict("smollm2", {"messages": "hi"})


def test_many_idle_connections_do_not_keep_health_waiting(served: tuple[str, subprocess.Popen[str]]) -> None:
    address = httpx.URL(served[0])
    idle = [socket.create_connection((address.host, address.port or 80)) for _ in range(64)]
    try:
        assert httpx.get(f"{served[0]}/health", timeout=2).status_code == 200
    finally:
        for connection in idle:
            connection.close()


def test_it_finishes_its_streams_before_it_ends_with_0() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def stream(begun: list[int]) -> list[str]:
        body = {"prompt": QUESTION, "max_tokens": 80, "stream": True, "ignore_eos": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as response:
            lines = []
            for line in response.iter_lines():
                begun.append(1)
                lines.append(line)
        return [line for line in lines if line]

    with llamacpp(smollm2(), "smollm2", port) as process, ThreadPoolExecutor(2) as pool:
        wait_for(lambda: ready(url, process))
        begun: list[list[int]] = [[], []]
        streams = [pool.submit(stream, each) for each in begun]
        wait_for(lambda: all(begun))
        process.send_signal(signal.SIGTERM)
        for each in streams:
            *_, last, end = each.result()
            assert end == "data: [DONE]"
            assert json.loads(last.removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert process.wait(30) == 0
        assert process.communicate() == ("", "")


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with llamacpp(smollm2(), "smollm2", port) as process:
            _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == f"error: can't listen on 127.0.0.1:{port}: address already in use; choose another port\n"


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no \.gguf file"):
        find_gguf(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"something else")
    with pytest.raises(InvalidInput, match=r"model\.gguf is not a GGUF file"):
        find_gguf(tmp_path)


def test_a_truncated_model_ends_with_a_clear_line(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(find_gguf(smollm2()).read_bytes()[:100_000])
    with llamacpp(tmp_path, "broken", free_port()) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("error: llama.cpp can't serve model.gguf")


def test_of_a_model_in_parts_the_first_is_opened(tmp_path: Path) -> None:
    for name in ("mmproj-x.gguf", "m-00002-of-00002.gguf", "m-00001-of-00002.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    assert find_gguf(tmp_path).name == "m-00001-of-00002.gguf"
