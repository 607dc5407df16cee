from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelyard.errors import InvalidInput, ModelyardError
from modelyard.repository.manifest import Signature, Tensor
from modelyard.serving.datatypes import DATATYPES
from modelyard.serving.protocol import InferRequest, datatype_of, parse_request, serialize_response

SIGNATURE = Signature((Tensor("x", "FP32", (-1, 2)),), (Tensor("y", "FP32", (-1, 1)), Tensor("z", "FP32", (-1, 1))))
TEXT = Signature((Tensor("text", "BYTES", (-1,)),), (Tensor("y", "FP32", (-1, 1)),))
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def any_array(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    datatype = draw(st.sampled_from(sorted(DATATYPES)))
    elements = st.binary(max_size=8) if datatype == "BYTES" else arrays.from_dtype(DATATYPES[datatype], allow_nan=False)
    array: np.ndarray[Any, Any] = draw(arrays.arrays(DATATYPES[datatype], SHAPES, elements=elements))
    return array


@given(st.lists(any_array(), min_size=1, max_size=4))
def test_what_is_sent_as_binary_data_is_read_as_it_was(tensors: list[np.ndarray[Any, Any]]) -> None:
    """An answer's outputs, written by us, are read again as a request's inputs: both have one form."""
    outputs = {f"t{number}": array for number, array in enumerate(tensors)}
    body, length = serialize_response(outputs, {}, InferRequest({}, binary={None: True}))
    assert length is not None
    document = json.loads(body[:length])
    request = json.dumps({"inputs": document["outputs"]}).encode()
    parsed = parse_request(request + body[length:], Signature(), header=str(len(request)), takes_bytes=True)
    for name, array in outputs.items():
        assert datatype_of(parsed.inputs[name]) == datatype_of(array)
        assert parsed.inputs[name].flags.writeable
        assert np.array_equal(parsed.inputs[name], array)


@given(st.binary(max_size=64), st.integers(0, 64))
def test_no_bytes_break_it(data: bytes, size: int) -> None:
    tensor = {"name": "x", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [tensor]}).encode()
    try:
        parse_request(text + data, Signature(), header=str(len(text)), takes_bytes=True)
    except ModelyardError as error:
        assert isinstance(error, InvalidInput) and "\n" not in str(error)


def _request(data: bytes = struct.pack("<2f", 1, 2), header: str | None = None, **changes: Any) -> tuple[bytes, str]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": len(data)}}
    text = json.dumps({"inputs": [{**tensor, **changes}]}).encode()
    return text + data, str(len(text)) if header is None else header


def _size(size: Any, data: bytes = b"12345678") -> tuple[bytes, str]:
    return _request(data, parameters={"binary_data_size": size})


def _bytes(data: bytes, shape: list[int]) -> tuple[bytes, str]:
    return _request(data, datatype="BYTES", shape=shape)


BAD = {
    "a header of letters": (_request(header="ten"), "content-length is 'ten'"),
    "a negative header": (_request(header="-1"), "content-length is '-1'"),
    "a header in other digits": (_request(header="²"), "content-length is '²'"),
    "a huge header": (_request(header="9" * 5000), "send the length of the JSON"),
    "a header beyond the body": (_request(header="9999"), "says 9999, but the body has"),
    "a header within the JSON": (_request(header="5"), "not valid JSON"),
    "a size beyond the body": (_size(9), "says 9 bytes of binary data, but 8 are left"),
    "a negative size": (_size(-8), "the binary_data_size -8"),
    "a size of text": (_size("8"), "the binary_data_size '8'"),
    "a size that is true": (_size(True), "the binary_data_size True"),
    "a size of nothing": (_size(None), "the binary_data_size None"),
    "bytes left over": (_size(8, b"123456789"), "1 bytes of binary data belong to no input"),
    "too few for the shape": (_request(b"1234"), "has 4 bytes of binary data; FP32 [1, 2] takes 8"),
    "a shape beyond all memory": (_request(shape=[2**62, 2**62]), "is larger than any tensor"),
    "parameters of no object": (_request(parameters=[8]), "not an object"),
    "a truth of 2": (_request(b"\x02", datatype="BOOL", shape=[1]), "BOOL values only; send 0 or 1"),
    "a cut length": (_bytes(b"\x01\x00", [1]), "ends within the length of an element"),
    "a cut element": (_bytes(b"\x05\x00\x00\x00abc", [1]), "ends within an element of 5 bytes"),
    "too few elements": (_bytes(b"\x01\x00\x00\x00a", [2]), "says shape [2] but its binary data holds 1 elements"),
    "too many elements": (_bytes(b"\x01\x00\x00\x00a" * 2, [1]), "holds more than 1 elements"),
    "no elements": (_bytes(b"", [3]), "holds 0 elements"),
    "another datatype": (_request(b"12345678", datatype="FP64", shape=[1]), "is FP64; the model takes FP32"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_binary_data_get_one_clear_line(case: str) -> None:
    (body, header), expected = BAD[case]
    with pytest.raises(InvalidInput) as caught:
        parse_request(body, SIGNATURE, header=header)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tensor_is_given_once() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], "parameters": {"binary_data_size": 8}}
    text = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(InvalidInput, match="has both 'data' and binary_data_size"):
        parse_request(text + b"12345678", SIGNATURE, header=str(len(text)))


