"""The gateway with tokens on, before a real model server: refusals too are as the OpenAPI document says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import openapi_requests
from access.support import Office
from modelyard.configuration.sections import RateLimit
from modelyard.gateway import Endpoint, Gateway, Route, RouteTable
from modelyard.gateway.openapi import openapi
from modelyard.settings import GatewaySettings
from openapi_requests import Check, Operation, operations
from ports import free_port
from serving import tiny
from serving.support import serving

from .upstreams import backend

DOCUMENT = openapi()
OPERATIONS = operations(DOCUMENT)
OPEN = [operation for operation in OPERATIONS if DOCUMENT["paths"][operation[0]].get("get", {}).get("security") == []]
MODEL = "ranker"


class Guarded:
    """A gateway with access on before a model that ranks texts."""

    def __init__(self, folder: Path, gateway: Gateway, port: int, model_port: int) -> None:
        self.gateway, self.url, self.office = gateway, f"http://127.0.0.1:{port}", Office(folder)
        served = backend(MODEL, Endpoint("127.0.0.1", model_port))
        names = (MODEL, f"{MODEL}:production")
        self.table = RouteTable((served,), (Route(names, ((served.id, 1),)),))
        self.apply()

    def apply(self, **limits: RateLimit) -> None:
        self.gateway.apply(replace(self.table, access=self.office.rules, limits=limits))

    def ask(
        self, *wanted: int, of: Sequence[Operation] = OPERATIONS, token: str | None = None, examples: int = 2
    ) -> None:
        """Requests whose answers have one of the wanted statuses, if there are any, and the shape that is told."""

        def as_wanted(_context: Any, response: Any, _case: Any) -> None:
            assert not wanted or response.status_code in wanted, response.text

        headers = {"authorization": f"Bearer {token}"} if token else {}
        checks: Sequence[Check] = (as_wanted, openapi_requests.no_failure, openapi_requests.as_documented)
        for operation in of:
            openapi_requests.ask(
                DOCUMENT,
                self.url,
                operation,
                checks=checks,
                prepare=ask_for_the_model,
                examples=examples,
                headers=headers,
            )


def ask_for_the_model(case: Any, _number: int) -> None:
    if isinstance(case.body, dict):
        case.body["model"] = MODEL
    for name in case.path_parameters or {}:
        case.path_parameters[name] = MODEL


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder, port, model_port = tmp_path_factory.mktemp("guarded"), free_port(), free_port()
    tiny.texts(folder / MODEL, "BertForSequenceClassification", ["LABEL_0"])
    (folder / MODEL / "README.md").write_text("---\npipeline_tag: text-ranking\n---\n")
    gateway = Gateway(folder / "gateway", GatewaySettings(port=port))
    with serving(folder, [tiny.inspected(folder / MODEL, MODEL)], model_port) as server:
        gateway.start()
        try:
            server.wait_ready()
            yield Guarded(folder, gateway, port, model_port)
        finally:
            gateway.stop(drain_s=0)


def test_without_a_token_all_but_health_is_refused(guarded: Guarded) -> None:
    guarded.ask(200, of=OPEN)
    guarded.ask(401, of=[operation for operation in OPERATIONS if operation not in OPEN])


def test_with_a_token(guarded: Guarded) -> None:
    guarded.ask(token=guarded.office.token("caller"), examples=8)


def test_with_a_token_for_another_model(guarded: Guarded) -> None:
    named = [operation for operation in OPERATIONS if "{name}" in operation[0]]
    guarded.ask(403, of=named, token=guarded.office.token("caller", ("another",)))


def test_more_requests_than_the_limit(guarded: Guarded) -> None:
    token = guarded.office.token("caller")
    ready = [operation for operation in OPERATIONS if operation[0].endswith("/ready") and "{name}" in operation[0]]
    guarded.apply(**{MODEL: RateLimit(requests_per_minute=1, burst=1)})
    guarded.ask(200, 429, of=ready, token=token)
    guarded.ask(429, of=ready, token=token)
    guarded.apply()
