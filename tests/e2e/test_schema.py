"""Requests made from the OpenAPI document, valid and not: no answer is a failure of the server, and each has the shape
that the document says."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from modelyard.gateway.openapi import openapi

from .conftest import EMBEDDER, GRAPH, LANGUAGE, Place

PATHS = openapi()["paths"]
# What has neither parameters nor a body can't be asked for wrongly.
OPERATIONS = [
    (path, method, mode)
    for path, item in PATHS.items()
    for method in item.keys() & {"get", "post"}
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or "parameters" in item or "requestBody" in item[method]
]
EXAMPLES = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def no_failure(_context: Any, response: Any, _case: Any) -> None:
    """501 is an engine's own word for what it does not do, such as embeddings by a language model."""
    assert response.status_code < 500 or response.status_code == 501, response.text


def ask_for_what_is_served(case: Any, number: int) -> None:
    """In three of four requests, so that they get as far as the model; answers are kept short."""
    if isinstance(case.body, dict):
        case.body["max_tokens"] = 2
        if number % 4:
            case.body["model"] = (EMBEDDER, LANGUAGE, GRAPH)[number % 3]
    if case.path_parameters and number % 4:
        case.path_parameters["name"] = GRAPH


@pytest.mark.parametrize(("path", "method", "mode"), sorted(OPERATIONS))
def test_the_gateway_answers_as_it_says(place: Place, path: str, method: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(openapi())
    schema.config.update(base_url=place.url)
    numbers = iter(range(1_000_000))

    @EXAMPLES
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        ask_for_what_is_served(case, next(numbers))
        case.call_and_validate(checks=[no_failure, content_type_conformance, response_schema_conformance])

    ask()
