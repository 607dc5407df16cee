"""Each engine running as it is meant to: what modelyard starts by `modelyard serve`, the rest by its own program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from modelyard.engines import ENGINES, Engine
from modelyard.engines.keeper import READY_PATH
from modelyard.settings import load_settings
from modelyard.store import LocalDisk
from modelyard.yard import Yard
from ports import free_port

from .models import TORCHSERVE, VLLM, VLLM_ARGUMENTS, VLLM_ENVIRON, save_archive, save_llama
from .ollama_stand_in import ollama_server
from .support import smollm2, wait_for

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8, "temperature": 0}
OLLAMA_CHAT = {"messages": CHAT["messages"], "options": {"num_predict": 8, "temperature": 0}}
TENSOR: dict[str, Any] = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
WRONG = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": "no numbers"}]}


@dataclass(frozen=True)
class Running:
    """An engine that is ready: its address, a model's name there, a request that it answers, one that it refuses."""

    name: str
    url: str
    model: str
    request: dict[str, Any]
    wrong: dict[str, Any]
    ready_url: str
    replica: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Engine:
        return ENGINES[self.name](self.url, timeout_s=60)


@contextmanager
def started(engine: str, folder: Path, artifact: Path, **environ: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`modelyard serve` of a version of the model `tiny`, on a port, when it is ready; ended by its own id."""
    store = LocalDisk(folder / "store")
    values = {"STORE": store.url, "CACHE": str(folder / "cache"), "STATE": str(folder / "state"), "USER": "tester"}
    with_names = {f"MODELYARD_{name}": value for name, value in (values | environ).items()}
    yard = Yard(load_settings(folder, store=store.url, cache=folder / "cache", user="tester"))
    yard.repository.register_model("tiny", "v1.0.0", artifact, {})
    port = free_port()
    command = [sys.executable, "-m", "modelyard", "serve", "tiny:v1.0.0", "--engine", engine, "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--replica-id", f"staging-tiny-{engine}"],
            env=os.environ | VLLM_ENVIRON | with_names,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    path = READY_PATH if engine == "ollama" else ENGINES[engine].ready_path
    try:
        url = f"http://127.0.0.1:{port}{path}"
        wait_for(lambda: process.poll() is not None or answers(url), timeout_s=540)  # vLLM, on a busy machine
        assert process.poll() is None, (folder / "log").read_text()
        yield process, port
    finally:
        end(process.pid)
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def end(pid: int) -> None:
    """The process and those it started."""
    if psutil.pid_exists(pid):
        ours = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in ours:
            if process.is_running():
                process.kill()
        psutil.wait_procs(ours, timeout=30)


@contextmanager
def pytorch(folder: Path) -> Iterator[Running]:
    with started("pytorch", folder, save_onnx(folder / "model.onnx")) as (process, port):
        url = f"http://127.0.0.1:{port}"
        yield Running("pytorch", url, "tiny", TENSOR, WRONG, f"{url}/v2/health/ready", "staging-tiny-pytorch", process)


@contextmanager
def llamacpp(folder: Path) -> Iterator[Running]:
    with started("llamacpp", folder, next(smollm2().glob("*.gguf"))) as (process, port):
        url = f"http://127.0.0.1:{port}"
        wrong = {"messages": "hi"}
        yield Running("llamacpp", url, "tiny", CHAT, wrong, f"{url}/health", "staging-tiny-llamacpp", process)


@contextmanager
def vllm(folder: Path) -> Iterator[Running]:
    assert VLLM.is_file(), "vLLM is not there: run `make engines`"
    environ = {"ENGINES__VLLM_COMMAND": str(VLLM), "ENGINES__VLLM_ARGUMENTS": json.dumps(VLLM_ARGUMENTS)}
    with started("vllm", folder, save_llama(folder / "llama"), **environ) as (process, port):
        url = f"http://127.0.0.1:{port}"
        wrong = {"messages": "hi"}
        yield Running("vllm", url, "tiny", CHAT, wrong, f"{url}/health", "staging-tiny-vllm", process)


@contextmanager
def ollama(folder: Path) -> Iterator[Running]:
    """A stand-in for Ollama, into which `modelyard serve` puts the model."""
    with ollama_server(folder / "ollama") as (url, kept):
        gguf = next(smollm2().glob("*.gguf"))
        with started("ollama", folder, gguf, ENGINES__OLLAMA_URL=url) as (process, port):
            (model,) = kept.models
            ready = f"http://127.0.0.1:{port}{READY_PATH}"
            wrong = {"prompt": "hi", "options": "none"}
            yield Running("ollama", url, model, OLLAMA_CHAT, wrong, ready, "staging-tiny-ollama", process)


@contextmanager
def torchserve(folder: Path, *, envelope: str = "kservev2") -> Iterator[Running]:
    """TorchServe with one model, `twice`; with the envelope it speaks the Open Inference Protocol v2."""
    assert TORCHSERVE.is_file(), "TorchServe is not there: run `make engines`"
    store = folder / "archives"
    store.mkdir()
    save_archive(store / "twice.mar")
    inference, management, metrics, *grpc = (free_port() for _ in range(5))
    addresses = {"inference": inference, "management": management, "metrics": metrics}
    lines = [f"{name}_address=http://127.0.0.1:{port}" for name, port in addresses.items()]
    lines += [f"grpc_{name}_port={port}" for name, port in zip(addresses, grpc, strict=False)]
    lines += [f"model_store={store}", "load_models=all", "default_workers_per_model=1", f"service_envelope={envelope}"]
    (folder / "config.properties").write_text("\n".join(lines))
    command = [str(TORCHSERVE), "--start", "--foreground", "--ncs", "--disable-token-auth"]
    environ = os.environ | {"PATH": f"{TORCHSERVE.parent}:{os.environ['PATH']}", "TEMP": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--ts-config", str(folder / "config.properties")],
            env=environ,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{inference}"
        status = f"http://127.0.0.1:{management}/models/twice"
        wait_for(lambda: process.poll() is not None or _has_worker(status), timeout_s=120)
        assert process.poll() is None, (folder / "log").read_text()
        request = TENSOR if envelope else {"data": [1.0, 2.0]}
        yield Running("torchserve", url, "twice", request, {"inputs": "none"}, f"{url}/ping")
    finally:
        end(process.pid)
        process.wait()


def _has_worker(url: str) -> bool:
    try:
        answer = httpx.get(url, timeout=2)
    except httpx.TransportError:
        return False
    return answer.is_success and any(worker["status"] == "READY" for worker in answer.json()[0]["workers"])


def save_onnx(path: Path) -> Path:
    """y = 2 · x, in rows of two."""
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y"))
    two = helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "two"], ["y"])], "twice", [x], [y], [two])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    return path
