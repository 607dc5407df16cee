"""What one sees of requests afterwards: counts, traces, lines in the access log."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from access.support import Office
from modelyard.configuration.sections import RateLimit
from modelyard.errors import Unavailable
from modelyard.gateway import Backend, Endpoint, Gateway, Route, RouteTable, process, statistics
from modelyard.gateway.clusters import or_else
from modelyard.gateway.statistics import Histogram, Served, Statistics
from modelyard.settings import GatewaySettings
from ports import free_port

from .upstreams import Client, Upstream, backend, wait_for

Start = Callable[[str], Upstream]
TRACE = "0af7651916cd43dd8448eb211c80319c"
DIGIT = Served("ns/digit", "v1.0.0", "production")


@pytest.fixture
def settings(tmp_path: Path) -> GatewaySettings:
    return GatewaySettings(port=free_port(), access_log=tmp_path / "access.jsonl")


def apply(gateway: Gateway, *backends: Backend) -> None:
    gateway.apply(RouteTable(backends, tuple(Route((b.model,), ((b.id, 1),)) for b in backends)))


def counted(histograms: Mapping[Served, Histogram]) -> int:
    return sum(histogram.buckets["+Inf"] for histogram in histograms.values())


def seen(gateway: Gateway, condition: Callable[[Statistics], object]) -> Statistics:
    """The statistics as soon as they fit: histograms follow within a second."""
    wait_for(lambda: condition(gateway.statistics()))
    return gateway.statistics()


def lines(settings: GatewaySettings, count: int) -> list[dict[str, Any]]:
    path = settings.access_log
    assert path is not None
    wait_for(lambda: path.exists() and path.read_text().count("\n") >= count)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_requests_are_counted_by_version_and_status(gateway: Gateway, client: Client, upstream: Start) -> None:
    apply(gateway, backend("ns/digit", upstream("one").endpoint()), backend("empty"))
    asked = ["ns/digit", "ns/digit", "empty", "no-such-model", "another-one"]
    assert [client.post(model).status for model in asked] == [200, 200, 503, 404, 404]
    empty = Served("empty", "v1.0.0", "production")
    found = seen(gateway, lambda found: counted(found.durations) == 5)
    assert found.requests == {(DIGIT, 200): 2, (empty, 503): 1, (Served(), 404): 2}
    assert found.failures == {(empty, "no_ready_replica"): 1}
    assert found.durations[DIGIT].buckets["+Inf"] == 2
    assert 0 < found.durations[DIGIT].total < 30


def test_tokens_of_answers_and_of_streams(gateway: Gateway, client: Client, upstream: Start) -> None:
    apply(gateway, backend("ns/digit", upstream("one").endpoint()))
    client.post("ns/digit", usage={"prompt_tokens": 3, "completion_tokens": 2})
    client.post("ns/digit", usage={"prompt_tokens": 2, "completion_tokens": 4}, kind="application/json; charset=utf-8")
    stream: dict[str, Any] = {"usage": {"prompt_tokens": 7, "completion_tokens": 8}, "stream": True, "events": 3}
    client.post("ns/digit", **stream, stream_options={"include_usage": True})
    client.post("ns/digit", **stream)  # not read: its client did not ask for the usage
    client.post("ns/digit", "/v1/embeddings", usage={"prompt_tokens": 900})  # vectors are not held back to be read
    client.post("ns/digit", usage={"prompt_tokens": "many"})
    found = seen(gateway, lambda found: counted(found.first_tokens) == 2 and counted(found.durations) == 6)
    assert found.tokens == {(DIGIT, "prompt"): 12, (DIGIT, "completion"): 14}
    assert found.first_tokens.keys() == found.durations.keys() == {DIGIT}


def test_a_client_that_hangs_up_and_an_engine_that_dies(
    gateway: Gateway, upstream: Start, settings: GatewaySettings
) -> None:
    server = upstream("one")
    apply(gateway, backend("ns/digit", server.endpoint()))
    body = json.dumps({"model": "ns/digit", "stream": True, "hold": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    with socket.create_connection(("127.0.0.1", settings.port)) as gone:
        gone.sendall(head.encode() + b"\r\n\r\n" + body)
        wait_for(lambda: gateway.statistics().in_flight[DIGIT] == 1)
        assert gateway.statistics().all_in_flight == 1
    found = seen(gateway, lambda found: found.failures)
    assert found.failures == {(DIGIT, "client_gone"): 1}
    wait_for(lambda: gateway.statistics().in_flight[DIGIT] == 0)


def test_counts_survive_changed_routes_and_a_version_that_goes(
    gateway: Gateway, client: Client, upstream: Start, tmp_path: Path
) -> None:
    old = backend("ns/digit", upstream("one").endpoint())
    new = replace(old, label=old.label.replace("v1.0.0", "v1.1.0"), endpoints=(upstream("two").endpoint(),))
    for each in (old, new, old):
        apply(gateway, each)
        assert client.post("ns/digit").status == 200
    found = Gateway(tmp_path / "gateway", GatewaySettings()).statistics()  # as another process asks
    assert found.requests == {(DIGIT, 200): 2, (replace(DIGIT, version="v1.1.0"), 200): 1}


def test_a_gateway_that_does_not_run_has_no_statistics(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not run"):
        Gateway(tmp_path, GatewaySettings()).statistics()


def test_the_access_log_tells_of_requests_without_their_bodies(
    gateway: Gateway, client: Client, upstream: Start, settings: GatewaySettings
) -> None:
    one = backend("ns/digit", upstream("one").endpoint())
    apply(gateway, one)
    answer = client.ask("POST", "/v1/completions?key=secret", {"model": "ns/digit", "prompt": "secret"})
    client.post("nobody\n\"'s")
    client.ask("POST", "/v2/models/ns%2Fdigit/infer", {"inputs": "secret"})
    first, second, third = lines(settings, 3)
    assert (first["method"], first["path"], first["status"], first["flags"]) == ("POST", "/v1/completions", 200, "-")
    assert (first["model"], first["asked"], first["route"]) == (one.label, "ns/digit", "ns/digit")
    assert first["request_id"] == answer.headers["x-request-id"]
    assert first["client"] == "127.0.0.1"
    assert {"time", "duration_ms", "bytes_received", "bytes_sent", "replica"} <= first.keys()
    assert (second["status"], second["route"], second["asked"]) == (404, "model_not_found", "nobody\n\"'s")
    assert (third["status"], third["route"], third["model"]) == (200, "ns/digit", one.label)
    assert settings.access_log is not None
    assert "secret" not in settings.access_log.read_text()


def test_who_is_refused_and_who_asked(
    gateway: Gateway, client: Client, upstream: Start, settings: GatewaySettings, tmp_path: Path
) -> None:
    office, one = Office(tmp_path), backend("ns/digit", upstream("one").endpoint())
    limit = {"ns/digit": RateLimit(requests_per_minute=1)}
    gateway.apply(RouteTable((one,), (Route(("ns/digit",), ((one.id, 1),)),), access=office.rules, limits=limit))
    token = office.token()
    headers: list[dict[str, str]] = [{}, *[{"authorization": f"Bearer {token}"}] * 2]
    answers = [client.ask("POST", "/v1/completions", {"model": "ns/digit"}, headers=each) for each in headers]
    assert [answer.status for answer in answers] == [401, 200, 429]
    requests = gateway.statistics().requests
    assert {status: count for (_, status), count in requests.items()} == {401: 1, 200: 1, 429: 1}
    assert (DIGIT, 429) in requests
    assert not gateway.statistics().failures
    subjects = [line.get("subject") for line in lines(settings, 3)]
    assert subjects[0] is None
    assert subjects[1]
    assert settings.access_log is not None
    assert token not in settings.access_log.read_text()


def test_every_answer_has_a_request_id(gateway: Gateway, client: Client, upstream: Start) -> None:
    server = upstream("one")
    apply(gateway, backend("ns/digit", server.endpoint()))
    answers = [client.post("ns/digit"), client.post("nobody"), client.ask("GET", "/healthz")]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 3
    assert server.seen[0]["headers"]["x-request-id"] == ids[0]


def test_nothing_is_logged_unless_asked_for_and_tokens_need_not_be_read(tmp_path: Path, upstream: Start) -> None:
    settings = GatewaySettings(port=free_port(), token_metrics=False)
    gateway = Gateway(tmp_path / "gateway", settings)
    gateway.start()
    try:
        apply(gateway, backend("ns/digit", upstream("one").endpoint()))
        with Client(settings.port) as client:
            client.post("ns/digit", usage={"prompt_tokens": 5})
        assert gateway.statistics().requests == {(DIGIT, 200): 1}
        assert not gateway.statistics().tokens
    finally:
        gateway.stop(drain_s=0)
    assert [path.name for path in tmp_path.iterdir()] == ["gateway"]


def test_a_log_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    settings = GatewaySettings(port=free_port(), access_log=tmp_path / "nowhere" / "access.jsonl")
    gateway = Gateway(tmp_path / "gateway", settings)
    with pytest.raises(Unavailable, match=r"nowhere/access\.jsonl: there is no folder .*; set gateway\.access_log"):
        gateway.start()
    assert not gateway.alive()


def test_traces_go_to_the_receiver_and_on_to_the_engine(tmp_path: Path, upstream: Start) -> None:
    receiver, server = upstream("receiver"), upstream("one")
    endpoint = f"http://localhost:{receiver.port}"
    settings = GatewaySettings(port=free_port(), otlp_endpoint=endpoint, access_log=tmp_path / "access.jsonl")
    gateway, one = Gateway(tmp_path / "gateway", settings), backend("ns/digit", server.endpoint())
    gateway.start()
    try:
        apply(gateway, one)
        traced = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        with Client(settings.port) as client:
            for _ in range(3):  # with five spans Envoy sends them on at once
                client.ask("POST", "/v1/completions", {"model": "ns/digit"}, headers=traced)
        wait_for(lambda: receiver.bodies)
        apply(gateway, backend("other"))  # the receiver's cluster is none of the table's
    finally:
        gateway.stop(drain_s=0)
    assert receiver.seen[0]["path"] == "/v1/traces"
    request = ExportTraceServiceRequest()
    request.ParseFromString(receiver.bodies[0])
    spans = [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    attributes = {each.key: each.value.string_value for span in spans for each in span.attributes}
    assert attributes["modelyard.model"] == one.label
    engine_saw = server.seen[0]["headers"]["traceparent"].split("-")
    assert engine_saw[1] == TRACE
    assert engine_saw[2] in {span.span_id.hex() for span in spans}
    assert lines(settings, 1)[0]["trace_id"] == TRACE


@pytest.mark.parametrize(
    ("status", "flags", "forwarded", "reason"),
    [
        (200, "-", True, None),
        (404, "-", True, None),
        (429, "-", False, None),
        (500, "-", True, "engine_error"),
        (503, "-", False, None),
        (200, "DC", True, "client_gone"),
        (0, "DC", False, "client_gone"),
        (503, "UF,URX", True, "replica_failed"),
        (200, "UPE", True, "replica_failed"),
        (504, "UT", True, "timeout"),
        (503, "UO", True, "overloaded"),
    ],
)
def test_failures_have_reasons(status: int, flags: str, forwarded: bool, reason: str | None) -> None:
    assert statistics.failure(status, flags, forwarded=forwarded) == reason


def test_versions_in_a_pool_are_told_apart(tmp_path: Path) -> None:
    endpoint = Endpoint("127.0.0.1", 9001)
    both = tuple(replace(backend("digit", endpoint, version=v), pool="rare") for v in ("v1.0.0", "v1.1.0"))
    statistics.remember(tmp_path, RouteTable(both))
    cluster = both[0].cluster
    text = "".join(
        f'envoy_modelyard_requests{{of="{label}|{cluster}|{status}|-"}} {count}\n'
        for label, status, count in ((both[0].label, 200, 3), (both[1].label, 200, 4), ("", 429, 5))
    )
    text += f'envoy_cluster_upstream_rq_active{{envoy_cluster_name="{cluster}"}} 2\n'
    found = statistics.read((text, statistics.known(tmp_path)))
    old, new = (Served("digit", version, "production") for version in ("v1.0.0", "v1.1.0"))
    shared = Served("", "", "production")
    assert found.requests == {(old, 200): 3, (new, 200): 4, (shared, 429): 5}
    assert found.in_flight == {shared: 2}


def test_what_a_fallback_answers_is_counted_for_it(tmp_path: Path) -> None:
    first, spare = backend("first"), backend("spare")
    statistics.remember(tmp_path, RouteTable((first, spare)))
    text = f'envoy_modelyard_requests{{of="{spare.label}|{or_else(first)}|200|-"}} 3\n'
    text += f'envoy_modelyard_requests{{of="|{or_else(first)}|503|UO"}} 1\n'
    found = statistics.read((text, statistics.known(tmp_path)))
    assert found.requests == {
        (Served("spare", "v1.0.0", "production"), 200): 3,
        (Served("first", "v1.0.0", "production"), 503): 1,
    }


def test_what_clusters_stand_for_is_kept_until_envoy_starts_anew(gateway: Gateway, tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    for model in ("a", "b"):
        apply(gateway, backend(model))
    assert [labels[0].partition(":")[0] for _, labels in statistics.known(folder).values()] == ["a", "b"]
    gateway.stop(drain_s=0)
    gateway.start()
    assert statistics.known(folder) == {}
    assert process.recorded(folder) is not None
