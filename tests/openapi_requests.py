"""Requests made from an OpenAPI document, valid and not, and whether the answers are as the document says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

Document = dict[str, Any]
Operation = tuple[str, str, GenerationMode]
Check = Callable[[Any, Any, Any], None]


def as_documented(context: Any, response: Any, case: Any) -> None:
    for check in (
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
    ):
        check(context, response, case)


def no_failure(_context: Any, response: Any, _case: Any) -> None:
    assert response.status_code < 500, response.text


def operations(document: Document) -> list[Operation]:
    """Each in every mode that it has: what has neither a body nor a query can't be asked for wrongly. What paths can't
    hold is a matter of its own (odd_requests.py)."""
    return sorted(
        (path, method, mode)
        for path, item in document["paths"].items()
        for method in item.keys() & {"get", "head", "post"}
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or "requestBody" in item[method] or _places(item, method) & {"query"}
    )


def ask(
    document: Document,
    url: str,
    operation: Operation,
    *,
    checks: Sequence[Check] = (no_failure, as_documented),
    prepare: Callable[[Any, int], None] = lambda _case, _number: None,
    examples: int = 20,
    headers: dict[str, str] | None = None,
) -> None:
    """Requests of one operation, always the same ones; `prepare` may change each before it is sent."""
    path, method, mode = operation
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url, request_timeout=60)
    item = document["paths"][path]
    varied = "requestBody" in item[method] or _places(item, method)
    numbers = iter(range(1_000_000))

    @settings(
        max_examples=examples if varied else 1,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        prepare(case, next(numbers))
        case.call_and_validate(checks=list(checks), headers=headers)

    send()


def _places(item: Document, method: str) -> set[str]:
    parameters = [*item.get("parameters", []), *item[method].get("parameters", [])]
    return {parameter["in"] for parameter in parameters}
