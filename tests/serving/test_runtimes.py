from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.errors import InvalidInput
from modelyard.repository.manifest import Signature, Tensor
from modelyard.serving import models, runtimes
from modelyard.serving.protocol import ModelFailed

from .support import Model, model, save_torchscript, signature

FLOATS = ("FP32", [-1, 2])


def load(each: Model) -> runtimes.Runtime:
    return runtimes.load(each.version, each.folder)


def scripted(tmp_path: Path, kind: str, outputs: dict[str, tuple[str, list[int]]] | None) -> runtimes.Runtime:
    """A TorchScript model that gives its answer in one of the ways that models do."""
    import torch

    class Tuples(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return a - b, a * b

    class Dicts(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"product": a * b, "difference": a - b}

    class Half(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).to(torch.bfloat16)

    class Texts(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> str:
            return "text"

    module = {"tuple": Tuples, "dict": Dicts, "bfloat16": Half, "text": Texts}[kind]()
    folder = save_torchscript(module, tmp_path / "model.pt")
    metadata = signature({"a": FLOATS, "b": FLOATS}, outputs) if outputs else {}
    return load(model(folder, "scripted", "torchscript", metadata))


A = np.array([[3, 5]], dtype=np.float32)
B = np.array([[1, 2]], dtype=np.float32)


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_torchscript_outputs_get_the_names_of_the_signature(tmp_path: Path, kind: str) -> None:
    runtime = scripted(tmp_path, kind, {"difference": FLOATS, "product": FLOATS})
    # Given in another order: the signature's order is the model's.
    answer = runtime.infer({"b": B, "a": A})
    assert {name: array.tolist() for name, array in answer.items()} == {"difference": [[2, 3]], "product": [[3, 10]]}


def test_torchscript_without_a_signature_takes_inputs_in_the_order_given(tmp_path: Path) -> None:
    runtime = scripted(tmp_path, "tuple", None)
    assert runtime.signature == Signature()
    assert {n: a.tolist() for n, a in runtime.infer({"q": A, "p": B}).items()} == {
        "output_0": [[2, 3]],
        "output_1": [[3, 10]],
    }


def test_torchscript_takes_the_signature_that_inspection_found(tmp_path: Path, linear: Model) -> None:
    found = Signature((Tensor("in", "FP32", (-1, 4)),), (Tensor("out", "FP32", (-1, 2)),))
    version = replace(linear.version, metadata={}, model=replace(linear.version.model, signature=found))
    assert list(runtimes.load(version, linear.folder).infer({"in": np.ones((3, 4), np.float32)})) == ["out"]


def test_bfloat16_is_given_as_fp32(tmp_path: Path) -> None:
    answer = scripted(tmp_path, "bfloat16", {"difference": FLOATS}).infer({"a": A, "b": B})
    assert answer["difference"].dtype == np.float32


@pytest.mark.parametrize(
    ("kind", "outputs", "expected"),
    [
        ("tuple", {"one": FLOATS}, "gave 2 outputs; its signature names 1"),
        ("dict", {"sum": FLOATS}, "gave no output 'sum'"),
        ("text", {"one": FLOATS}, "gave a str where a tensor was expected"),
    ],
)
def test_a_model_that_breaks_its_signature_is_told_apart(
    tmp_path: Path, kind: str, outputs: dict[str, tuple[str, list[int]]], expected: str
) -> None:
    with pytest.raises(ModelFailed, match=expected):
        scripted(tmp_path, kind, outputs).infer({"a": A, "b": B})


@pytest.mark.parametrize(
    "bad", [7, {"inputs": [{"name": "x"}]}, {"inputs": [{"name": "x", "datatype": "F", "shape": []}]}]
)
def test_a_signature_that_cannot_be_read_is_named(linear: Model, bad: Any) -> None:
    version = replace(linear.version, metadata={"signature": bad})
    with pytest.raises(InvalidInput, match="the signature in the metadata can't be read"):
        runtimes.load(version, linear.folder)


def test_torchscript_computes_what_torch_computes(linear: Model) -> None:
    import torch

    torch.manual_seed(0)
    module = torch.nn.Linear(4, 2)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(load(linear).infer({"x": x})["y"], expected, rtol=1e-5, atol=1e-6)


def test_onnx_has_the_graphs_signature_and_answers(adder: Model) -> None:
    runtime = load(adder)
    assert runtime.signature.inputs == (Tensor("a", "FP32", (-1, 3)), Tensor("b", "FP32", (-1, 3)))
    assert runtime.signature.outputs == (Tensor("sum", "FP32", (-1, 3)), Tensor("positive", "BOOL", (-1, 3)))
    a = np.array([[1, -5, 0]], dtype=np.float32)
    answer = runtime.infer({"a": a, "b": a})
    assert answer["sum"].tolist() == [[2, -10, 0]]
    assert answer["positive"].tolist() == [[True, False, False]]


def test_embeddings_are_those_of_sentence_transformers(minilm: Model) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["A cat sits on the mat.", "Stock markets fell.", "word " * 400, "é"]
    runtime = load(minilm)
    answer = runtime.infer({"text": np.array(texts, dtype=object)})
    expected = SentenceTransformer(str(minilm.folder), device="cpu", local_files_only=True).encode(texts)
    assert answer["embedding"].dtype == np.float32
    np.testing.assert_allclose(answer["embedding"], expected, atol=1e-5)
    assert answer["tokens"].tolist()[1:] == [6, 256, 3]
    assert runtime.signature.outputs == (Tensor("embedding", "FP32", (-1, 384)),)


@pytest.mark.parametrize(
    ("file_format", "name"),
    [("torchscript", "model.pt"), ("onnx", "model.onnx"), ("sentence-transformers", "modules.json")],
)
def test_files_that_are_no_models_give_one_line(tmp_path: Path, file_format: str, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is not a model\n")
    broken = model(tmp_path, "broken", file_format)
    with pytest.raises(InvalidInput, match=r"broken:v1\.0\.0") as caught:
        models.load(models.Served(broken.version, broken.folder))
    assert "\n" not in str(caught.value)


def test_a_format_that_is_not_served_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="has the format gguf; the model server serves torchscript, onnx"):
        load(model(tmp_path, "chat", "gguf"))


def test_of_several_files_the_one_called_model_is_served(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).touch()
    with pytest.raises(InvalidInput, match=r"found a\.onnx, b\.onnx"):
        runtimes.only_file(tmp_path, (".onnx",))
    (tmp_path / "model.onnx").touch()
    assert runtimes.only_file(tmp_path, (".onnx",)).name == "model.onnx"
    with pytest.raises(InvalidInput, match="found none"):
        runtimes.only_file(tmp_path, (".pt",))


def test_no_texts_have_no_embeddings(minilm: Model) -> None:
    from modelyard.serving.runtimes.sentence_transformers import PackedRuntime

    runtime = load(minilm)
    assert isinstance(runtime, PackedRuntime)
    for infer in (runtime.infer, super(PackedRuntime, runtime).infer):
        assert infer({"text": np.array([], dtype=object)})["embedding"].shape == (0, 384)
