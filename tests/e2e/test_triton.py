"""Triton's own client of the Open Inference Protocol, through the gateway: tensors as JSON and as binary data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from .conftest import EMBEDDER, GRAPH, Place


@pytest.fixture
def triton(place: Place) -> Iterator[Any]:
    import tritonclient.http

    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{place.port}") as client:
        yield client


def test_the_server_and_its_models_are_described(triton: Any) -> None:
    assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready(GRAPH)
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    described = triton.get_model_metadata(GRAPH)
    assert described["name"] == GRAPH
    assert [tensor["name"] for tensor in described["inputs"] + described["outputs"]] == ["x", "y"]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", [GRAPH, f"{GRAPH}:v1.0.0"])
def test_numbers(triton: Any, name: str, binary: bool) -> None:
    import tritonclient.http

    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    given = tritonclient.http.InferInput("x", list(values.shape), "FP32")
    given.set_data_from_numpy(values, binary_data=binary)
    wanted = tritonclient.http.InferRequestedOutput("y", binary_data=binary)
    found = triton.infer(name, [given], outputs=[wanted])
    np.testing.assert_array_equal(found.as_numpy("y"), 2 * values)


@pytest.mark.parametrize("binary", [False, True])
def test_texts(triton: Any, binary: bool) -> None:
    import tritonclient.http

    texts = np.array(["A river.", "Zwölf Bäche"], dtype=object)
    given = tritonclient.http.InferInput("text", [2], "BYTES")
    given.set_data_from_numpy(texts, binary_data=binary)
    found = triton.infer(EMBEDDER, [given], request_id="7")
    assert found.as_numpy("embedding").shape == (2, 384)
    assert found.get_response()["id"] == "7"


def test_a_wrong_tensor_is_the_clients_own_error(triton: Any) -> None:
    import tritonclient.http

    given = tritonclient.http.InferInput("z", [1, 2], "FP32")
    given.set_data_from_numpy(np.zeros((1, 2), np.float32))
    with pytest.raises(tritonclient.http.InferenceServerException, match="no input 'z'"):
        triton.infer(GRAPH, [given])
