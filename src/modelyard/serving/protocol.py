"""The Open Inference Protocol v2: requests into arrays, arrays into answers, in JSON with or without binary data.

Knows datatypes, shapes and signatures; knows nothing of HTTP or of how a model computes. BYTES tensors are arrays of
`str`, or of `bytes` where the model asks for them.
Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import orjson

from modelyard.errors import InvalidInput, ModelyardError
from modelyard.repository.manifest import Signature, Tensor
from modelyard.serving import binary
from modelyard.serving.datatypes import DATATYPES

Arrays = dict[str, np.ndarray[Any, Any]]

_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
# numpy's limits, also for shapes that hold nothing because one of their lengths is 0.
_MOST_DIMENSIONS, _MOST_VALUES = 32, 2**58
_ACCEPTED_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}


class ModelFailed(ModelyardError):
    """The model itself raised, or gave something that can't be sent."""

    code, status = "model_failed", 500


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client asks: the inputs in the order given, and the outputs wanted (none named: all of them).

    `binary` tells for the outputs named whether they are wanted as binary data, and under None for the others.
    """

    inputs: Arrays
    outputs: tuple[str, ...] = ()
    id: str | None = None
    binary: Mapping[str | None, bool] = field(default_factory=dict)

    def wants_binary(self, output: str) -> bool:
        return self.binary.get(output, self.binary.get(None, False))


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises InvalidInput; NaN and Infinity are not JSON."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the request is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput("the request is not a JSON object")
    return document


def parse_request(
    body: bytes, signature: Signature, *, header: str | None = None, takes_bytes: bool = False
) -> InferRequest:
    """An inference request whose inputs fit the signature. Raises InvalidInput.

    `header` is what Inference-Header-Content-Length says, if it is there. BYTES that come as binary data become `str`,
    unless the model takes them as they are.
    """
    text, data = binary.split(body, header)
    if header is not None and not text:
        name, array = binary.parse_raw(signature, data)
        document: dict[str, Any] = {"parameters": {"binary_data_output": True}}
        inputs = {name: array}
    else:
        document = parse_object(text)
        inputs = _parse_inputs(document.get("inputs"), binary.Blob(data))
    if not takes_bytes:
        inputs = {name: decoded(name, array) for name, array in inputs.items()}
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidInput("'id' is not a string")
    if signature.inputs:
        check_inputs(inputs, signature.inputs)
    outputs = _parse_outputs(document.get("outputs"), signature)
    wanted: dict[str | None, bool] = {name: flag for name, flag in outputs.items() if flag is not None}
    wanted[None] = bool(_flag(document, "binary_data_output", "the request"))
    return InferRequest(inputs, tuple(outputs), request_id, wanted)


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


def serialize_response(
    outputs: Mapping[str, np.ndarray[Any, Any]], head: Mapping[str, Any], asked: InferRequest | None = None
) -> tuple[bytes, int | None]:
    """An answer, and how long its JSON is if binary data follow. Raises ModelFailed.

    `head` holds model_name, model_version and, when asked with one, id.
    """
    documents, blobs = [], []
    for name, array in outputs.items():
        if asked is not None and asked.wants_binary(name):
            blobs.append(binary.serialize_tensor(array))
            described = {"name": name, "datatype": datatype_of(array), "shape": list(array.shape)}
            documents.append({**described, "parameters": {binary.SIZE: len(blobs[-1])}})
            continue
        require_finite(name, array)
        documents.append(_tensor_document(name, array))
    text = _dump({**head, "outputs": documents})
    return (b"".join([text, *blobs]), len(text)) if blobs else (text, None)


def require_finite(name: str, array: np.ndarray[Any, Any]) -> None:
    """Raises ModelFailed for an output that JSON can't carry."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelFailed(f"output {name!r} holds NaN or infinity, which JSON can't carry")


