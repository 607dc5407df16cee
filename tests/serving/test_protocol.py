from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelyard.errors import InvalidInput
from modelyard.repository.manifest import Signature, Tensor
from modelyard.serving.datatypes import DATATYPES
from modelyard.serving.protocol import (
    ModelFailed,
    datatype_of,
    parse_request,
    serialize_request,
    serialize_response,
    shape_fits,
)

SIGNATURE = Signature((Tensor("x", "FP32", (-1, 2)),), (Tensor("y", "FP32", (-1, 1)),))
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def _elements(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BYTES":
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    return arrays.from_dtype(DATATYPES[datatype], allow_nan=False, allow_infinity=False)


@st.composite
def any_array(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    datatype = draw(st.sampled_from(sorted(DATATYPES)))
    array: np.ndarray[Any, Any] = draw(arrays.arrays(DATATYPES[datatype], SHAPES, elements=_elements(datatype)))
    return array


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), any_array(), min_size=1))
def test_requests_come_back_as_they_were_sent(inputs: dict[str, np.ndarray[Any, Any]]) -> None:
    request = parse_request(serialize_request(inputs, request_id="7"), Signature())
    assert request.id == "7"
    assert list(request.inputs) == list(inputs)
    for name, array in inputs.items():
        assert request.inputs[name].dtype == array.dtype
        assert np.array_equal(request.inputs[name], array)


@given(any_array())
def test_answers_hold_what_the_model_gave(array: np.ndarray[Any, Any]) -> None:
    document = json.loads(serialize_response({"y": array}, {"model_name": "m", "model_version": "v1.0.0"})[0])
    output = document["outputs"][0]
    assert output["shape"] == list(array.shape)
    assert output["datatype"] == datatype_of(array)
    assert np.array_equal(np.array(output["data"], dtype=array.dtype).reshape(array.shape), array)


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=4), elements=_elements("FP32")))
def test_nested_data_is_flat_data(array: np.ndarray[Any, Any]) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": list(array.shape), "data": array.tolist()}
    request = parse_request(json.dumps({"inputs": [tensor]}).encode(), Signature())
    assert np.array_equal(request.inputs["x"], array)


def _request(**changes: Any) -> bytes:
    return json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **changes}]}
    ).encode()


def _nested(value: Any, depth: int) -> Any:
    return [_nested(value, depth - 1)] if depth else value


BAD_REQUESTS = {
    "not JSON": (b"{", "not valid JSON"),
    "NaN": (_request(data=[1, float("nan")]), "not valid JSON"),
    "an array": (b"[]", "not a JSON object"),
    "no inputs": (b"{}", "no 'inputs'"),
    "inputs of no list": (b'{"inputs": {}}', "no 'inputs'"),
    "input without a name": (b'{"inputs": [{}]}', "has no name"),
    "same input twice": (b'{"inputs": [%b, %b]}' % ((_request()[12:-2],) * 2), "given twice"),
    "no data": (_request(data=None), "no 'data' list"),
    "unknown datatype": (_request(datatype="FP8"), "'FP8'"),
    "datatype of no text": (_request(datatype=[]), "datatype []"),
    "negative shape": (_request(shape=[-1, 2]), "shape [-1, 2]"),
    "shape of floats": (_request(shape=[1.0, 2]), "shape [1.0, 2]"),
    "shape against data": (_request(shape=[2, 2]), "says shape [2, 2] but its data has shape [2]"),
    "nested otherwise": (_request(shape=[2, 1], data=[[1, 2]]), "says shape [2, 1]"),
    "a length beyond all": (_request(shape=[0, 2**63], data=[]), "larger than any tensor"),
    "lengths beyond all": (_request(shape=[2**40, 2**40, 0], data=[]), "larger than any tensor"),
    "too many lengths": (_request(shape=[1] * 33, data=[1]), "larger than any tensor"),
    "deep text": (_request(datatype="BYTES", data=[_nested("a", 60)]), "its data has shape [1, 1"),
    "deep integers": (_request(datatype="UINT64", data=_nested([2**63, 1], 60)), "its data has shape [1, 1"),
    "ragged": (_request(data=[[1, 2], [3]]), "not rectangular"),
    "null": (_request(data=[1, None]), "FP32 values only"),
    "text for numbers": (_request(data=["1", "2"]), "FP32 values only"),
    "booleans for numbers": (_request(data=[True, False]), "FP32 values only"),
    "floats for integers": (_request(datatype="INT32", data=[1.5, 2]), "INT32 values only"),
    "numbers for booleans": (_request(datatype="BOOL"), "BOOL values only"),
    "numbers for text": (_request(datatype="BYTES"), "strings only"),
    "too big an integer": (_request(datatype="INT8", data=[1, 128]), "does not fit into INT8"),
    "negative unsigned": (_request(datatype="UINT8", data=[1, -1]), "does not fit into UINT8"),
    "huge integer": (_request(datatype="UINT64", data=[1, 2**64]), "UINT64"),
    "too big a float": (_request(data=[1, 1e39]), "does not fit into FP32"),
    "other datatype": (_request(datatype="FP64"), "is FP64; the model takes FP32"),
    "other width": (_request(shape=[1, 3], data=[1, 2, 3]), "has shape [1, 3]; the model takes [-1, 2]"),
    "other rank": (_request(shape=[2]), "has shape [2]; the model takes [-1, 2]"),
    "unknown input": (_request(name="z"), "no input 'z'; it takes 'x'"),
    "unknown output": (_request()[:-1] + b', "outputs": [{"name": "z"}]}', "no output 'z'; it gives 'y'"),
    "outputs of no list": (_request()[:-1] + b', "outputs": ["y"]}', "not a list of {name}"),
    "id of no text": (_request()[:-1] + b', "id": 7}', "'id' is not a string"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_requests_get_one_clear_line(case: str) -> None:
    body, expected = BAD_REQUESTS[case]
    with pytest.raises(InvalidInput) as caught:
        parse_request(body, SIGNATURE)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_input_is_named() -> None:
    two = Signature((Tensor("x", "FP32", (-1, 2)), Tensor("mask", "BOOL", (-1,))))
    with pytest.raises(InvalidInput, match="input 'mask' is missing"):
        parse_request(_request(), two)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_json_cannot_carry_are_errors(value: float) -> None:
    with pytest.raises(ModelFailed, match="output 'y' holds NaN or infinity"):
        serialize_response({"y": np.array([value])}, {})


def test_a_length_of_minus_one_fits_any() -> None:
    assert shape_fits((5, 2), (-1, 2))
    assert not shape_fits((5, 3), (-1, 2))
    assert not shape_fits((5,), (-1, 2))
