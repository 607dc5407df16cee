"""Language models behind the gateway of `modelyard up`: on the real vLLM, and on a stand-in for Ollama."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai
import psutil
import pytest

import openapi_requests
from modelyard.gateway.openapi import openapi
from modelyard.settings import load_settings
from modelyard.store import LocalDisk
from modelyard.yard import Yard
from openapi_requests import operations
from ports import free_port

from .models import VLLM, VLLM_ARGUMENTS, VLLM_ENVIRON, save_llama
from .ollama_stand_in import ollama_server
from .running import answers
from .support import smollm2, wait_for

pytestmark = pytest.mark.long


@contextmanager
def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> Iterator[Yard]:
    """`modelyard up`, by default in production, with these settings besides."""
    store = LocalDisk(folder / "store")
    variables = {
        "STORE": store.url,
        "CACHE": str(folder / "cache"),
        "STATE": str(folder / "state"),
        "USER": "tester",
        "ENV": "production",
        "GATEWAY__PORT": str(free_port()),
        "API__PORT": str(free_port()),
        "SERVING__READY_TIMEOUT_S": "540",
        "DEPLOYMENT__TIMEOUT_S": "540",
    } | more
    for name, value in {f"MODELYARD_{name}": value for name, value in variables.items()}.items():
        monkeypatch.setenv(name, value)
    yard = Yard(load_settings(folder))
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "modelyard", "up"]
        up = subprocess.Popen(command, env=os.environ | VLLM_ENVIRON, cwd=folder, stdout=log, stderr=log)
    try:
        wait_for(lambda: up.poll() is not None or answers(f"{yard.settings.gateway.url}/healthz"))
        assert up.poll() is None, (folder / "log").read_text()
        yield yard
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(120) == 0, (folder / "log").read_text()


@pytest.mark.side_environment
@pytest.mark.timeout(900)
def test_vllm_behind_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert VLLM.is_file(), "vLLM is not there: run `make engines`"
    engine = {"ENGINES__VLLM_COMMAND": str(VLLM), "ENGINES__VLLM_ARGUMENTS": json.dumps(VLLM_ARGUMENTS)}
    with machine(tmp_path, monkeypatch, **engine) as yard:
        yard.repository.register_model("chat", "v1.0.0", save_llama(tmp_path / "llama"), {})
        yard.deployments.promote_to_production("chat", "v1.0.0", force=True, reason="a test")

        (replica,) = yard.local_target.peek()
        assert (replica.engine, replica.internal_name) == ("vllm", "chat")
        evidence = yard.launching.facts(yard.repository.resolve("chat"))
        assert evidence["version"].startswith("vllm 0.") and evidence["precision"] == "float32"
        with openai.OpenAI(base_url=f"{yard.settings.gateway.url}/v1", api_key="none", max_retries=0) as client:
            names = {"chat", "chat:v1.0.0"}  # the engine knows neither the one nor the other by itself
            assert names < {model.id for model in client.models.list()}
            for name in names:
                ask(client, name)
            with pytest.raises(openai.NotFoundError):
                client.embeddings.create(model="chat", input="Hi")
        for operation in operations(openapi()):
            openapi_requests.ask(
                openapi(), yard.settings.gateway.url, operation, checks=[openapi_requests.no_failure], prepare=shorten
            )
        processes = [p.pid for p in psutil.process_iter(["cmdline"]) if replica.id in (p.info["cmdline"] or ())]
    assert len(processes) == 1
    assert not psutil.pid_exists(processes[0])


@pytest.mark.side_environment
@pytest.mark.timeout(900)
def test_vllm_embeds_behind_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert VLLM.is_file(), "vLLM is not there: run `make engines`"
    engine = {"ENGINES__VLLM_COMMAND": str(VLLM), "ENGINES__VLLM_ARGUMENTS": json.dumps(VLLM_ARGUMENTS)}
    with machine(tmp_path, monkeypatch, **engine) as yard:
        yard.configuration.set_config("engines", "vectors", "vllm")
        yard.repository.register_model("vectors", "v1.0.0", save_llama(tmp_path / "llama", embeds=True), {})
        yard.deployments.promote_to_production("vectors", "v1.0.0", force=True, reason="a test")
        with openai.OpenAI(base_url=f"{yard.settings.gateway.url}/v1", api_key="none", max_retries=0) as client:
            assert "vectors" in {model.id for model in client.models.list()}
            texts = ["A river.", "Taxes"]
            numbers = client.embeddings.create(model="vectors", input=texts, encoding_format="float")
            packed = client.embeddings.create(model="vectors", input=texts)  # as base64
            first, second = ([each.embedding for each in answer.data] for answer in (numbers, packed))
            np.testing.assert_allclose(first, second, atol=1e-6)
            assert np.shape(first) == (2, 64)
            with pytest.raises(openai.BadRequestError):
                client.embeddings.create(model="vectors", input=[])


@pytest.mark.timeout(300)
def test_ollama_behind_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ollama insists on its own name for the model, and its address is not the replica's."""
    gguf = next(smollm2().glob("*.gguf"))
    with (
        ollama_server(tmp_path / "ollama") as (url, kept),
        machine(tmp_path, monkeypatch, ENV="development", ENGINES__OLLAMA_URL=url) as yard,
    ):
        for version in ("v1.0.0", "v1.1.0"):
            yard.repository.register_model("chat", version, gguf, {})
            yard.deployments.promote_to_production("chat", version, force=True, reason="a test")
            (replica,) = [r for r in yard.local_target.peek() if str(r.pin) == version]
            assert replica.engine == "ollama"
            with openai.OpenAI(base_url=f"{yard.settings.gateway.url}/v1", api_key="none", max_retries=0) as client:
                for name in ("chat", f"chat:{version}"):
                    answer = client.chat.completions.with_raw_response.create(
                        model=name, messages=[{"role": "user", "content": "Hi"}], max_tokens=8
                    )
                    assert answer.parse().choices[0].message.content
                    assert answer.headers["x-modelyard-model"].startswith(f"chat:{version}@")
        assert kept.models
    assert not kept.models


def shorten(case: Any, _number: int) -> None:
    """A request to the model `chat`, for a short answer."""
    if isinstance(case.body, dict):
        case.body |= {"model": "chat", "max_tokens": 2}
    for name in case.path_parameters or {}:
        case.path_parameters[name] = "chat"


def ask(client: openai.OpenAI, model: str) -> None:
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
    whole = client.chat.completions.create(model=model, messages=messages, max_tokens=8, temperature=0)
    stream = client.chat.completions.create(model=model, messages=messages, max_tokens=8, temperature=0, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len(pieces) > 3
    assert client.completions.create(model=model, prompt="Once", max_tokens=4).choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=model, messages=messages, max_tokens=-1)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=messages)
