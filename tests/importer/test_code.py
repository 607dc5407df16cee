"""Code that comes without a pickle is refused or noted; ONNX weights stay inside the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from modelyard.errors import InvalidInput
from modelyard.importer.inspect import inspect

from . import builders
from .builders import gguf, zipped

_HDF5 = b"\x89HDF\r\n\x1a\n"


def keras(layer: str) -> str:
    return json.dumps({"class_name": "Sequential", "config": {"layers": [{"class_name": layer, "config": {}}]}})


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.keras", zipped({"metadata.json": b"{}", "config.json": keras("Lambda").encode()})),
        ("m.h5", _HDF5 + b"\0" * 5000 + keras("Lambda").encode() + b"\0" * 100),
        ("between.h5", _HDF5 + b"\0" * ((4 << 20) - 12) + b'{"class_name": "Lambda"}'),
        ("registered.h5", _HDF5 + keras("package>Lambda").encode()),
    ],
)
def test_keras_lambda_layers_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    found = inspect(builders.folder(tmp_path, {name: data}))
    assert (found.refused, found.pickles) == ({name: "a Keras Lambda layer (Python bytecode)"}, {})
    assert inspect(tmp_path, policy="any").refused == {}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.keras", zipped({"config.json": keras("Dense").encode()})),
        ("other.keras", zipped({"metadata.json": b"{}"})),
        ("m.h5", _HDF5 + keras("Dense").encode()),
        ("text.h5", keras("Lambda").encode()),
    ],
)
def test_other_keras_files_pass(tmp_path: Path, name: str, data: bytes) -> None:
    assert inspect(builders.folder(tmp_path, {name: data})).refused == {}


def test_code_that_runs_only_when_asked_for_is_noted(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "modeling_own.py": "import os",
        "chat_template.jinja": "{{ messages }}",
        "config.json": json.dumps({"model_type": "own", "auto_map": {"AutoModel": "modeling_own.Model"}}),
        "tokenizer_config.json": json.dumps({"chat_template": "{{ messages }}"}),
        "m.gguf": gguf({"general.architecture": "llama", "tokenizer.chat_template": "{{ messages }}"}),
    }
    found = inspect(builders.folder(tmp_path, files))
    assert found.refused == {}
    assert set(found.notes) == set(files)
    assert "trust_remote_code" in found.notes["config.json"]


def external(location: str, **more: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def model(*initializers: onnx.TensorProto, **options: Any) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    nodes = options.pop("nodes", None) or [helper.make_node("Identity", ["w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [], [value], initializers, **options)
    return helper.make_model(graph)


def constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], value=tensor)


def in_a_branch(tensor: onnx.TensorProto) -> onnx.ModelProto:
    branch = model(nodes=[constant(tensor)]).graph
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    return model(nodes=[node])


def sparse(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model(sparse_initializer=[onnx.SparseTensorProto(values=tensor, dims=[2])])


def in_a_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    made = model()
    made.functions.append(
        helper.make_function("own", "f", [], ["y"], [constant(tensor)], [helper.make_opsetid("", 20)])
    )
    return made


LEAVING = {
    "upward": (model(external("../w.bin")), "'../w.bin', outside"),
    "absolute": (model(external("/etc/passwd")), "'/etc/passwd', outside"),
    "through a folder": (model(external("a/../../w.bin")), "outside"),
    "backslashes": (model(external("..\\w.bin")), "outside"),
    "a drive": (model(external("C:w.bin")), "outside"),
    "no location": (model(external("")), "outside"),
    "not there": (model(external("gone.bin")), "'gone.bin', which is not there"),
    "too short": (model(external("w.bin", offset="4", length="8")), "need 12 bytes of 'w.bin', 8 are there"),
    "odd offset": (model(external("w.bin", offset="-4")), "have no place there"),
    "a node's attribute": (model(nodes=[constant(external("../w.bin"))]), "outside"),
    "a branch": (in_a_branch(external("../w.bin")), "outside"),
    "a sparse tensor": (sparse(external("../w.bin")), "outside"),
    "a function": (in_a_function(external("../w.bin")), "outside"),
}


@pytest.mark.parametrize("case", LEAVING)
def test_onnx_weights_outside(tmp_path: Path, case: str) -> None:
    made, why = LEAVING[case]
    builders.folder(tmp_path, {"model.onnx": made.SerializeToString(), "w.bin": b"\0" * 8})
    with pytest.raises(InvalidInput, match=rf"model\.onnx.*{why}"):
        inspect(tmp_path)


def test_onnx_weights_inside(tmp_path: Path) -> None:
    made = model(external("w.bin", offset="0", length="8"), external("./sub/w.bin"))
    builders.folder(tmp_path, {"onnx/model.onnx": made.SerializeToString()})
    builders.folder(tmp_path, {"onnx/w.bin": b"\0" * 8, "onnx/sub/w.bin": b"\0" * 8})
    assert inspect(tmp_path).model.format == "onnx"
