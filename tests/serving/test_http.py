"""The server's routes, answers and refusals, asked over HTTP from a real process with real models."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from .support import Model, ServerProcess, infer_body, wait_for

MODEL_HEADER = "x-modelyard-model"


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def test_the_server_says_what_it_is(client: httpx.Client) -> None:
    assert client.get("/v2").json()["name"] == "modelyard"
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize(
    "name", ["team/linear", "team/linear:v1.0.0", "team/linear/versions/v1.0.0", "team/linear:production"]
)
def test_a_model_answers_to_its_names(client: httpx.Client, linear: Model, name: str) -> None:
    metadata = client.get(f"/v2/models/{name}")
    assert metadata.json() == {
        "name": "team/linear",
        "versions": ["v1.0.0"],
        "platform": "pytorch_torchscript",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    answer = client.post(f"/v2/models/{name}/infer", json=infer_body(1))
    ready = client.get(f"/v2/models/{name}/ready")
    assert answer.json()["outputs"][0]["shape"] == [1, 2]
    for response in (metadata, answer, ready):
        assert response.status_code == 200
        assert response.headers[MODEL_HEADER] == f"team/linear:v1.0.0@{linear.version.digest}"


def test_an_answer_has_the_id_and_the_outputs_asked_for(client: httpx.Client) -> None:
    tensors = [{"name": n, "datatype": "FP32", "shape": [1, 3], "data": [[1, -2, 3]]} for n in ("a", "b")]
    answer = client.post(
        "/v2/models/adder/infer", json={"id": "7", "inputs": tensors, "outputs": [{"name": "positive"}]}
    )
    assert answer.json() == {
        "model_name": "adder",
        "model_version": "v1.0.0",
        "id": "7",
        "outputs": [{"name": "positive", "datatype": "BOOL", "shape": [1, 3], "data": [True, False, True]}],
    }


def test_texts_are_embedded_through_v2_too(client: httpx.Client) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["one", "two"]}
    outputs = client.post("/v2/models/all-MiniLM-L6-v2/infer", json={"inputs": [tensor]}).json()["outputs"]
    assert [(output["name"], output["shape"]) for output in outputs] == [("embedding", [2, 384])]


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_the_openai_client_gets_embeddings(server: ServerProcess, minilm: Model, encoding: Any) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["A cat sits on the mat.", "Stock markets fell."]
    expected = SentenceTransformer(str(minilm.folder), device="cpu", local_files_only=True).encode(texts)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model="all-MiniLM-L6-v2:v1.0.0", input=texts, encoding_format=encoding)
        plain = client.embeddings.create(model="all-MiniLM-L6-v2", input=texts[0], dimensions=384)
        listed = [model.id for model in client.models.list()]
    assert answer.model == "all-MiniLM-L6-v2:v1.0.0"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 15
    vectors: list[Any] = [item.embedding for item in answer.data]
    if encoding == "base64":
        vectors = [np.frombuffer(base64.b64decode(vector), dtype="<f4") for vector in vectors]
    np.testing.assert_allclose(np.array(vectors), expected, atol=1e-5)
    np.testing.assert_allclose(plain.data[0].embedding, expected[0], atol=1e-5)
    assert "all-MiniLM-L6-v2:v1.0.0" in listed


BAD_V2 = {
    "unknown model": (
        "/v2/models/nobody/infer",
        infer_body(1),
        404,
        "no model 'nobody' is served here; ask for team/linear",
    ),
    "unknown version": ("/v2/models/worker:v9.0.0/infer", infer_body(1), 404, "no model 'worker:v9.0.0'"),
    "name that is none": ("/v2/models/a b/infer", infer_body(1), 404, "no model 'a b'"),
    "not JSON": ("/v2/models/worker/infer", b"{", 400, "not valid JSON"),
    "no body": ("/v2/models/worker/infer", b"", 400, "not valid JSON"),
    "wrong input": ("/v2/models/worker/infer", infer_body(1, "z", 1), 400, "no input 'z'"),
    "wrong width": ("/v2/models/worker/infer", infer_body(1), 400, "has shape [1, 4]; the model takes [1, 1]"),
    "model raises": ("/v2/models/worker/infer", infer_body(-1, width=1), 500, "negative work"),
    "unknown path": (
        "/v2/nothing",
        infer_body(1),
        404,
        "there is nothing at /v2/nothing; see /v1/models, /v2 and /openapi.json",
    ),
    "wrong method": ("/v2/health/live", infer_body(1), 405, "/v2/health/live does not take POST; use GET"),
}
TEXT = {"model": "all-MiniLM-L6-v2", "input": "hello"}
BAD_V1 = {
    "no model": ({"input": "hello"}, 400, "names no 'model'"),
    "unknown model": ({**TEXT, "model": "nobody"}, 404, "no model 'nobody'"),
    "no embedder": ({**TEXT, "model": "worker"}, 400, "worker does not embed text; ask it at /v2/models/worker/infer"),
    "no input": ({**TEXT, "input": []}, 400, "neither a string nor a list of strings"),
    "tokens": ({**TEXT, "input": [1, 2]}, 400, "tokens are not taken"),
    "empty text": ({**TEXT, "input": ["a", ""]}, 400, "empty string"),
    "other encoding": ({**TEXT, "encoding_format": "hex"}, 400, "'encoding_format' is 'hex'"),
    "other dimensions": ({**TEXT, "dimensions": 100}, 400, "gives 384 dimensions, not 100"),
    "not an object": ([], 400, "not a JSON object"),
}


@pytest.mark.parametrize("case", BAD_V2)
def test_bad_v2_requests(client: httpx.Client, case: str) -> None:
    path, body, status, expected = BAD_V2[case]
    response = client.post(path, content=body if isinstance(body, bytes) else json.dumps(body).encode())
    assert response.status_code == status
    message = response.json()["error"]
    assert expected in message
    assert "\n" not in message and "Traceback" not in message


@pytest.mark.parametrize("case", BAD_V1)
def test_bad_v1_requests(client: httpx.Client, case: str) -> None:
    body, status, expected = BAD_V1[case]
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == status
    error = response.json()["error"]
    assert expected in error["message"]
    assert error["type"] == "invalid_request_error"


def test_many_at_once_each_get_their_own_answer(client: httpx.Client) -> None:
    def ask(value: int) -> float:
        tensors = [{"name": n, "datatype": "FP32", "shape": [1, 3], "data": [value] * 3} for n in ("a", "b")]
        answer = client.post("/v2/models/adder/infer", json={"inputs": tensors})
        total: float = answer.json()["outputs"][0]["data"][0]
        return total

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(200))) == [2 * value for value in range(200)]


def test_work_of_a_client_that_left_is_dropped(client: httpx.Client, server: ServerProcess) -> None:
    """Long requests whose clients leave would take far longer than the one that stays is willing to wait."""
    body = json.dumps(infer_body(4000, width=1))
    head = f"POST /v2/models/worker/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    blocker = threading.Thread(
        target=client.post, args=("/v2/models/worker/infer",), kwargs={"json": infer_body(1000, width=1)}
    )
    blocker.start()
    address = httpx.URL(server.url)
    for _ in range(30):
        with socket.create_connection((address.host, address.port or 80)) as leaving:
            leaving.sendall((head + body).encode())
            leaving.shutdown(socket.SHUT_WR)
    answer = httpx.post(f"{server.url}/v2/models/worker/infer", json=infer_body(1, width=1), timeout=30)
    blocker.join()
    assert answer.status_code == 200
    wait_for(lambda: server.status("/v2/health/ready") == 200)


def test_tritons_own_client_infers_with_binary_tensors(server: ServerProcess) -> None:
    import tritonclient.http as triton

    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    assert client.is_server_ready()
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    numbers = np.array([[1, -2, 3]], dtype=np.float32)
    inputs = [triton.InferInput(name, [1, 3], "FP32") for name in ("a", "b")]
    for each in inputs:
        each.set_data_from_numpy(numbers)
    answer = client.infer("adder", inputs, outputs=[triton.InferRequestedOutput("sum", binary_data=True)])
    assert answer.as_numpy("sum").tolist() == [[2, -4, 6]]
    text = triton.InferInput("text", [2], "BYTES")
    text.set_data_from_numpy(np.array(["one", "zwölf"], dtype=object))
    asked = {"binary": client.infer("all-MiniLM-L6-v2", [text]), "json": None}
    text.set_data_from_numpy(np.array(["one", "zwölf"], dtype=object), binary_data=False)
    output = triton.InferRequestedOutput("embedding", binary_data=False)
    asked["json"] = client.infer("all-MiniLM-L6-v2", [text], outputs=[output])
    binary, plain = (asked[way].as_numpy("embedding") for way in ("binary", "json"))
    assert binary.shape == (2, 384)
    np.testing.assert_allclose(binary, plain, atol=1e-6)
    client.close()


def test_bad_binary_data_are_refused(client: httpx.Client) -> None:
    answer = client.post("/v2/models/adder/infer", content=b"{}", headers={"Inference-Header-Content-Length": "7"})
    assert answer.status_code == 400
    assert answer.json() == {"error": "the header inference-header-content-length says 7, but the body has 2 bytes"}


def test_a_text_may_be_the_whole_body(client: httpx.Client) -> None:
    answer = client.post(
        "/v2/models/all-MiniLM-L6-v2/infer", content=b"a text", headers={"Inference-Header-Content-Length": "0"}
    )
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert np.frombuffer(answer.content[length:], dtype="<f4").shape == (384,)
