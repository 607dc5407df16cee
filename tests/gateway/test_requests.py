"""What a client gets through the gateway."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from modelyard import __version__
from modelyard.gateway import Endpoint, Gateway, Route, RouteTable
from modelyard.settings import GatewaySettings
from ports import free_port

from .conftest import BODY_LIMIT
from .upstreams import Client, CountingServer, Upstream, backend, closing_server, wait_for

Start = Callable[[str], Upstream]
V1 = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank")
NAMES = ("ns/digit", "ns/digit:production", "ns/digit:v1.0.0")


@pytest.fixture(scope="module")
def settings() -> GatewaySettings:
    return GatewaySettings(port=free_port(), body_limit=BODY_LIMIT)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, settings: GatewaySettings) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"), settings)
    gateway.start()
    yield gateway
    gateway.stop(drain_s=0)


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream("digit") as server:
        yield server


@pytest.fixture
def digit(gateway: Gateway, server: Upstream) -> Upstream:
    """One replica of ns/digit under three names, and a model without any."""
    server.forget()
    one, empty = backend("ns/digit", server.endpoint()), backend("empty")
    gateway.apply(
        RouteTable((one, empty), (Route(NAMES, ((one.cluster, 1),)), Route(("empty",), ((empty.cluster, 1),))))
    )
    return server


@pytest.mark.parametrize("path", V1)
@pytest.mark.parametrize("name", NAMES)
def test_v1_goes_by_the_model_in_the_body(digit: Upstream, client: Client, path: str, name: str) -> None:
    answer = client.post(name, path)
    assert answer.status == 200
    assert (answer.json()["path"], answer.json()["model"]) == (path, name)
    assert answer.headers["x-modelyard-model"] == f"ns/digit:v1.0.0@sha256:{'0' * 64}"


@pytest.mark.parametrize("rest", ["", "/ready", "/infer", "/versions/1/infer", "/infer?trace=1"])
@pytest.mark.parametrize("name", ["ns/digit", "ns%2Fdigit", "ns/digit:production", "ns%2fdigit%3av1.0.0"])
def test_v2_goes_by_the_path(digit: Upstream, client: Client, name: str, rest: str) -> None:
    answer = client.ask("GET" if rest in ("", "/ready") else "POST", f"/v2/models/{name}{rest}")
    assert answer.status == 200
    assert answer.json()["path"] == "/v2/models/ns/digit" + rest.partition("?")[0]
    assert answer.headers["x-modelyard-model"].startswith("ns/digit:v1.0.0@")


def test_v2_bodies_may_be_anything(digit: Upstream, client: Client) -> None:
    for content_type in ("application/octet-stream", "application/json"):
        answer = client.ask("POST", "/v2/models/ns/digit/infer", b"\x00\x01{", content_type)
        assert (answer.status, answer.json()["size"]) == (200, 3)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json;charset=utf-8",
        "application/json; charset=utf-8",
        "application/json; charset=UTF-8",
        'application/json; charset="utf-8"',
        "Application/JSON ; Charset=Utf-8",
        "application/json; charset=utf8; profile=x",
        "application/vnd.api+json",
    ],
)
def test_every_json_content_type_is_taken(digit: Upstream, client: Client, content_type: str) -> None:
    answer = client.ask("POST", "/v1/embeddings", {"model": "ns/digit"}, content_type)
    assert (answer.status, answer.json()["headers"]["content-type"]) == (200, content_type)


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/jsonl", "application/x-www-form-urlencoded"])
def test_other_content_types_are_told_what_to_send(digit: Upstream, client: Client, content_type: str) -> None:
    answer = client.ask("POST", "/v1/embeddings", b'{"model": "ns/digit"}', content_type)
    assert answer.status == 415
    assert "Content-Type: application/json" in answer.error()["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "missing_model"),
        (b"{}", "missing_model"),
        (b"[1]", "missing_model"),
        (b'{"model": null}', "missing_model"),
        (b'{"model": {"name": "ns/digit"}}', "missing_model"),
        (b'{"model": 7}', "invalid_model"),
        (b'{"model": true}', "invalid_model"),
        (b'{"model": "ns/digit"', "invalid_json"),
        (b"model=ns/digit", "invalid_json"),
    ],
)
def test_a_body_that_names_no_model_is_a_400(digit: Upstream, client: Client, body: bytes, code: str) -> None:
    answer = client.ask("POST", "/v1/chat/completions", body)
    assert (answer.status, answer.error()["code"]) == (400, code)
    assert answer.error()["type"] == "invalid_request_error"
    assert not digit.seen


def test_the_last_of_duplicate_keys_counts(digit: Upstream, client: Client) -> None:
    answer = client.ask("POST", "/v1/completions", b'{"model": "empty", "model": "ns/digit"}')
    assert (answer.status, answer.json()["model"]) == (200, "ns/digit")


@pytest.mark.parametrize("name", ["digit", "ns/digit:staging", "", 'qu"ote %REQ(:PATH)%', "ünbekannt", "x" * 5000])
def test_an_unknown_model_is_named_with_what_is_served(digit: Upstream, client: Client, name: str) -> None:
    answer = client.post(name)
    error = answer.error()
    assert answer.status == 404
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")
    assert f"'{name[:120]}'" in error["message"]
    assert error["message"].endswith("served: empty, ns/digit and 2 more; see /v1/models")


def test_an_unknown_model_under_v2(digit: Upstream, client: Client) -> None:
    for path in ("/v2/models/nobody", "/v2/models/ns/dig", "/v2/models/ns/digits", "/v2/models/ns/digit:staging/infer"):
        answer = client.ask("GET", path)
        assert (answer.status, set(answer.json())) == (404, {"error"})
        assert path in answer.json()["error"]
        hint = "see /v1/models" if "/ns/digit" in path else "served: empty, ns/digit and"
        assert hint in answer.json()["error"]


def test_unknown_paths(digit: Upstream, client: Client) -> None:
    for method, path in (("GET", "/"), ("GET", "/v1/nothing"), ("POST", "/v3"), ("GET", "/metrics")):
        answer = client.ask(method, path)
        assert (answer.status, answer.error()["code"]) == (404, "not_found")
    answer = client.ask("GET", "/v2/nothing")
    assert (answer.status, set(answer.json())) == (404, {"error"})


@pytest.mark.parametrize(
    "path",
    ["chat/completions", "completions", "embeddings", "rerank", "models", "models/ns/digit:v1.0.0", "models/nobody"],
)
def test_other_methods_are_told_which_one_to_use(digit: Upstream, client: Client, path: str) -> None:
    wanted, wrong = ("GET", ("POST", "DELETE")) if path.startswith("models") else ("POST", ("GET", "DELETE", "PUT"))
    for method in wrong:
        for query, body in (("", b""), ("?x=1", b'{"model": "ns/digit"}')):
            answer = client.ask(method, f"/v1/{path}{query}", body)
            assert (answer.status, answer.headers["allow"]) == (405, wanted)
            assert answer.error()["code"] == "method_not_allowed"
            assert f"takes {wanted} only" in answer.error()["message"]
    assert not digit.seen


@pytest.mark.parametrize("name", [*NAMES, "empty"])
def test_a_model_is_described_by_its_name(digit: Upstream, client: Client, name: str) -> None:
    for spelling in (name, name.replace("/", "%2F").replace(":", "%3A")):
        answer = client.ask("GET", f"/v1/models/{spelling}")
        assert answer.json() == {"id": name, "object": "model", "created": 0, "owned_by": "modelyard"}
        unknown = client.ask("GET", f"/v1/models/{spelling}s")
        assert (unknown.status, unknown.error()["code"]) == (404, "model_not_found")
    assert not digit.seen


def test_what_the_gateway_answers_by_itself(gateway: Gateway, client: Client) -> None:
    gateway.apply(RouteTable())
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert client.ask("GET", path).status == 200
    about = client.ask("GET", "/v2")
    assert about.json() == {"name": "modelyard", "version": __version__, "extensions": ["binary_tensor_data"]}
    assert about.headers["content-type"] == "application/json"
    assert client.ask("GET", "/v1/models").json() == {"object": "list", "data": []}
    assert "nothing is served yet" in client.post("digit").error()["message"]


def test_many_versions_in_one_pool(digit: Upstream, gateway: Gateway, client: Client) -> None:
    backends = tuple(replace(backend(f"model-{n:03}", digit.endpoint()), pool="rare") for n in range(200))
    routes = [Route((b.model, f"{b.model}:production", f"{b.model}:v1.0.0"), ((b.id, 1),)) for b in backends]
    gateway.apply(RouteTable(backends, tuple(routes)))
    assert [cluster for cluster, _, _ in gateway.in_flight()] == [backends[0].cluster]
    for one in backends[::40]:
        for name in (one.model, f"{one.model}:v1.0.0"):
            for answer in (client.post(name), client.ask("POST", f"/v2/models/{name}/infer", {})):
                assert answer.json()["headers"]["x-modelyard-served"] == one.label
                assert answer.headers["x-modelyard-model"] == one.label


def test_many_names(digit: Upstream, gateway: Gateway, client: Client) -> None:
    one = backend("digit", digit.endpoint())
    names = [f"model-{n:03}" for n in range(200)]
    gateway.apply(RouteTable((one,), tuple(Route((name,), ((one.cluster, 1),)) for name in names)))
    answer = client.ask("GET", "/v1/models")
    assert len(answer.body) > 4096
    assert [model["id"] for model in answer.json()["data"]] == names
    assert answer.json()["data"][0] == {"id": "model-000", "object": "model", "created": 0, "owned_by": "modelyard"}
    assert client.post("nobody").error()["message"].endswith("model-018, model-019 and 180 more; see /v1/models")
    assert client.post("model-199").status == 200
    assert client.ask("GET", "/v2/models/model-199").status == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v2/models/{}/infer"])
def test_the_body_limit(digit: Upstream, client: Client, settings: GatewaySettings, path: str) -> None:
    def body(size: int) -> bytes:
        start = b'{"model": "ns/digit", "x": "'
        return start + b"a" * (size - len(start) - 2) + b'"}'

    path = path.format("ns/digit")
    answer = client.ask("POST", path, body(BODY_LIMIT))
    assert (answer.status, answer.json()["size"]) == (200, BODY_LIMIT)
    for chunked in (False, True):
        connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=30)
        data = body(BODY_LIMIT + 1)
        parts = iter([data[:100000], data[100000:]]) if chunked else data
        try:
            connection.request("POST", path, parts, {"content-type": "application/json"})
            response = connection.getresponse()
            error = json.loads(response.read())["error"]
        finally:
            connection.close()
        assert response.status == 413
        assert f"over the limit of {BODY_LIMIT} bytes" in (error["message"] if path.startswith("/v1") else error)


def test_no_ready_replica(digit: Upstream, client: Client) -> None:
    answer = client.post("empty")
    assert (answer.status, answer.error()["code"], answer.error()["type"]) == (503, "no_ready_replica", "server_error")
    assert answer.headers["retry-after"] == "1"
    answer = client.ask("POST", "/v2/models/empty/infer", {})
    assert (answer.status, set(answer.json()), answer.headers["retry-after"]) == (503, {"error"}, "1")


def test_draining_replicas_get_nothing_new(gateway: Gateway, client: Client, upstream: Start) -> None:
    old, new = upstream("old"), upstream("new")
    both = backend("digit", old.endpoint(draining=True), new.endpoint())
    route = Route(("digit",), ((both.cluster, 1),))
    gateway.apply(RouteTable((both,), (route,)))
    assert {client.post("digit").json()["server"] for _ in range(20)} == {"new"}
    gateway.apply(RouteTable((backend("digit", old.endpoint(draining=True)),), (route,)))
    assert client.post("digit").error()["code"] == "no_ready_replica"


def test_weights_share_the_requests(gateway: Gateway, client: Client, upstream: Start) -> None:
    one = backend("digit", upstream("one").endpoint())
    two = backend("digit", upstream("two").endpoint(), version="v1.1.0")
    gateway.apply(RouteTable((one, two), (Route(("digit",), ((one.cluster, 3), (two.cluster, 1))),)))
    answers = [client.post("digit") for _ in range(200)]
    by_label = [answer for answer in answers if answer.headers["x-modelyard-model"] == two.label]
    assert 20 < len(by_label) < 85  # 50 expected; 5 standard deviations
    assert by_label == [answer for answer in answers if answer.json()["server"] == "two"]


def test_a_replica_that_is_not_there_costs_no_request(gateway: Gateway, client: Client, upstream: Start) -> None:
    one = backend("digit", upstream("one").endpoint(), Endpoint("127.0.0.1", free_port()))
    gateway.apply(RouteTable((one,), (Route(("digit",), ((one.cluster, 1),)),)))
    assert [client.post("digit").status for _ in range(40)] == [200] * 40


def test_a_request_that_may_have_begun_is_not_sent_again(gateway: Gateway, client: Client) -> None:
    with closing_server() as (port, taken):
        one = backend("digit", Endpoint("127.0.0.1", port))
        gateway.apply(RouteTable((one,), (Route(("digit",), ((one.cluster, 1),)),)))
        answer = client.post("digit")
        assert (answer.status, answer.error()["code"]) == (503, "replica_failed")
        answer = client.ask("POST", "/v2/models/digit/infer", {})
        assert (answer.status, set(answer.json())) == (503, {"error"})
        assert len(taken) == 2


@pytest.mark.parametrize(("keeps_connections", "connections"), [(True, 1), (False, 3)])
def test_an_engine_that_keeps_no_connections_gets_one_for_each_request(
    gateway: Gateway, client: Client, keeps_connections: bool, connections: int
) -> None:
    with CountingServer() as server:
        endpoint = Endpoint("127.0.0.1", server.server_address[1])
        one = replace(backend("digit", endpoint), keeps_connections=keeps_connections)
        gateway.apply(RouteTable((one,), (Route(("digit",), ((one.cluster, 1),)),)))
        assert [client.post("digit").status for _ in range(3)] == [200] * 3
        assert server.connections == connections
        gateway.apply(RouteTable())


def test_streams_come_as_they_are_made(digit: Upstream, settings: GatewaySettings) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=30)
    body = json.dumps({"model": "ns/digit", "stream": 3})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    response = connection.getresponse()
    assert response.read1(100) == b'data: {"a": 1}\n\n'  # before the rest is there
    assert response.read().endswith(b"data: [DONE]\n\n")
    connection.close()


def test_in_flight_counts_and_a_client_that_leaves_cancels(
    digit: Upstream, gateway: Gateway, settings: GatewaySettings
) -> None:
    key = (backend("ns/digit").cluster, "127.0.0.1", digit.port)
    assert gateway.in_flight() == {key: 0}
    connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=30)
    body = json.dumps({"model": "ns/digit", "hold": True})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    wait_for(lambda: gateway.in_flight() == {key: 1})
    connection.close()
    assert digit.cancelled.wait(10)
    wait_for(lambda: gateway.in_flight() == {key: 0})


def test_answers_outlive_the_route_and_the_cluster_they_came_by(
    digit: Upstream, gateway: Gateway, settings: GatewaySettings
) -> None:
    statuses: list[int] = []

    def ask() -> None:
        with Client(settings.port) as client:
            statuses.append(client.post("ns/digit", hold=True).status)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: digit.seen)
    gateway.apply(RouteTable())
    digit.release.set()
    asking.join(20)
    assert statuses == [200]
