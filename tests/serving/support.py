"""Small real models, an echo runtime, and model servers as processes of their own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from modelyard.refs import Version
from modelyard.repository.manifest import Artifact, ModelInfo, ModelVersion, Signature, Tensor, content_digest
from modelyard.serving.protocol import Arrays

# argv: the settings, the port, "on demand" or "all", then pairs of manifest and folder.
SERVER = """
import sys
from pathlib import Path
from modelyard.repository.manifest import ModelVersion
from modelyard.serving.server import Served, run, run_pool
from modelyard.settings import ServingSettings

settings, port, mode, *pairs = sys.argv[1:]
served = [
    Served(ModelVersion.from_json(Path(manifest).read_bytes(), where=manifest), Path(folder))
    for manifest, folder in zip(pairs[::2], pairs[1::2])
]
class Shelf:
    def labels(self):
        return [str(each.version.ref) for each in served]

    def take(self, label):
        return next(each for each in served if str(each.version.ref) == label)

options = {"host": "127.0.0.1", "port": int(port), "settings": ServingSettings.model_validate_json(settings)}
sys.exit(run_pool(Shelf(), **options) if mode == "on demand" else run(served, **options))
"""


ECHO = Signature((Tensor("x", "FP32", (-1, 2)),), (Tensor("x", "FP32", (-1, 2)),))


@dataclass(frozen=True)
class Model:
    version: ModelVersion
    folder: Path


def model(folder: Path, name: str, file_format: str, metadata: dict[str, Any] | None = None) -> Model:
    """A version made of a folder's files, as the repository would have it."""
    files = tuple(
        Artifact(str(p.relative_to(folder)), f"models/{name}/{p.name}", p.stat().st_size, _sha256(p))
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    )
    manifest = ModelVersion(
        id="test",
        name=name,
        version=Version.parse("v1.0.0"),
        digest=content_digest(files),
        files=files,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        created_by="tests",
        model=ModelInfo(format=file_format),
        metadata=metadata or {},
    )
    return Model(manifest, folder)


def signature(inputs: dict[str, tuple[str, list[int]]], outputs: dict[str, tuple[str, list[int]]]) -> dict[str, Any]:
    """Metadata with a signature, as a caller writes it."""
    sides = {
        side: [{"name": n, "datatype": datatype, "shape": shape} for n, (datatype, shape) in tensors.items()]
        for side, tensors in (("inputs", inputs), ("outputs", outputs))
    }
    return {"signature": sides}


def save_torchscript(module: Any, path: Path) -> Path:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.eval()).save(str(path))
    return path.parent


@dataclass
class EchoRuntime:
    """Gives back what it is given; counts its calls, fails on the value 666, and waits at `gate` while that is shut."""

    platform: str = "echo"
    signature: Signature = ECHO
    calls: list[int] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def infer(self, inputs: Arrays) -> Arrays:
        first = next(iter(inputs.values()))
        self.calls.append(len(first))
        self.entered.release()
        assert self.gate.wait(30)
        if (first == 666).any():
            raise ValueError("the number of the beast")
        return {name: np.array(array) for name, array in inputs.items()}


def rows(*values: float) -> Arrays:
    """A request with a row for each value."""
    return {"x": np.array([[value, -value] for value in values], dtype=np.float32)}


class ServerProcess:
    """A model server in a process of its own, on a free port of 127.0.0.1."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    def status(self, path: str) -> int:
        """The status of a GET, 0 when nobody answers."""
        try:
            return httpx.get(self.url + path, timeout=5).status_code
        except httpx.TransportError:
            return 0

    def wait_ready(self) -> None:
        wait_for(lambda: self.status("/v2/health/ready") == 200 or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()[1]


@contextmanager
def serving(
    folder: Path, models: Sequence[Model], port: int, settings: str = "{}", *, on_demand: bool = False
) -> Iterator[ServerProcess]:
    """A started server, which may not be ready yet. Ends it by its own process id."""
    arguments = [settings, str(port), "on demand" if on_demand else "all"]
    for each in models:
        manifest = folder / f"{each.version.name.replace('/', '_')}-{each.version.version}.json"
        manifest.write_bytes(each.version.to_json())
        arguments += [str(manifest), str(each.folder)]
    command = [sys.executable, "-W", "error", "-c", SERVER, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield ServerProcess(process, port)
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def infer_body(value: float, name: str = "x", width: int = 4) -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": "FP32", "shape": [1, width], "data": [value] * width}]}


def _sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
