"""Files that are not what their format demands are refused by name, whatever they claim."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from modelyard.errors import InvalidInput, NotFound
from modelyard.importer.inspect import inspect

from . import builders
from .builders import gguf, gguf_string, safetensors


def tensor(begin: int = 0, end: int = 8, **other: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [begin, end], **other}


SAFETENSORS = {
    "short": (b"\1\0", "claims"),
    "gigabytes": (safetensors({}, length=8 << 30), "claims 8589934592 bytes"),
    "negative-length": (safetensors({}, length=(1 << 64) - 1), "claims"),
    "truncated": (safetensors({"a": tensor()}, b"\0" * 4), "need 8 bytes, 4 are there"),
    "too-long": (safetensors({"a": tensor()}, b"\0" * 9), "need 8 bytes, 9 are there"),
    "negative-offset": (safetensors({"a": tensor(-8, 0)}, b""), "offsets"),
    "backwards": (safetensors({"a": tensor(8, 0)}, b"\0" * 8), "offsets"),
    "overlap": (safetensors({"a": tensor(), "b": tensor()}, b"\0" * 8), "overlap"),
    "gap": (safetensors({"a": tensor(), "b": tensor(12, 20)}, b"\0" * 20), "gaps"),
    "wrong-shape": (safetensors({"a": tensor(shape=[3])}, b"\0" * 8), "do not fit"),
    "huge-shape": (safetensors({"a": tensor(shape=[1 << 62] * 10_000)}, b"\0" * 8), "do not fit"),
    "negative-shape": (safetensors({"a": tensor(shape=[-1, -2])}, b"\0" * 8), "lengths"),
    "bool-shape": (safetensors({"a": tensor(shape=[True, 2])}, b"\0" * 8), "lengths"),
    "unknown-dtype": (safetensors({"a": tensor(dtype="F7")}, b"\0" * 8), "unknown"),
    "no-offsets": (safetensors({"a": {"dtype": "F32", "shape": [2]}}), "data_offsets"),
    "a-list": (safetensors([]), "not a JSON object"),
    "not-json": (safetensors(b"{nonsense"), "not valid JSON"),
    "not-text": (safetensors(b"\xff\xfe{}"), "not valid JSON"),
    "deep": (safetensors(b"[" * 100_000), "not valid JSON"),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors(tmp_path: Path, case: str) -> None:
    content, why = SAFETENSORS[case]
    with pytest.raises(InvalidInput, match=rf"model\.safetensors.*{why}"):
        inspect(builders.folder(tmp_path, {"model.safetensors": content}))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    files: dict[str, bytes | str] = {
        "model.safetensors.index.json": json.dumps(index),
        "model-1.safetensors": safetensors({}),
    }
    with pytest.raises(InvalidInput, match=r"model-2\.safetensors, which is not there"):
        inspect(builders.folder(tmp_path, files))


def head(tensors: int, keys: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


GGUF = {
    "empty": (b"", "ends early"),
    "other": (b"GGML" + b"\0" * 100, "does not begin"),
    "version-1": (head(0, 0, 1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version"),
    "many-keys": (head(0, 1 << 60), "claims"),
    "many-tensors": (head(1 << 60, 0), "claims"),
    "long-key": (head(0, 1) + struct.pack("<Q", 1 << 40) + b"x" * 50, "ends early"),
    "long-value": (head(0, 1) + gguf_string("a") + struct.pack("<IQ", 8, 1 << 62), "ends early"),
    "long-array": (head(0, 1) + gguf_string("a") + struct.pack("<IIQ", 9, 4, 1 << 62), "claims"),
    "long-strings": (head(0, 1) + gguf_string("a") + struct.pack("<IIQ", 9, 8, 1 << 62), "claims"),
    "odd-type": (head(0, 1) + gguf_string("a") + struct.pack("<IQ", 77, 0), "unknown type 77"),
    "nested-arrays": (head(0, 1) + gguf_string("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50, "unknown"),
    "many-dimensions": (head(1, 0) + gguf_string("w") + struct.pack("<I", 1 << 31) + b"\0" * 50, "dimensions"),
    "cut-header": (gguf({"general.architecture": "llama"}, {"w": (8,)})[:60], "ends early"),
    "cut-data": (gguf({"general.architecture": "llama"}, {"w": (8, 8)}, data=255), "need"),
    "huge-tensor": (gguf({}, {"w": (1 << 63, 1 << 63)}, data=64), "need"),
}


@pytest.mark.parametrize("case", GGUF)
def test_gguf(tmp_path: Path, case: str) -> None:
    content, why = GGUF[case]
    with pytest.raises(InvalidInput, match=rf"model\.gguf.*{why}"):
        inspect(builders.folder(tmp_path, {"model.gguf": content}))


def onnx_bytes(dims: tuple[int, ...] = (4, 2)) -> bytes:
    weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 32)
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 2])
    node = helper.make_node("Identity", ["w"], ["y"])
    model: bytes = helper.make_model(helper.make_graph([node], "g", [], [value], [weights])).SerializeToString()
    return model


ONNX = {
    "empty": (b"", "no graph"),
    "text": (b"hello, this is not protobuf", ""),
    "cut": (onnx_bytes()[:-20], "ends early"),
    "gigabytes": (b"\x3a\xff\xff\xff\xff\x0f", "claims 4294967295 bytes"),
    "endless-number": (b"\x08" + b"\xff" * 20, "not a protobuf"),
    "no-graph": (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
    "negative-shape": (onnx_bytes((-4, 2)), "impossible shape"),
    "many-fields": (b"\x08\x01" * 2_000_001, "more parts than any model"),
    "many-dimensions": (onnx_bytes((1 << 62,) * 100), "impossible shape"),
}


@pytest.mark.parametrize("case", ONNX)
def test_onnx(tmp_path: Path, case: str) -> None:
    content, why = ONNX[case]
    with pytest.raises(InvalidInput, match=rf"model\.onnx.*{why}"):
        inspect(builders.folder(tmp_path, {"model.onnx": content}))


CONFIGURATIONS: dict[str, list[bytes | str]] = {
    "config.json": ["{", "[]", "\udcff".encode(errors="surrogateescape"), "[" * 100_000],
    "modules.json": ["{}", "[]", "[1]", '[{"path": "x"}]', '[{"path": 1, "type": "a"}]'],
}


@pytest.mark.parametrize(("name", "content"), [(name, c) for name, cs in CONFIGURATIONS.items() for c in cs])
def test_configurations(tmp_path: Path, name: str, content: bytes | str) -> None:
    with pytest.raises(InvalidInput, match=name):
        inspect(builders.folder(tmp_path, {name: content}))


def test_an_endless_configuration(tmp_path: Path) -> None:
    with (builders.folder(tmp_path, {"config.json": "{}"}) / "config.json").open("r+b") as stream:
        stream.truncate(10 << 30)  # a sparse file: ten gigabytes that take no space
    with pytest.raises(InvalidInput, match=r"config\.json.*longer than 16 MB"):
        inspect(tmp_path)


def test_modules_can_not_name_files_outside(tmp_path: Path) -> None:
    modules = [{"path": "../outside", "type": "sentence_transformers.models.Pooling"}]
    builders.folder(tmp_path, {"outside/config.json": '{"embedding_dimension": 8, "pooling_mode": "mean"}'})
    builders.folder(tmp_path, {"model/modules.json": json.dumps(modules)})
    assert inspect(tmp_path / "model").model.embedding_dimension is None


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="absent"):
        inspect(tmp_path / "absent")
    with pytest.raises(InvalidInput, match="empty"):
        inspect(tmp_path)
