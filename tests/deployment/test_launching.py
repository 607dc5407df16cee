"""Which engine a version gets on this machine, and the command line that starts it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelyard.deployment.launching import Launching
from modelyard.engines.keeper import READY_PATH
from modelyard.errors import InvalidInput
from modelyard.repository import Inspection, ModelRepository, ModelVersion
from modelyard.repository.manifest import ModelInfo
from modelyard.settings import EngineSettings, Settings
from modelyard.store import Memory

LLAMA = ModelInfo("text-generation", "transformers", dtype="bfloat16")
GGUF = ModelInfo("text-generation", "gguf", quantization="Q4_1")
ONNX = ModelInfo(format="onnx")
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def version(tmp_path: Path, open_repository: Callable[..., ModelRepository]) -> Callable[[ModelInfo], ModelVersion]:
    def register(model: ModelInfo) -> ModelVersion:
        (tmp_path / "weights").write_bytes(b"weights")
        repository = open_repository(Memory(), inspect=lambda _: Inspection(model))
        return repository.register_model("ns/chat", "v1.0.0", tmp_path / "weights", {})

    return register


@pytest.fixture
def vllm(tmp_path: Path) -> str:
    """A program in an environment of its own."""
    program = tmp_path / "env" / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "env" / "lib" / "python3.11" / "site-packages" / "vllm-0.32.0+cpu.dist-info").mkdir(parents=True)
    return str(program)


@contextmanager
def version_of_ollama(release: str) -> Iterator[str]:
    """The address of what answers as an Ollama of that release, and no more."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"version": release}).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def launching(env: str = "production", configured: str | None = None, **engines: Any) -> Launching:
    values = {"ollama_url": NOBODY} | engines
    settings = Settings.model_validate({"env": env, "engines": EngineSettings.model_validate(values)})
    return Launching(settings, lambda _: configured, Path("locks"))


def test_vllm_where_its_command_is_set(version: Callable[[ModelInfo], ModelVersion], vllm: str) -> None:
    launch = launching(vllm_command=vllm).launch(version(LLAMA), "staging-ns_chat-1", 20001)

    assert launch.engine == "vllm"
    assert launch.argv[launch.argv.index("--engine") + 1] == "vllm"
    assert "staging-ns_chat-1" in launch.argv
    assert (launch.ready_path, launch.internal_name, launch.endpoint) == ("/health", "ns/chat", None)


@pytest.mark.parametrize(
    ("command", "said"),
    [(None, r"vllm: engines\.vllm_command is not set"), ("/nowhere/vllm", "vllm: there is no program /nowhere/vllm")],
)
def test_without_vllm_the_reason_is_told(
    version: Callable[[ModelInfo], ModelVersion], command: str | None, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        launching(vllm_command=command).choose(version(LLAMA))


def test_an_engine_that_was_passed_by_is_logged(
    version: Callable[[ModelInfo], ModelVersion], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "modelyard.engines")
    assert launching("development").choose(version(GGUF)) == "llamacpp"
    assert "ns/chat:v1.0.0 goes to llamacpp, not to ollama: no Ollama answers at http://127.0.0.1:1" in caplog.text


def test_requests_for_a_version_in_ollama_go_to_ollama(version: Callable[[ModelInfo], ModelVersion]) -> None:
    with version_of_ollama("0.12.6") as url:
        found = launching("development", ollama_url=url.replace("127.0.0.1", "localhost"))
        launch = found.launch(version(GGUF), "staging-ns_chat-1", 20001)
        facts = found.facts(version(GGUF))
    assert launch.engine == "ollama"
    assert launch.ready_path == READY_PATH
    assert launch.endpoint == ("127.0.0.1", int(url.rpartition(":")[2]))
    assert launch.internal_name == f"modelyard/ns--chat:{version(GGUF).digest.hex[:32]}"
    assert facts == {"engine": "ollama", "version": "ollama 0.12.6", "precision": "Q4_1", "device": "any"}


@pytest.mark.parametrize("url", ["https://ollama.example", "http://no-such-host.invalid:1"])
def test_an_ollama_that_the_gateway_cannot_reach(version: Callable[[ModelInfo], ModelVersion], url: str) -> None:
    with pytest.raises(InvalidInput, match=r"ollama: (the gateway can't send|no-such-host\.invalid can't be resolved)"):
        launching("development", "ollama", ollama_url=url).choose(version(GGUF))


def test_what_is_wanted_comes_before_what_is_configured(version: Callable[[ModelInfo], ModelVersion]) -> None:
    assert launching("development", "llamacpp").choose(version(GGUF)) == "llamacpp"
    with pytest.raises(InvalidInput, match="vllm: it serves transformers"):
        launching("development", "llamacpp").choose(version(GGUF), "vllm")


@pytest.mark.parametrize(
    ("arguments", "precision"),
    [((), "bfloat16"), (("--dtype", "float32"), "float32"), (("--enforce-eager", "--dtype=half"), "half")],
)
def test_evidence_knows_vllms_release_and_precision(
    version: Callable[[ModelInfo], ModelVersion], vllm: str, arguments: tuple[str, ...], precision: str
) -> None:
    facts = launching(vllm_command=vllm, vllm_arguments=arguments).facts(version(LLAMA))
    assert facts == {"engine": "vllm", "version": "vllm 0.32.0+cpu", "precision": precision, "device": "cpu"}


def test_evidence_of_our_own_engines(version: Callable[[ModelInfo], ModelVersion]) -> None:
    assert launching().facts(version(GGUF))["engine"] == "llamacpp"
    assert launching().facts(version(ONNX))["version"].startswith("onnxruntime ")
    assert launching().facts(version(LLAMA))["engine"] == "pytorch"  # nothing here can; another system may
