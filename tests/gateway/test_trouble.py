"""Clients that leave, engines that die, odd requests: nothing looks complete that is not, and nothing goes astray."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from modelyard.gateway import Endpoint, Gateway, Route, RouteTable
from modelyard.settings import GatewaySettings
from ports import free_port

from .upstreams import Client, Upstream, backend, closing_server, wait_for

Start = Callable[[str], Upstream]
PATHS = ("/v1/chat/completions", "/v2/models/digit/infer")


@pytest.fixture(scope="module")
def settings() -> GatewaySettings:
    return GatewaySettings(port=free_port(), body_limit=3 * 1024 * 1024)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, settings: GatewaySettings) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"), settings)
    gateway.start()
    yield gateway
    gateway.stop(drain_s=0)


@pytest.fixture
def digit(gateway: Gateway, upstream: Start) -> Upstream:
    server = upstream("digit")
    one = backend("digit", server.endpoint())
    gateway.apply(RouteTable((one,), (Route(("digit",), ((one.id, 1),)),)))
    return server


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"a": 1}\n\n'


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "begun",
    [
        CHUNKED + b"%x\r\n%s\r\n" % (len(EVENT), EVENT),
        CHUNKED + b"%x\r\n%s" % (len(EVENT), EVENT[:5]),
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + EVENT,
    ],
)
def test_an_engine_that_dies_in_a_stream_breaks_it_visibly(
    gateway: Gateway, settings: GatewaySettings, path: str, begun: bytes
) -> None:
    with closing_server(begun) as (port, _):
        one = backend("digit", Endpoint("127.0.0.1", port))
        gateway.apply(RouteTable((one,), (Route(("digit",), ((one.id, 1),)),)))
        got = b""
        with (
            httpx.Client(base_url=settings.url) as client,
            client.stream("POST", path, json={"model": "digit"}) as response,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            assert response.status_code == 200
            for part in response.iter_raw():
                got += part
        assert got in (b"", EVENT, EVENT[:5])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [{"hold": True}, {"stream": 1000}])
def test_a_client_that_hangs_up_cancels_the_engines_work(
    digit: Upstream, settings: GatewaySettings, path: str, body: dict[str, object]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=30)
    connection.request("POST", path, json.dumps({"model": "digit", **body}), {"content-type": "application/json"})
    wait_for(lambda: digit.seen)
    if "stream" in body:
        assert connection.getresponse().read1(100)
    connection.close()
    assert digit.cancelled.wait(10)


@pytest.mark.parametrize("names", [(b"digit", b"other"), (b"other", b"digit")])
def test_of_a_model_that_is_given_twice_the_last_counts(
    digit: Upstream, client: Client, names: tuple[bytes, ...]
) -> None:
    answer = client.ask("POST", PATHS[0], b'{"model": "%s", "model": "%s"}' % names)
    assert answer.status == (200 if names[1] == b"digit" else 404)


NESTED = 100_000
DEEP = b'{"a": ' * NESTED + b"1" + b"}" * NESTED


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"x": %s, "model": "digit"}' % DEEP, 400),
        (b'{"model": "digit", "x": %s}' % (b"[" * NESTED + b"]" * NESTED), 400),
        (b'{"model": "digit", "x": %s}' % (b"[" * 90 + b"]" * 90), 200),
        (b'{"model": "digit", "x": ' + b"[" * NESTED, 400),
        (b'{"model": "digit", "x": 1e400}', 400),
        (b'{"model": "digit", "x": -1e308}', 200),
        (b'{"model": "digit", "x": 1%s}' % (b"0" * 400), 400),
        (b'{"model": "digit", "x": 9223372036854775807}', 200),
        (b'{"model": "digit", "x": 18446744073709551615}', 400),  # Envoy's parser has no place for it
        (b'{"model": "digit", "x": 18446744073709551616}', 200),
        (b'{"model": "digit", "x": -9223372036854775809}', 200),
        (b'{"model": "digit", "x": NaN}', 400),
        (b'{"model": "digit", "x": "\xff"}', 400),
        (b'{"model": "\xff\xfe"}', 400),
        (b'{"model": "\xed\xa0\x80"}', 400),
        (b'{"model": "\\ud800"}', 400),
        (b'{"model": "dig\\u0069t"}', 200),
        (b'{"mod\\u0065l": "digit"}', 200),
        (b'{"model": "digit\\u0000"}', 404),
        (b'{"model": "digit\\r\\nx-modelyard-served: y"}', 404),
        (b'{"model": "digit "}', 404),
        (b'{"Model": "digit"}', 400),
        (b'{"a": {"model": "digit"}}', 400),
        (b'[{"model": "digit"}]', 400),
        (b'"digit"', 400),
        (b"null", 400),
        (b'{"model": "digit"} {"model": "digit"}', 400),
        (b'\xef\xbb\xbf{"model": "digit"}', 200),
        (b'{"model": ["digit"]}', 400),
        (b'{"model": 1e400}', 400),
        (b'{"model": "%s"}' % (b"a" * 1_000_000), 400),
        (b'{"model": "to digit 1"}', 404),
        (b"\x00" * 1000, 400),
    ],
)
def test_odd_bodies(digit: Upstream, client: Client, body: bytes, status: int) -> None:
    answer = client.ask("POST", PATHS[0], body)
    assert answer.status == status
    assert len(digit.seen) == (status == 200)
    if status != 200:
        assert answer.error()["type"] == "invalid_request_error"
    assert client.post("digit").status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json, text/plain",
        "application/json\t;",
        "json",
        "*/*",
        "multipart/form-data; boundary=x",
        "a" * 9000,
    ],
)
def test_odd_content_types(digit: Upstream, client: Client, content_type: str) -> None:
    answer = client.ask("POST", PATHS[0], {"model": "digit"}, content_type)
    assert answer.status in (200, 415)
    assert client.ask("POST", PATHS[1], b"\x00\x01", content_type).status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/digit/../digit/infer", 200),
        ("/v2//models//digit/infer", 200),
        ("/v2/models/digit%2Finfer", 200),
        ("/v2/models/digit%00/infer", 400),
        ("/v2/models/digit;x/infer", 404),
        ("/v2/models/DIGIT/infer", 404),
        ("/v2/models/dig", 404),
        ("/v2/models/digits/infer", 404),
        ("/v2/models/", 404),
        ("/v2/models/..%2f..%2fmodels%2fdigit", 404),
        ("/v2/models/..%2f..%2fv2/models/digit/infer", 200),
        ("/v2/models/" + "a" * 20_000, 404),
        ("*", 400),
    ],
)
def test_odd_paths(digit: Upstream, client: Client, path: str, status: int) -> None:
    assert client.ask("POST", path, {}).status == status
    assert len(digit.seen) == (status == 200)


def test_a_client_can_not_speak_for_the_gateway(digit: Upstream, client: Client) -> None:
    ours = ["served", "fallback", "mirror", "subject", "k", "ke", "keys", "model", ""]
    said = {f"X-Modelyard-{name}": "digit 1" for name in ours} | {"X-Envoy-Retry-On": "5xx", "x-envoy-max-retries": "9"}
    for path in PATHS:
        got = client.ask("POST", path, {"model": "digit"}, headers=said | {"X-Modelyard-Key": "me"}).json()
        assert {n: v for n, v in got["headers"].items() if n.startswith("x-modelyard-")} == {"x-modelyard-key": "me"}
        assert not {"x-envoy-retry-on", "x-envoy-max-retries"} & got["headers"].keys()
