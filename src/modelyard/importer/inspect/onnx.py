"""ONNX: a protobuf message. What describes the model is read from it; weights are passed over.

Only the few fields needed are known here (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), so that a model can
be described without the onnx library, which would read all of the file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from modelyard.importer.inspect import card, transformers
from modelyard.importer.inspect.folder import Folder, broken
from modelyard.repository.manifest import Datatype, ModelInfo, Signature, Tensor
from modelyard.store.files import File

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_TEXT_LIMIT = 64 << 10
# TensorProto.DataType → (the Open Inference Protocol's word, dtype).
_TYPES: dict[int, tuple[Datatype, str]] = {
    1: ("FP32", "float32"),
    2: ("UINT8", "uint8"),
    3: ("INT8", "int8"),
    4: ("UINT16", "uint16"),
    5: ("INT16", "int16"),
    6: ("INT32", "int32"),
    7: ("INT64", "int64"),
    8: ("BYTES", "string"),
    9: ("BOOL", "bool"),
    10: ("FP16", "float16"),
    11: ("FP64", "float64"),
    12: ("UINT32", "uint32"),
    13: ("UINT64", "uint64"),
    16: ("BF16", "bfloat16"),
}


@dataclass(slots=True)
class Graph:
    """What is collected while the message is walked. A tensor is None when the protocol has no words for it."""

    inputs: dict[str, Tensor | None] = field(default_factory=dict)
    outputs: dict[str, Tensor | None] = field(default_factory=dict)
    initializers: set[str] = field(default_factory=set)
    by_dtype: Counter[str] = field(default_factory=Counter)


def describe(folder: Folder) -> ModelInfo | None:
    graphs = {path: read(folder.files[path], path) for path in folder.named(".onnx")}
    if not graphs:
        return None
    # Of several (an encoder and a decoder, or other precisions) only one with the usual name speaks for all.
    usual = [path for path in graphs if path in ("model.onnx", "onnx/model.onnx")] or list(graphs)
    graph = graphs[usual[0]] if len(usual) == 1 else Graph()
    said, config = card.read(folder), transformers.from_config(folder) or ModelInfo()
    return ModelInfo(
        task=said.task or config.task,
        format="onnx",
        framework="onnx",
        architecture=config.architecture,
        parameters=sum(graph.by_dtype.values()) or None,
        dtype=graph.by_dtype.most_common(1)[0][0] if graph.by_dtype else None,
        context_length=config.context_length,
        languages=said.languages,
        license=said.license,
        signature=_signature(graph),
    )


def _signature(graph: Graph) -> Signature | None:
    """None when any tensor can't be told in the protocol's words: half a signature would mislead."""
    inputs = [tensor for name, tensor in graph.inputs.items() if name not in graph.initializers]
    outputs = list(graph.outputs.values())
    known = Signature(tuple(t for t in inputs if t), tuple(t for t in outputs if t))
    return known if outputs and (len(known.inputs), len(known.outputs)) == (len(inputs), len(outputs)) else None


def read(file: File, where: str) -> Graph:
    """One file. Raises InvalidInput when it is broken."""
    graph, found = Graph(), False
    with file.open() as stream:
        message = _Message(_File(stream, where), 0, file.size)
        for number, value in message.fields():
            if number == _MODEL_GRAPH and isinstance(value, _Message):
                _read_graph(value, graph)
                found = True
    if not found:
        raise broken(where, "it holds no graph")
    return graph


def _read_graph(message: _Message, graph: Graph) -> None:
    for number, value in message.fields():
        if not isinstance(value, _Message):
            continue
        if number == _GRAPH_INITIALIZER:
            _read_initializer(value, graph)
        elif number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            name, tensor = _value_info(value)
            (graph.inputs if number == _GRAPH_INPUT else graph.outputs)[name] = tensor


def _read_initializer(message: _Message, graph: Graph) -> None:
    dims: list[int] = []
    kind = 0
    for number, value in message.fields():
        if number == 1:
            dims += value.numbers() if isinstance(value, _Message) else [value]
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8 and isinstance(value, _Message):
            graph.initializers.add(value.text())
    if len(dims) > 64 or not all(0 <= dim < 1 << 63 for dim in dims):
        raise broken(message.file.where, "an initializer has an impossible shape")
    graph.by_dtype[_TYPES[kind][1] if kind in _TYPES else "other"] += math.prod(dims)


def _value_info(message: _Message) -> tuple[str, Tensor | None]:
    name, kind, shape = "", 0, None
    for number, value in message.fields():
        if number == 1 and isinstance(value, _Message):
            name = value.text()
        elif number == 2 and isinstance(value, _Message):
            for tensor_type in value.messages(1):
                kind, shape = _tensor_type(tensor_type)
    if shape is None or kind not in _TYPES:
        return name, None
    return name, Tensor(name, _TYPES[kind][0], shape)


def _tensor_type(message: _Message) -> tuple[int, tuple[int, ...] | None]:
    kind, shape = 0, None
    for number, value in message.fields():
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2 and isinstance(value, _Message):
            shape = tuple(_dimension(dim) for dim in value.messages(1))
    return kind, shape


def _dimension(message: _Message) -> int:
    """A length, or -1 for one that has only a name or nothing."""
    lengths = [value for number, value in message.fields() if number == 1 and isinstance(value, int)]
    return lengths[-1] if lengths and 0 <= lengths[-1] < 1 << 63 else -1


@dataclass(slots=True)
class _File:
    """The file, and how many more fields may be read of it: a hostile one can hold a billion empty ones."""

    stream: BinaryIO
    where: str
    fields_left: int = 2_000_000

    def count_field(self) -> None:
        self.fields_left -= 1
        if self.fields_left < 0:
            raise broken(self.where, "it has more parts than any model")


@dataclass(frozen=True, slots=True)
class _Message:
    """A stretch of the file that holds a protobuf message, a string or packed numbers: which, its reader knows."""

    file: _File
    start: int
    end: int

    def fields(self) -> Iterator[tuple[int, int | _Message]]:
        """(field number, number or stretch) in order; each stretch lies within this one."""
        position = self.start
        while position < self.end:
            self.file.count_field()
            key, position = self._varint(position)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, position = self._varint(position)
                yield number, value
                continue
            if wire == 2:
                length, position = self._varint(position)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise broken(self.file.where, "it is not a protobuf message")
            if length > self.end - position:
                raise broken(self.file.where, f"it ends early: a field claims {length} bytes")
            if wire == 2:
                yield number, _Message(self.file, position, position + length)
            position += length

    def messages(self, wanted: int) -> Iterator[_Message]:
        return (value for number, value in self.fields() if number == wanted and isinstance(value, _Message))

    def numbers(self) -> list[int]:
        """Packed numbers."""
        if self.end - self.start > _TEXT_LIMIT:
            raise broken(self.file.where, "an initializer has an impossible shape")
        values, position = [], self.start
        while position < self.end:
            value, position = self._varint(position)
            values.append(value)
        return values

    def text(self) -> str:
        self.file.stream.seek(self.start)
        return self.file.stream.read(min(self.end - self.start, _TEXT_LIMIT)).decode(errors="replace")

    def _varint(self, position: int) -> tuple[int, int]:
        """The number at a position, and the position behind it."""
        self.file.stream.seek(position)
        value = 0
        for shift, byte in enumerate(self.file.stream.read(min(10, self.end - position))):
            value |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:
                return value, position + shift + 1
        raise broken(self.file.where, "it is not a protobuf message")
