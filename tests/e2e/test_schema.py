"""Requests made from the OpenAPI document, valid and not: no answer is a failure of the server, and each has the shape
that the document says."""

from __future__ import annotations

from typing import Any

import pytest

import openapi_requests
from modelyard.gateway.openapi import openapi
from openapi_requests import Operation, operations

from .conftest import EMBEDDER, GRAPH, LANGUAGE, Place


def ask_for_what_is_served(case: Any, number: int) -> None:
    """In three of four requests, so that they get as far as the model; answers are kept short. Under /v2 one of four is
    good."""
    if isinstance(case.body, dict):
        case.body["max_tokens"] = 2
        if number % 4:
            case.body["model"] = (EMBEDDER, LANGUAGE, GRAPH)[number % 3]
    for name in (case.path_parameters or {}) if number % 4 else ():
        case.path_parameters[name] = GRAPH
    if number % 4 == 1 and case.path.endswith("/infer"):
        case.body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}


@pytest.mark.parametrize("operation", operations(openapi()), ids=str)
def test_the_gateway_answers_as_it_says(place: Place, operation: Operation) -> None:
    openapi_requests.ask(openapi(), place.url, operation, prepare=ask_for_what_is_served)
