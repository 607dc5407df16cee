"""The model server answers as its OpenAPI document says, whatever is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import openapi_requests
from modelyard.serving.datatypes import DATATYPES
from modelyard.serving.openapi import openapi
from openapi_requests import Operation, operations
from ports import free_port

from . import tiny
from .support import Model, ServerProcess, serving

DOCUMENT = openapi(repository=True)
NAMES = ("adder", "all-MiniLM-L6-v2", "ranker")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, adder: Model, minilm: Model) -> Iterator[ServerProcess]:
    """A server that loads models at their first request."""
    folder = tmp_path_factory.mktemp("pool")
    tiny.texts(folder / "ranker", "BertForSequenceClassification", ["LABEL_0"])
    (folder / "ranker" / "README.md").write_text("---\npipeline_tag: text-ranking\n---\n")
    models = [adder, minilm, tiny.inspected(folder / "ranker", "ranker")]
    with serving(folder, models, free_port(), on_demand=True) as process:
        process.wait_ready()
        for name in NAMES:  # while nobody counts the seconds
            httpx.post(f"{process.url}/v2/repository/models/{name}/load", timeout=120).raise_for_status()
        yield process


INPUTS = [{"name": name, "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]} for name in ("a", "b")]


def ask_for_what_is_served(case: Any, number: int) -> None:
    """In three of four requests, so that they get as far as the model; one of four is good."""
    if number % 4 == 0:
        return
    name = NAMES[number % 3]
    if number % 4 == 1 and case.path.endswith("/infer"):
        case.body, case.headers, case.media_type, name = {"inputs": INPUTS}, {}, "application/json", "adder"
    elif isinstance(case.body, dict):
        case.body["model"] = name
    if case.path_parameters:
        case.path_parameters["name"] = name
        if "version" in case.path_parameters:
            case.path_parameters["version"] = "v1.0.0"


@pytest.mark.parametrize("operation", operations(DOCUMENT), ids=str)
def test_it_answers_as_it_says(pool: ServerProcess, operation: Operation) -> None:
    openapi_requests.ask(DOCUMENT, pool.url, operation, prepare=ask_for_what_is_served)


def test_each_kind_of_server_serves_its_own_document(pool: ServerProcess, server: ServerProcess) -> None:
    assert httpx.get(f"{pool.url}/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
    assert httpx.get(f"{server.url}/openapi.json").json() == json.loads(json.dumps(openapi(repository=False)))
    assert httpx.post(f"{server.url}/v2/repository/index").status_code == 404


def test_the_document_names_every_datatype() -> None:
    tensor = DOCUMENT["components"]["schemas"]["InferRequest"]["properties"]["inputs"]["items"]
    assert tensor["properties"]["datatype"]["enum"] == list(DATATYPES)
