"""The Open Inference Protocol v2 in JSON: requests into arrays, arrays into answers.

Knows datatypes, shapes and signatures; knows nothing of HTTP or of how a model computes. BYTES tensors are arrays of
`str`. Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import orjson

from modelyard.errors import InvalidInput, ModelyardError
from modelyard.repository.manifest import Signature, Tensor

Arrays = dict[str, np.ndarray[Any, Any]]

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_ACCEPTED_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}


class ModelFailed(ModelyardError):
    """The model itself raised, or gave something that can't be sent."""

    code, status = "model_failed", 500


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client asks: the inputs in the order given, and the outputs wanted (none named: all of them)."""

    inputs: Arrays
    outputs: tuple[str, ...] = ()
    id: str | None = None


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises InvalidInput; NaN and Infinity are not JSON."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the request is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput("the request is not a JSON object")
    return document


def parse_request(body: bytes, signature: Signature) -> InferRequest:
    """An inference request whose inputs fit the signature. Raises InvalidInput."""
    document = parse_object(body)
    tensors = document.get("inputs")
    if not isinstance(tensors, list) or not tensors:
        raise InvalidInput("the request has no 'inputs'", remedy="send a list of {name, shape, datatype, data}")
    inputs: Arrays = {}
    for tensor in tensors:
        name, array = _parse_tensor(tensor)
        if name in inputs:
            raise InvalidInput(f"input {name!r} is given twice")
        inputs[name] = array
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidInput("'id' is not a string")
    if signature.inputs:
        check_inputs(inputs, signature.inputs)
    return InferRequest(inputs, _parse_outputs(document.get("outputs"), signature), request_id)


def check_inputs(inputs: Arrays, expected: Sequence[Tensor]) -> None:
    """Names, datatypes and shapes against a signature. Raises InvalidInput that names the first difference."""
    known = {tensor.name: tensor for tensor in expected}
    for name in inputs:
        if name not in known:
            raise InvalidInput(f"the model has no input {name!r}", remedy=f"it takes {_listed(known)}")
    for name, tensor in known.items():
        if name not in inputs:
            raise InvalidInput(f"input {name!r} is missing", remedy=f"the model takes {_listed(known)}")
        array = inputs[name]
        if (found := datatype_of(array)) != tensor.datatype:
            raise InvalidInput(f"input {name!r} is {found}; the model takes {tensor.datatype}")
        if not shape_fits(array.shape, tensor.shape):
            raise InvalidInput(f"input {name!r} has shape {list(array.shape)}; the model takes {list(tensor.shape)}")


def shape_fits(shape: Sequence[int], expected: Sequence[int]) -> bool:
    """Whether a real shape fits a declared one, in which -1 is any length."""
    return len(shape) == len(expected) and all(e in (-1, n) for n, e in zip(shape, expected, strict=True))


def datatype_of(array: np.ndarray[Any, Any]) -> str:
    """The protocol's word for the array's type."""
    if array.dtype.kind in "USO":
        return "BYTES"
    try:
        return _NAMES[array.dtype]
    except KeyError:
        raise ModelFailed(f"the model gave {array.dtype} values, which the protocol has no word for") from None


def serialize_request(inputs: Arrays, *, request_id: str | None = None) -> bytes:
    """A request as a client sends it."""
    document: dict[str, Any] = {} if request_id is None else {"id": request_id}
    document["inputs"] = [_tensor_document(name, array) for name, array in inputs.items()]
    return _dump(document)


def serialize_response(outputs: Mapping[str, np.ndarray[Any, Any]], head: Mapping[str, Any]) -> bytes:
    """An answer; `head` holds model_name, model_version and, when asked with one, id. Raises ModelFailed."""
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelFailed(f"output {name!r} holds NaN or infinity, which JSON can't carry")
    return _dump({**head, "outputs": [_tensor_document(name, array) for name, array in outputs.items()]})


def _parse_tensor(tensor: Any) -> tuple[str, np.ndarray[Any, Any]]:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise InvalidInput("an input has no name", remedy="send {name, shape, datatype, data}")
    name, datatype, shape = tensor["name"], tensor.get("datatype"), tensor.get("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise InvalidInput(f"input {name!r} has datatype {datatype!r}", remedy=f"use one of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise InvalidInput(f"input {name!r} has shape {shape!r}", remedy="send a list of lengths")
    if not isinstance(data := tensor.get("data"), list):
        raise InvalidInput(f"input {name!r} has no 'data' list", remedy="binary tensor data is not taken; send JSON")
    array = _strings(name, data) if datatype == "BYTES" else _numbers(name, data, datatype)
    if array.shape != tuple(shape) and not (array.ndim == 1 and array.size == prod(shape)):
        raise InvalidInput(f"input {name!r} says shape {shape} but its data has shape {list(array.shape)}")
    return name, array.reshape(shape)


def _numbers(name: str, data: list[Any], datatype: str) -> np.ndarray[Any, Any]:
    dtype = DATATYPES[datatype]
    try:
        array: np.ndarray[Any, Any] = np.array(data)
    except (ValueError, OverflowError):
        raise InvalidInput(f"the data of input {name!r} is not rectangular") from None
    if array.size == 0:
        return array.astype(dtype)
    if datatype == "UINT64" and array.dtype == np.float64:
        # numpy takes small integers beside large ones for floats, which would lose digits.
        array = _exact_integers(data, array)
    if array.dtype.kind not in _ACCEPTED_KINDS[dtype.kind]:
        raise InvalidInput(f"the data of input {name!r} does not hold {datatype} values only")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise InvalidInput(f"the data of input {name!r} does not fit into {datatype}")
        return array.astype(dtype)
    with np.errstate(over="ignore"):
        converted: np.ndarray[Any, Any] = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(converted).all():
        raise InvalidInput(f"the data of input {name!r} does not fit into {datatype}")
    return converted


def _exact_integers(data: list[Any], otherwise: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    exact = np.array(data, dtype=object)
    fits = all(type(value) is int and 0 <= value < 2**64 for value in exact.flat)
    return exact.astype(np.uint64) if fits else otherwise


def _strings(name: str, data: list[Any]) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = np.array(data, dtype=object)
    except ValueError:
        raise InvalidInput(f"the data of input {name!r} is not rectangular") from None
    if not all(isinstance(value, str) for value in array.flat):
        raise InvalidInput(f"the data of input {name!r} does not hold strings only")
    return array


def _parse_outputs(wanted: Any, signature: Signature) -> tuple[str, ...]:
    if wanted is None:
        return ()
    if not isinstance(wanted, list) or not all(isinstance(w, dict) and isinstance(w.get("name"), str) for w in wanted):
        raise InvalidInput("'outputs' is not a list of {name}")
    names = tuple(w["name"] for w in wanted)
    known = [tensor.name for tensor in signature.outputs]
    for name in names:
        if known and name not in known:
            raise InvalidInput(f"the model has no output {name!r}", remedy=f"it gives {_listed(known)}")
    return names


def _tensor_document(name: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    datatype = datatype_of(array)
    flat = array.ravel()
    data = [_text(v) for v in flat] if datatype == "BYTES" else np.ascontiguousarray(flat)
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": data}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _dump(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names)