def _parse_inputs(tensors: Any, blob: binary.Blob) -> Arrays:
    if not isinstance(tensors, list) or not tensors:
        raise InvalidInput("the request has no 'inputs'", remedy="send a list of {name, shape, datatype, data}")
    inputs: Arrays = {}
    for tensor in tensors:
        name, array = _parse_tensor(tensor, blob)
        if name in inputs:
            raise InvalidInput(f"input {name!r} is given twice")
        inputs[name] = array
    blob.end()
    return inputs


def _parse_tensor(tensor: Any, blob: binary.Blob) -> tuple[str, np.ndarray[Any, Any]]:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise InvalidInput("an input has no name", remedy="send {name, shape, datatype, data}")
    name, datatype, shape = tensor["name"], tensor.get("datatype"), tensor.get("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise InvalidInput(f"input {name!r} has datatype {datatype!r}", remedy=f"use one of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise InvalidInput(f"input {name!r} has shape {shape!r}", remedy="send a list of lengths")
    if len(shape) > _MOST_DIMENSIONS or prod(filter(None, shape)) > _MOST_VALUES:
        raise InvalidInput(f"the shape of input {name!r} is larger than any tensor", remedy="send smaller lengths")
    parameters = _parameters(tensor, f"input {name!r}")
    if binary.SIZE in parameters:
        if "data" in tensor:
            raise InvalidInput(f"input {name!r} has both 'data' and {binary.SIZE}", remedy="send one of them")
        return name, binary.parse_tensor(name, datatype, shape, blob.take(name, parameters[binary.SIZE]))
    if not isinstance(data := tensor.get("data"), list):
        raise InvalidInput(f"input {name!r} has no 'data' list", remedy=f"send it, or binary data with {binary.SIZE}")
    array = _strings(name, data) if datatype == "BYTES" else _numbers(name, data, datatype)
    if array.shape != tuple(shape) and not (array.ndim == 1 and array.size == prod(shape)):
        raise InvalidInput(f"input {name!r} says shape {shape} but its data has shape {list(array.shape)}")
    return name, array.reshape(shape)


def _parameters(document: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidInput(f"the 'parameters' of {where} are not an object")
    return parameters


def _flag(document: Mapping[str, Any], key: str, where: str) -> bool | None:
    flag = _parameters(document, where).get(key)
    if flag is not None and not isinstance(flag, bool):
        raise InvalidInput(f"{key} of {where} is {flag!r}", remedy="send true or false")
    return flag


def decoded(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array, with `str` in place of `bytes`. Raises InvalidInput."""
    if array.dtype != object or not any(isinstance(value, bytes) for value in array.flat):
        return array
    texts = np.empty(array.size, dtype=object)
    try:
        texts[:] = [value.decode() if isinstance(value, bytes) else value for value in array.flat]
    except UnicodeDecodeError:
        raise InvalidInput(f"the binary data of input {name!r} are not UTF-8", remedy="the model takes text") from None
    return texts.reshape(array.shape)


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
    fits = all(type(value) is int and 0 <= value < 2**64 for value in exact.ravel())
    return exact.astype(np.uint64) if fits else otherwise


def _strings(name: str, data: list[Any]) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = np.array(data, dtype=object)
    except ValueError:
        raise InvalidInput(f"the data of input {name!r} is not rectangular") from None
    if not all(isinstance(value, str) for value in array.ravel()):  # `flat` takes fewer dimensions
        raise InvalidInput(f"the data of input {name!r} does not hold strings only")
    return array


def _parse_outputs(wanted: Any, signature: Signature) -> dict[str, bool | None]:
    """The outputs asked for by name, and whether as binary data; None: as the request says of all."""
    if wanted is None:
        return {}
    if not isinstance(wanted, list) or not all(isinstance(w, dict) and isinstance(w.get("name"), str) for w in wanted):
        raise InvalidInput("'outputs' is not a list of {name}")
    known = [tensor.name for tensor in signature.outputs]
    for name in (w["name"] for w in wanted):
        if known and name not in known:
            raise InvalidInput(f"the model has no output {name!r}", remedy=f"it gives {_listed(known)}")
    return {w["name"]: _flag(w, "binary_data", f"output {w['name']!r}") for w in wanted}


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
