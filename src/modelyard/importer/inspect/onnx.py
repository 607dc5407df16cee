"""ONNX: a protobuf message. What describes the model is read from it; weights are passed over.

Only the few fields needed are known here (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), so that a model can
be described without the onnx library, which would read all of the file.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from modelyard.importer.inspect import card, external, transformers
from modelyard.importer.inspect.folder import Folder, broken
from modelyard.importer.inspect.protobuf import Message, Source
from modelyard.repository.manifest import Datatype, ModelInfo, Signature, Tensor
from modelyard.store.files import File

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
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
    for path in graphs:
        external.check(folder, path)
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
        vocabulary=config.vocabulary,
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
        message = Message(Source(stream, where), 0, file.size)
        for number, value in message.fields():
            if number == _MODEL_GRAPH and isinstance(value, Message):
                _read_graph(value, graph)
                found = True
    if not found:
        raise broken(where, "it holds no graph")
    return graph


def _read_graph(message: Message, graph: Graph) -> None:
    for number, value in message.fields():
        if not isinstance(value, Message):
            continue
        if number == _GRAPH_INITIALIZER:
            _read_initializer(value, graph)
        elif number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            name, tensor = _value_info(value)
            (graph.inputs if number == _GRAPH_INPUT else graph.outputs)[name] = tensor


def _read_initializer(message: Message, graph: Graph) -> None:
    dims: list[int] = []
    kind = 0
    for number, value in message.fields():
        if number == 1:
            dims += value.numbers() if isinstance(value, Message) else [value]
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8 and isinstance(value, Message):
            graph.initializers.add(value.text())
    if len(dims) > 64 or not all(0 <= dim < 1 << 63 for dim in dims):
        raise broken(message.file.where, "an initializer has an impossible shape")
    graph.by_dtype[_TYPES[kind][1] if kind in _TYPES else "other"] += math.prod(dims)


def _value_info(message: Message) -> tuple[str, Tensor | None]:
    name, kind, shape = "", 0, None
    for number, value in message.fields():
        if number == 1 and isinstance(value, Message):
            name = value.text()
        elif number == 2 and isinstance(value, Message):
            for tensor_type in value.messages(1):
                kind, shape = _tensor_type(tensor_type)
    if shape is None or kind not in _TYPES:
        return name, None
    return name, Tensor(name, _TYPES[kind][0], shape)


def _tensor_type(message: Message) -> tuple[int, tuple[int, ...] | None]:
    kind, shape = 0, None
    for number, value in message.fields():
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2 and isinstance(value, Message):
            shape = tuple(_dimension(dim) for dim in value.messages(1))
    return kind, shape


def _dimension(message: Message) -> int:
    """A length, or -1 for one that has only a name or nothing."""
    lengths = [value for number, value in message.fields() if number == 1 and isinstance(value, int)]
    return lengths[-1] if lengths and 0 <= lengths[-1] < 1 << 63 else -1
