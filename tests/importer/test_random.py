"""Whatever bytes a file holds, inspection answers or raises InvalidInput."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pickle
import pickletools
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelyard.errors import InvalidInput
from modelyard.importer.inspect import inspect, judge, opcodes
from modelyard.importer.inspect.allowlist import CALLABLE, VALUES

from . import builders

NAMES = [
    *(
        f"a.{s}"
        for s in [
            "safetensors",
            "gguf",
            "onnx",
            "pt",
            "pth",
            "bin",
            "pkl",
            "joblib",
            "ckpt",
            "npy",
            "npz",
            "zip",
            "tar",
            "tar.gz",
            "xz",
            "bz2",
            "txt",
        ]
    ),
    *("config.json", "modules.json", "README.md", "model.safetensors.index.json", "config_sentence_transformers.json"),
]
MAGICS = [
    b"",
    b"GGUF\3\0\0\0",
    b"PK\3\4",
    b"\x93NUMPY\1\0",
    b"\x1f\x8b",
    b"BZh9",
    b"\xfd7zXZ\0",
    b"\x78\x9c",
    b"\x80\4",
    b"---\n",
]


def attempt(files: dict[str, bytes]) -> None:
    with TemporaryDirectory() as folder, contextlib.suppress(InvalidInput):
        inspect(builders.folder(Path(folder), files))


@settings(max_examples=600, deadline=None)
@given(name=st.sampled_from(NAMES), magic=st.sampled_from(MAGICS), data=st.binary(max_size=400))
@example(name="a.onnx", magic=b"", data=b"\x3a\x02\x2a\x00")
def test_random_bytes(name: str, magic: bytes, data: bytes) -> None:
    attempt({name: magic + data})


HONEST = {
    "a.safetensors": builders.safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8),
    "a.gguf": builders.gguf({"general.architecture": "llama", "general.languages": ["en"]}, {"w": (4, 2)}, data=32),
    "a.pt": builders.state(),
    "a.npy": builders.npy([1.0, 2.0]),
    "a.tar": builders.tarred({"a": b"hello", "b": b"x" * 600}),
    "a.zip": builders.zipped({"a": b"hello", "b.zip": builders.zipped({"c": b"hello"})}),
    "a.gz": gzip.compress(builders.tarred({"a": b"hello"})),
    "modules.json": b'[{"path": "", "type": "sentence_transformers.models.Pooling"}]',
    "config.json": b'{"model_type": "bert", "architectures": ["BertModel"], "text_config": {"n_ctx": 4}}',
}


@pytest.mark.parametrize("name", HONEST)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_honest_files_with_bytes_changed_or_cut(name: str, data: st.DataObject) -> None:
    content = bytearray(HONEST[name])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    attempt({name: bytes(content[: data.draw(st.integers(0, len(content)))])})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "model_type",
    "architectures",
    "text_config",
    "vision_config",
    "quantization_config",
    "dtype",
    "weight_map",
    "language",
    "license",
]


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from([n for n in NAMES if n.endswith(".json")]), values=st.dictionaries(st.sampled_from(KEYS), JSON)
)
def test_any_json(name: str, values: dict[str, object]) -> None:
    attempt({"config.json": b'{"model_type": "bert"}', name: json.dumps(values).encode()})
    attempt({"README.md": f"---\n{json.dumps(values)}\n---\n".encode()})


@settings(max_examples=300, deadline=None)
@given(before=JSON, protocol=st.integers(0, 5))
def test_whatever_comes_before_it_code_in_a_pickle_is_found(before: object, protocol: int) -> None:
    data = pickle.dumps([before, builders.Hostile()], protocol)
    assert opcodes.reason(data) == f"pickle, protocol {protocol if protocol > 1 else '0 or 1'}"
    assert opcodes.reason(data.removeprefix(b"\x80" + bytes([protocol]))) is not None


class Recording(pickle.Unpickler):
    """A real unpickler that makes nothing real, and fails the test when it is asked for what is not on the list."""

    class Anything(dict[Any, Any]):
        def __init__(self, *arguments: Any) -> None: ...

        def __hash__(self) -> int:  # type: ignore[override]
            return 0

    def find_class(self, module: str, name: str) -> Any:
        assert f"{module}.{name}" in CALLABLE.keys() | VALUES
        return self.Anything

    def persistent_load(self, number: Any) -> Any:
        return self.Anything()


FAULTS = (pickle.UnpicklingError, ValueError, TypeError, AttributeError, EOFError, IndexError, OverflowError)
OPCODES = [ord(opcode.code) for opcode in pickletools.opcodes]
DATA = [
    *(
        pickle.dumps({"a": [1, -2.5, b"x", {"b", "c"}], "n": np.ones(2), "o": np.array([{}], object)}, n)
        for n in range(6)
    ),
    zipfile.ZipFile(io.BytesIO(builders.state())).read("archive/data.pkl"),
    pickle.dumps(["os", "system", builders.Hostile()], 4),
    pickle.dumps(["os", "system", builders.Hostile()], 0),
]


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_what_passes_the_allow_list_asks_an_unpickler_for_nothing_else(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(DATA)))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.sampled_from(OPCODES))
    if judge.refusal(io.BytesIO(content)) is None:
        with contextlib.suppress(*FAULTS):
            Recording(io.BytesIO(content)).load()
