"""/metrics: the gateway's counts in Prometheus' format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Route as Address
from starlette.testclient import TestClient

from modelyard.api.metrics import Metrics
from modelyard.deployment.targets.kubernetes.gateways import Gateways
from modelyard.errors import NotFound, StoreError, Unavailable
from modelyard.gateway import Backend, Gateway, Route, RouteTable
from modelyard.gateway.statistics import Histogram, Served, Statistics, read
from modelyard.settings import GatewaySettings
from ports import free_port

from .conftest import Served as ServedYard
from .conftest import minilm

LABELS = ("model", "version", "environment", "engine", "code", "reason", "kind", "le")
DIGIT, GONE, NOBODY = Served("ns/digit", "v1.0.0", "production"), Served("gone", "v2.0.0", "staging"), Served()


@pytest.fixture
def found() -> Statistics:
    return Statistics(
        requests=Counter({(DIGIT, 200): 7, (DIGIT, 503): 1, (GONE, 200): 2, (NOBODY, 404): 3}),
        failures=Counter({(DIGIT, "no_ready_replica"): 1}),
        tokens=Counter({(DIGIT, "prompt"): 40, (DIGIT, "completion"): 9}),
        durations={DIGIT: Histogram(Counter({"0.005": 3, "0.01": 8, "+Inf": 8}), 0.25)},
        first_tokens={DIGIT: Histogram(Counter({"0.005": 1, "0.01": 2, "+Inf": 2}), 0.0125)},
        in_flight=Counter({DIGIT: 4}),
        all_in_flight=5,
    )


def engine_of(ref: str) -> str:
    if ref != "ns/digit:v1.0.0":
        raise NotFound("there is no such version")
    return "pytorch"


def answer(read: Callable[[], Statistics], engine_of: Callable[[str], str] = engine_of, accept: str = "") -> str:
    app = Starlette(routes=[Address("/metrics", Metrics(read, engine_of).answer)])
    response = TestClient(app).get("/metrics", headers={"accept": accept})
    assert response.status_code == 200
    return response.text


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Each sample's name, the values of its labels in the order of LABELS, its value."""
    values: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series = values.setdefault(sample.name, {})
            assert set(sample.labels) <= set(LABELS)
            labels = tuple(sample.labels[name] for name in LABELS if name in sample.labels)
            assert labels not in series
            series[labels] = sample.value
    return values


def test_every_number_has_its_labels(found: Statistics) -> None:
    got = samples(answer(lambda: found))
    digit = ("ns/digit", "v1.0.0", "production", "pytorch")
    assert got["modelyard_requests_total"] == {
        (*digit, "200"): 7,
        (*digit, "503"): 1,
        ("gone", "v2.0.0", "staging", "", "200"): 2,
        ("", "", "", "", "404"): 3,
    }
    assert got["modelyard_request_failures_total"] == {(*digit, "no_ready_replica"): 1}
    assert got["modelyard_tokens_total"] == {(*digit, "prompt"): 40, (*digit, "completion"): 9}
    assert got["modelyard_request_duration_seconds_bucket"][(*digit, "0.01")] == 8
    assert got["modelyard_request_duration_seconds_count"] == {digit: 8}
    assert got["modelyard_request_duration_seconds_sum"] == {digit: 0.25}
    assert got["modelyard_time_to_first_token_seconds_sum"] == {digit: 0.0125}
    assert got["modelyard_requests_in_flight"] == {digit: 4}
    assert (got["modelyard_gateway_requests_in_flight"], got["modelyard_gateway_up"]) == ({(): 5}, {(): 1})


def test_openmetrics_for_those_who_ask_for_it(found: Statistics) -> None:
    text = answer(lambda: found, accept="application/openmetrics-text; version=1.0.0")
    names = {family.name for family in openmetrics.text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
    assert {"modelyard_requests", "modelyard_tokens", "modelyard_request_duration_seconds"} <= names


def test_a_store_that_does_not_answer_costs_the_engine_alone_and_for_once(found: Statistics) -> None:
    asked: list[str] = []

    def flaky(ref: str) -> str:
        asked.append(ref)
        if len(asked) < 3:
            raise StoreError("the store can't be reached")
        return "pytorch"

    metrics = Metrics(lambda: Statistics(in_flight=Counter({DIGIT: 1})), flaky)
    client = TestClient(Starlette(routes=[Address("/metrics", metrics.answer)]))
    engines = [samples(client.get("/metrics").text)["modelyard_requests_in_flight"] for _ in range(4)]
    assert [next(iter(each))[3] for each in engines] == ["", "", "pytorch", "pytorch"]
    assert len(asked) == 3


def test_without_a_gateway_it_says_so() -> None:
    def nothing() -> Statistics:
        raise Unavailable("the gateway does not run")

    assert samples(answer(nothing)) == {"modelyard_gateway_up": {(): 0}}


def test_the_api_has_them(served: ServedYard) -> None:
    response = httpx.get(f"{served.yard.settings.api.url}/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert samples(response.text) == {"modelyard_gateway_up": {(): 0}}


@pytest.fixture
def asked(served: ServedYard) -> Iterator[ServedYard]:
    """Its gateway has answered one request for `minilm:v1.0.0`, which no replica has."""
    version = served.register("minilm:v1.0.0", minilm())
    one = Backend("production", "minilm", f"minilm:v1.0.0@{version.digest}")
    settings = GatewaySettings(port=free_port())
    gateway = Gateway(served.yard.run_folder(served.yard.store) / "gateway", settings)
    gateway.start()
    try:
        gateway.apply(RouteTable((one,), (Route(("minilm",), ((one.id, 1),)),)))
        assert httpx.post(f"{settings.url}/v1/embeddings", json={"model": "minilm"}).status_code == 503
        yield served
    finally:
        gateway.stop(drain_s=0)


def test_the_gateway_of_the_store_is_asked_and_the_engine_is_that_of_the_version(asked: ServedYard) -> None:
    got = samples(httpx.get(f"{asked.yard.settings.api.url}/metrics").text)
    assert got["modelyard_requests_total"] == {("minilm", "v1.0.0", "production", "pytorch", "503"): 1}


def test_what_several_gateways_have_counted_is_added_up(asked: ServedYard) -> None:
    port = asked.yard.settings.api.port
    mine = asked.yard.gateway.counts()
    served = ("minilm", "v1.0.0", "production")
    assert Gateways("127.0.0.1", port).statistics().requests == {(Served(*served), 503): 1}
    assert read(mine, mine).requests == {(Served(*served), 503): 2}


def test_a_gateway_that_does_not_say_what_it_has_counted_is_named(served: ServedYard) -> None:
    port = served.yard.settings.api.port
    with pytest.raises(Unavailable, match=r"gateway at 127.0.0.1 does not say what it has counted: 404, no gateway"):
        Gateways("127.0.0.1", port).statistics()
    with pytest.raises(Unavailable, match=r"the gateways are not found at gateways\.invalid"):
        Gateways("gateways.invalid", port).statistics()
