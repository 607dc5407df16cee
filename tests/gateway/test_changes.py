"""200,000 requests and 512 streams while routes, weights and replicas change all the time: none may fail."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from modelyard.gateway import Endpoint, Gateway, Route, RouteTable
from modelyard.settings import GatewaySettings

from .swarm import Replicas, Swarm, replicas, swarm
from .upstreams import backend, wait_for

pytestmark = pytest.mark.long

REQUESTS = 200_000
CONNECTIONS = 50
STREAMS = 512
PERIOD_S = 0.5


class Changes:
    """Every period a new replica comes and the oldest one goes, with other weights and other names around them."""

    def __init__(self, gateway: Gateway, replicas: Replicas) -> None:
        self._gateway = gateway
        self._replicas = replicas
        self._versions = [[replicas.start(), replicas.start()], [replicas.start(), replicas.start()]]
        self._rounds = itertools.count()
        self.made = 0
        self._apply((1, 1))

    def keep_on(self, *, until: Future[list[str]]) -> list[str]:
        while not until.done():
            self.once()
            threading.Event().wait(PERIOD_S)
        return until.result()

    def once(self) -> None:
        self.made += 1
        version = self._versions[self.made % 2]
        version.append(self._replicas.start())
        self._apply((1 + self.made % 3, self.made % 4))
        old = version.pop(0)
        self._apply((1 + self.made % 3, self.made % 4), draining=(self.made % 2, old))
        wait_for(lambda: not self._busy(old), timeout_s=60)
        self._apply((1, 1))
        self._replicas.stop(old)

    def _busy(self, replica: Endpoint) -> bool:
        return any(count for (_, _, port), count in self._gateway.in_flight().items() if port == replica.port)

    def _apply(self, weights: tuple[int, int], draining: tuple[int, Endpoint] | None = None) -> None:
        backends = []
        for number, endpoints in enumerate(self._versions):
            leaving = [Endpoint(draining[1].host, draining[1].port, True)] if draining and draining[0] == number else []
            backends.append(backend("digit", *endpoints, *leaving, version=f"v1.{number}.0"))
        shares = tuple((one.id, weight) for one, weight in zip(backends, weights, strict=True))
        other = Route((f"other-{next(self._rounds)}",), ((backends[0].id, 1),))
        self._gateway.apply(RouteTable(tuple(backends), (Route(("digit",), shares), other)), timeout_s=60)


@pytest.fixture
def crowd() -> Iterator[tuple[Swarm, Replicas]]:
    with swarm() as clients, replicas() as servers:
        yield clients, servers


def test_200_000_requests_while_everything_changes(
    gateway: Gateway, settings: GatewaySettings, crowd: tuple[Swarm, Replicas]
) -> None:
    clients, servers = crowd
    changes = Changes(gateway, servers)
    assert changes.keep_on(until=clients.ask(settings.port, REQUESTS, CONNECTIONS)) == []
    assert changes.made > 5


def test_512_streams_survive_changes(
    gateway: Gateway, settings: GatewaySettings, crowd: tuple[Swarm, Replicas]
) -> None:
    clients, servers = crowd
    changes = Changes(gateway, servers)
    streams = clients.stream(settings.port, STREAMS)
    wait_for(lambda: sum(gateway.in_flight().values()) >= STREAMS, timeout_s=30)
    assert changes.keep_on(until=streams) == []
    assert changes.made > 0
