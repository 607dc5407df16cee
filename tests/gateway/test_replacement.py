"""Replicas are replaced and weights are moved while clients keep asking: no request may fail."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from modelyard.gateway import Endpoint, Gateway, Route, RouteTable, process
from modelyard.gateway.admin import Admin
from modelyard.settings import GatewaySettings

from .upstreams import Client, Upstream, backend, wait_for

ROUNDS = 8
CLIENTS = 5
STREAMS = 4
EVENTS = 25  # half a second: longer than a replacement takes


class Load:
    """Clients with kept-alive connections; some read streams. Every answer is checked to its end."""

    def __init__(self, port: int) -> None:
        self.failures: list[str] = []
        self.answers = [0] * CLIENTS
        self.streams = [0] * STREAMS
        self._port = port
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]
        threads += [threading.Thread(target=self._stream, args=(n,)) for n in range(STREAMS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(30)

    def _ask(self, n: int) -> None:
        with Client(self._port) as client:
            while not self._over.is_set():
                self._one(client, events=0)
                self.answers[n] += 1

    def _stream(self, n: int) -> None:
        with Client(self._port) as client:
            while not self._over.is_set():
                self._one(client, events=EVENTS)
                self.streams[n] += 1

    def _one(self, client: Client, *, events: int) -> None:
        try:
            answer = client.post("digit", stream=events)
            whole = answer.body == b'data: {"a": 1}\n\n' * events + b"data: [DONE]\n\n"
            if answer.status != 200 or not whole:
                self.failures.append(f"{answer.status} {answer.body[:200]!r}")
        except Exception as error:
            self.failures.append(repr(error))


def test_replacing_replicas_and_moving_weights_fails_no_request(gateway: Gateway, settings: GatewaySettings) -> None:
    load = Load(settings.port)
    with ExitStack() as stack:

        def started(name: str) -> Upstream:
            return stack.enter_context(Upstream(name))

        def apply(weights: tuple[int, int], *current: Endpoint) -> None:
            one = backend("digit", *current)
            other = backend("digit", canary.endpoint(), version="v1.1.0")
            route = Route(("digit", "digit:production"), ((one.cluster, weights[0]), (other.cluster, weights[1])))
            gateway.apply(RouteTable((one, other), (route,)))

        def idle(server: Upstream) -> bool:
            return all(not count for (_, _, port), count in gateway.in_flight().items() if port == server.port)

        canary, old = started("canary"), started("0")
        apply((1, 0), old.endpoint())
        with load.running():
            for n in range(1, ROUNDS + 1):
                new = started(str(n))
                apply((3, 1) if n % 2 else (1, 1), old.endpoint(), new.endpoint())
                apply((0, 1) if n % 3 == 0 else (1, 0), old.endpoint(draining=True), new.endpoint())
                wait_for(partial(idle, old))
                old.stop()
                apply((1, 1), new.endpoint())
                old = new
    assert load.failures == []
    assert min(load.answers) > ROUNDS
    assert min(load.streams) > 0


def test_a_backend_that_comes_and_goes_with_its_route(gateway: Gateway, settings: GatewaySettings) -> None:
    """The whole cluster is exchanged at once; apply() keeps the old one until the routes have left it."""
    load = Load(settings.port)
    with Upstream("a") as a, Upstream("b") as b:
        tables = []
        for server, version in ((a, "v1.0.0"), (b, "v1.1.0")):
            one = backend("digit", server.endpoint(), version=version)
            tables.append(RouteTable((one,), (Route(("digit",), ((one.cluster, 1),)),)))
        gateway.apply(tables[0])
        with load.running():
            for n in range(30):
                gateway.apply(tables[n % 2])
    assert load.failures == []
    assert len({got["server"] for got in a.seen + b.seen}) == 2


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v2/models/digit/infer"])
def test_a_request_whose_body_comes_late_goes_by_the_newest_routes(
    gateway: Gateway, settings: GatewaySettings, tmp_path: Path, path: str
) -> None:
    """The replicas that the routes led to when its headers came may be gone by then."""
    body = json.dumps({"model": "digit"}).encode()
    run = process.find(tmp_path / "gateway")
    assert run
    with Upstream("old") as old, Upstream("new") as new:
        for server, version in ((old, "v1.0.0"), (new, "v1.1.0")):
            one = backend("digit", server.endpoint(), version=version)
            gateway.apply(RouteTable((one,), (Route(("digit",), ((one.cluster, 1),)),)))
            if server is old:
                connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=30)
                connection.putrequest("POST", path)
                connection.putheader("content-type", "application/json")
                connection.putheader("content-length", str(len(body)))
                connection.endheaders(body[:9])
                wait_for(lambda: Admin(run.admin_port).active() == 1)
        with closing(connection):
            connection.send(body[9:])
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            assert json.loads(answer.read())["server"] == "new"
            assert answer.getheader("x-modelyard-model") == one.label
        assert old.seen == []
