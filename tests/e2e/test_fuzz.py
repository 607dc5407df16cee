"""Whatever bytes come, the gateway and the models behind it answer, in time, and never with a failure of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from .conftest import EMBEDDER, GRAPH, LANGUAGE, Place

GOOD = {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}
EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([10**400, -(2**63), 2**64, "\ud800", "\x00", EMBEDDER, GRAPH]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = ["model", "input", "inputs", "messages", "prompt", "stream", "user", "encoding_format", "dimensions", "id"]
OBJECTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6).map(lambda value: json.dumps(value).encode())
TENSOR_KEYS = ["name", "datatype", "shape", "data", "parameters"]
TENSORS = st.lists(st.dictionaries(st.sampled_from(TENSOR_KEYS), VALUES | st.sampled_from(["x", "FP32"])), max_size=3)
REQUESTS = TENSORS.map(lambda tensors: json.dumps({"inputs": tensors}).encode())
BROKEN = st.sampled_from(
    [
        b"",
        b"{",
        b'{"model"',
        b"[" * 20_000,
        b'{"model": ' * 5_000,
        b'{"model": "' + EMBEDDER.encode() + b'", "input": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'{"model": "\xff\xfe", "input": "x"}',
        b'{"model": "' + EMBEDDER.encode() + b'", "input": "\xc3\x28"}',
        b'{"model": "nobody", "model": "' + EMBEDDER.encode() + b'", "input": "x"}',
        b'{"model": "' + EMBEDDER.encode() + b'", "input": "x", "dimensions": 1' + b"0" * 400 + b"}",
        b'{"model": "' + EMBEDDER.encode() + b'", "input": "x", "user": ' + b"9" * 5000 + b"}",
        b'\xef\xbb\xbf{"model": "x"}',
        b"\x00" * 100,
        b'{"model": 1e999}',
        b'{"model": NaN}',
    ]
)
BODIES = OBJECTS | REQUESTS | BROKEN | st.binary(max_size=200)
PATHS = st.sampled_from(
    [
        "/v1/embeddings",
        f"/v2/models/{GRAPH}/infer",
        f"/v2/models/{EMBEDDER}/infer",
        f"/v2/models/{GRAPH}:v1.0.0/infer",
        f"/v2/models/{GRAPH}/versions/v1.0.0/infer",
        "/v1/nothing",
        "/v2/models//infer",
        f"/v2/models/{GRAPH}/../{EMBEDDER}/infer",
        "/v2/models/%00/infer",
        "/" + "x" * 4000,
    ]
)
TYPES = st.sampled_from(
    [
        "application/json",
        "application/json; charset=utf-8",
        "text/plain",
        "application/octet-stream",
        "x",
        "",
        "a/b;" * 99,
    ]
)


@pytest.fixture(scope="module")
def http(place: Place) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=place.url, timeout=30) as client:
        yield client


def test_whatever_comes_is_answered(http: httpx.Client) -> None:
    @EXAMPLES
    @given(
        method=st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE"]), path=PATHS, kind=TYPES, body=BODIES
    )
    @example("POST", "/v1/embeddings", "application/json", b"[" * 100_000)
    def ask(method: str, path: str, kind: str, body: bytes) -> None:
        answer = http.request(method, path, content=body, headers={"content-type": kind} if kind else {})
        assert answer.status_code < 500, (answer.status_code, answer.text)
        if answer.is_error and "%00" not in path:  # Envoy refuses such a path without a word
            assert answer.json()["error"], answer.text

    ask()
    assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize("key", ["messages", "prompt"])
def test_a_language_model_survives_it_too(http: httpx.Client, key: str) -> None:
    path = {"messages": "/v1/chat/completions", "prompt": "/v1/completions"}[key]

    @settings(EXAMPLES, max_examples=40)
    @given(value=VALUES, more=st.dictionaries(st.sampled_from(["temperature", "top_p", "stop", "seed", "n"]), VALUES))
    def ask(value: Any, more: dict[str, Any]) -> None:
        body = json.dumps({"model": LANGUAGE, key: value, "max_tokens": 2} | more).encode()
        answer = http.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code < 500, answer.text

    ask()
    good = http.post(path, json={"model": LANGUAGE, "max_tokens": 2, **GOOD})
    assert good.status_code == 200, good.text


def test_good_requests_among_bad_ones_get_their_own_answers(http: httpx.Client) -> None:
    """What is computed together must not be mixed up, whatever stands beside it in the batch."""

    def tensor(values: list[float], **other: Any) -> dict[str, Any]:
        return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": values} | other

    def ask(number: int) -> None:
        values = [float(number), -float(number)]
        bad = (tensor([1.0]), tensor(values, shape=[2, 2]), tensor(values, datatype="BYTES"), tensor(values, name="y"))
        asked = tensor(values) if number % 3 else bad[number % len(bad)]
        answer = http.post(f"/v2/models/{GRAPH}/infer", json={"inputs": [asked]})
        if number % 3:
            assert answer.json()["outputs"][0]["data"] == [2 * value for value in values]
        else:
            assert answer.status_code == 400, answer.text

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(600)))