def test_binary_data_and_json_stand_beside_each_other() -> None:
    tensors = [
        {"name": "a", "datatype": "INT16", "shape": [2], "parameters": {"binary_data_size": 4}},
        {"name": "b", "datatype": "INT16", "shape": [1], "data": [7]},
        {"name": "c", "datatype": "UINT8", "shape": [1], "parameters": {"binary_data_size": 1}},
    ]
    text = json.dumps({"inputs": tensors}).encode()
    parsed = parse_request(text + b"\x01\x00\x00\x01\x09", Signature(), header=str(len(text)))
    assert {name: array.tolist() for name, array in parsed.inputs.items()} == {"a": [1, 256], "b": [7], "c": [9]}


def test_text_is_decoded_and_other_bytes_are_for_models_that_take_them() -> None:
    for data, takes_bytes, expected in ((b"caf\xc3\xa9", False, "café"), (b"\xff\xd8", True, b"\xff\xd8")):
        body, header = _request(struct.pack("<I", len(data)) + data, name="text", datatype="BYTES", shape=[1])
        parsed = parse_request(body, TEXT, header=header, takes_bytes=takes_bytes)
        assert parsed.inputs["text"].tolist() == [expected]
    with pytest.raises(InvalidInput, match="input 'text' are not UTF-8; the model takes text"):
        parse_request(body, TEXT, header=header)


def test_a_body_without_json_is_the_only_input() -> None:
    assert parse_request(b"a text", TEXT, header="0").inputs["text"].tolist() == ["a text"]
    asked = parse_request(struct.pack("<4f", 1, 2, 3, 4), SIGNATURE, header="0")
    assert asked.inputs["x"].tolist() == [[1, 2], [3, 4]]
    assert asked.wants_binary("y")


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ((), "the model has 0 inputs"),
        ((Tensor("a", "FP32", (-1, 2)),), "9 bytes do not tell the shape"),
        ((Tensor("a", "UINT8", (-1, -1)),), "9 bytes do not tell the shape"),
        ((Tensor("a", "UINT8", (0, -1)),), "9 bytes do not tell the shape"),
        ((Tensor("a", "BYTES", (2,)),), "has more than one element"),
    ],
)
def test_a_body_without_json_that_says_too_little(inputs: tuple[Tensor, ...], expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected):
        parse_request(b"123456789", Signature(inputs), header="0")


@pytest.mark.parametrize(
    ("request_flag", "output_flag", "binary"),
    [(None, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
def test_outputs_come_as_they_are_wanted(request_flag: bool | None, output_flag: bool | None, binary: bool) -> None:
    document: dict[str, Any] = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    document["outputs"] = [{"name": "z"}, {"name": "y"}]
    if request_flag is not None:
        document["parameters"] = {"binary_data_output": request_flag}
    if output_flag is not None:
        document["outputs"][1]["parameters"] = {"binary_data": output_flag}
    asked = parse_request(json.dumps(document).encode(), SIGNATURE)
    assert asked.outputs == ("z", "y")
    assert asked.wants_binary("y") is binary
    assert asked.wants_binary("z") is bool(request_flag)


def test_a_flag_that_is_no_truth_is_refused() -> None:
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}], "parameters": %s}'
    with pytest.raises(InvalidInput, match="binary_data_output of the request is 1; send true or false"):
        parse_request(body % b'{"binary_data_output": 1}', SIGNATURE)


def test_binary_data_carry_what_json_cannot() -> None:
    body, length = serialize_response({"y": np.array([np.nan], np.float32)}, {}, InferRequest({}, binary={"y": True}))
    assert length is not None and np.isnan(np.frombuffer(body[length:], "<f4")).all()
