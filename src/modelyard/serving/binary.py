"""Tensors as bytes: the binary data that may follow the JSON of a request or an answer.

Numbers are little-endian; an element of a BYTES tensor is its length in 4 bytes, then itself. Knows bytes and arrays;
knows nothing of JSON documents or HTTP. Source: the protocol's "Binary Tensor Data Extension",
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput
from modelyard.repository.manifest import Signature
from modelyard.serving.datatypes import DATATYPES

HEADER = "inference-header-content-length"
SIZE = "binary_data_size"


def split(body: bytes, header: str | None) -> tuple[bytes, memoryview]:
    """The JSON and what follows it; `header` tells how long the JSON is, None that it is all. Raises InvalidInput."""
    if header is None:
        return body, memoryview(b"")
    if not (header.isascii() and header.isdigit()) or len(header) > 18:
        raise InvalidInput(f"the header {HEADER} is {header[:40]!r}", remedy="send the length of the JSON in bytes")
    length = int(header)
    if length > len(body):
        raise InvalidInput(f"the header {HEADER} says {length}, but the body has {len(body)} bytes")
    return body[:length], memoryview(body)[length:]


class Blob:
    """The binary data of a request, taken tensor by tensor."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._taken = 0

    def take(self, name: str, size: Any) -> memoryview:
        """The next `size` bytes. Raises InvalidInput."""
        if type(size) is not int or size < 0:
            raise InvalidInput(f"input {name!r} has the {SIZE} {size!r}", remedy="send its length in bytes")
        left = len(self._data) - self._taken
        if size > left:
            raise InvalidInput(f"input {name!r} says {size} bytes of binary data, but {left} are left")
        self._taken += size
        return self._data[self._taken - size : self._taken]

    def end(self) -> None:
        """Raises InvalidInput if something is left."""
        if left := len(self._data) - self._taken:
            raise InvalidInput(f"{left} bytes of binary data belong to no input", remedy=f"check each {SIZE}")


def parse_tensor(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> np.ndarray[Any, Any]:
    """The tensor; elements of BYTES are `bytes`. Raises InvalidInput."""
    if datatype == "BYTES":
        return _elements(name, shape, data)
    dtype = DATATYPES[datatype]
    if len(data) != prod(shape) * dtype.itemsize:
        raise InvalidInput(
            f"input {name!r} has {len(data)} bytes of binary data; "
            f"{datatype} {list(shape)} takes {prod(shape) * dtype.itemsize}"
        )
    if datatype == "BOOL" and (np.frombuffer(data, np.uint8) > 1).any():
        raise InvalidInput(f"the binary data of input {name!r} does not hold BOOL values only", remedy="send 0 or 1")
    # A copy: libraries want arrays that they may write to.
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape).astype(dtype)


def parse_raw(signature: Signature, data: memoryview) -> tuple[str, np.ndarray[Any, Any]]:
    """A body without JSON: all of it is the model's only input. Raises InvalidInput."""
    if len(signature.inputs) != 1:
        raise InvalidInput(
            f"the model has {len(signature.inputs)} inputs; a body without JSON holds one", remedy="send JSON too"
        )
    (tensor,) = signature.inputs
    fixed = prod(length for length in tensor.shape if length != -1)
    if tensor.datatype == "BYTES":
        if fixed != 1:
            raise InvalidInput(f"input {tensor.name!r} has more than one element", remedy="send JSON too")
        return tensor.name, np.array([bytes(data)], dtype=object).reshape([1] * len(tensor.shape))
    row = fixed * DATATYPES[tensor.datatype].itemsize
    if tensor.shape.count(-1) > 1 or not row or len(data) % row:
        raise InvalidInput(
            f"{len(data)} bytes do not tell the shape of input {tensor.name!r}, {tensor.datatype} {list(tensor.shape)}",
            remedy="send JSON too",
        )
    shape = [len(data) // row if length == -1 else length for length in tensor.shape]
    return tensor.name, parse_tensor(tensor.name, tensor.datatype, shape, data)


def serialize_tensor(array: np.ndarray[Any, Any]) -> bytes:
    """The bytes of a tensor, its elements in row-major order."""
    if array.dtype.kind in "USO":
        parts = []
        for value in array.ravel():
            element = value if isinstance(value, bytes) else str(value).encode()
            parts += [struct.pack("<I", len(element)), element]
        return b"".join(parts)
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _elements(name: str, shape: Sequence[int], data: memoryview) -> np.ndarray[Any, Any]:
    elements: list[bytes] = []
    at, count = 0, prod(shape)
    while at < len(data) and len(elements) < count:
        if at + 4 > len(data):
            raise InvalidInput(f"the binary data of input {name!r} ends within the length of an element")
        (length,) = struct.unpack_from("<I", data, at)
        if at + 4 + length > len(data):
            raise InvalidInput(f"the binary data of input {name!r} ends within an element of {length} bytes")
        elements.append(bytes(data[at + 4 : at + 4 + length]))
        at += 4 + length
    if len(elements) != count or at != len(data):
        held = len(elements) if at == len(data) else f"more than {len(elements)}"
        raise InvalidInput(f"input {name!r} says shape {list(shape)} but its binary data holds {held} elements")
    array = np.empty(count, dtype=object)
    array[:] = elements
    return array.reshape(shape)
