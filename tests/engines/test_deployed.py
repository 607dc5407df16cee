"""A language model behind the gateway of `modelyard up`, served by the real vLLM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import psutil
import pytest

from modelyard.settings import load_settings
from modelyard.store import LocalDisk
from modelyard.yard import Yard

from .models import VLLM, VLLM_ARGUMENTS, VLLM_ENVIRON, save_llama
from .running import answers
from .support import free_port, wait_for


@contextmanager
def machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    """`modelyard up` in production, where vLLM's command is set."""
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
        "ENGINES__VLLM_COMMAND": str(VLLM),
        "ENGINES__VLLM_ARGUMENTS": json.dumps(VLLM_ARGUMENTS),
    }
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
    with machine(tmp_path, monkeypatch) as yard:
        yard.repository.register_model("chat", "v1.0.0", save_llama(tmp_path / "llama"), {})
        yard.deployments.promote_to_production("chat", "v1.0.0", force=True, reason="a test")

        (replica,) = yard.local_target.peek()
        assert (replica.engine, replica.internal_name) == ("vllm", "chat")
        evidence = yard.launching.facts(yard.repository.resolve("chat"))
        assert evidence["version"].startswith("vllm 0.") and evidence["precision"] == "float32"
        with openai.OpenAI(base_url=f"{yard.settings.gateway.url}/v1", api_key="none", max_retries=0) as client:
            for name in ("chat", "chat:v1.0.0"):  # the engine knows neither the one nor the other by itself
                ask(client, name)
        processes = [p.pid for p in psutil.process_iter(["cmdline"]) if replica.id in (p.info["cmdline"] or ())]
    assert len(processes) == 1
    assert not psutil.pid_exists(processes[0])


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
