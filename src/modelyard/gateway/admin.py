"""Envoy's admin interface: what Envoy has taken over, what it refused, and how busy each replica is.

Only reads, but for the drain. Knows the statistics' names, not what should be true.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from modelyard.errors import Unavailable
from modelyard.gateway.access import TOKENS
from modelyard.gateway.detours import FALLBACK
from modelyard.gateway.routes import Endpoint

_CLUSTERS = "cluster_manager.cds"
_ROUTES = f"http.{FALLBACK}.rds.modelyard"  # all listeners share them; the first that asks for them counts
_TOKENS = f"extension_config_discovery.http_filter.{TOKENS}"
_VERSION = re.compile(rf'^({"|".join(map(re.escape, (_CLUSTERS, _ROUTES, _TOKENS)))})\.version_text: "(.*)"$', re.M)
_REFUSED = re.compile(r"^(.+)\.update_(?:rejected|failure): (\d+)$", re.M)
_WHOSE = "cluster|cluster_manager|http|extension_config_discovery"
_STATS = rf"/stats?filter=^({_WHOSE})\..*(version_text|update_rejected|update_failure)$"
_ACTIVE = "http.modelyard.downstream_rq_active"
_COUNTED = rf"^(modelyard\..*|cluster\.[^.]+\.upstream_rq_(active|pending_active)|{_ACTIVE})$"


@dataclass(frozen=True, slots=True)
class State:
    """What Envoy has: versions of its clusters, its routes and what it checks tokens with, each cluster's replicas, and
    how often it refused what."""

    clusters_version: str
    routes_version: str
    tokens_version: str
    endpoints: dict[str, frozenset[Endpoint]]
    refused: dict[str, int]

    def refused_since(self, before: State) -> bool:
        return any(count > before.refused.get(what, 0) for what, count in self.refused.items())


@dataclass(frozen=True, slots=True)
class Admin:
    port: int
    timeout_s: float = 5

    def live(self) -> bool:
        try:
            return self._ask("/ready").strip() == "LIVE"
        except Unavailable:
            return False

    def state(self) -> State:
        stats = self._ask(_STATS)
        versions = dict(_VERSION.findall(stats))
        refused: dict[str, int] = {}
        for what, count in _REFUSED.findall(stats):
            refused[what] = refused.get(what, 0) + int(count)
        endpoints: dict[str, set[Endpoint]] = {}
        for cluster, hosts in self._clusters():
            endpoints[cluster] = {_endpoint(host) for host in hosts}
        return State(
            clusters_version=versions.get(_CLUSTERS, ""),
            routes_version=versions.get(_ROUTES, ""),
            tokens_version=versions.get(_TOKENS, ""),
            endpoints={cluster: frozenset(hosts) for cluster, hosts in endpoints.items()},
            refused=refused,
        )

    def clusters(self) -> dict[str, dict[str, Any]]:
        """The clusters that Envoy has taken over, as it was told them."""
        dump = json.loads(self._ask("/config_dump?resource=dynamic_active_clusters"))
        found = [dynamic["cluster"] for dynamic in dump.get("configs", [])]
        return {cluster["name"]: cluster for cluster in found}

    def in_flight(self) -> dict[tuple[str, str, int], int]:
        """(cluster, host, port) → requests that were given to that replica and are not answered to the end."""
        return {
            (cluster, *_endpoint(host).address): _gauge(host, "rq_active") + _gauge(host, "rq_pending_active")
            for cluster, hosts in self._clusters()
            for host in hosts
        }

    def active(self) -> int:
        """Requests of clients that are not answered to the end."""
        return sum(int(line.rpartition(" ")[2]) for line in self._ask(f"/stats?filter=^{_ACTIVE}$").splitlines())

    def statistics(self) -> str:
        """What telemetry.py has Envoy count, and the requests under way, in Prometheus' format but by Envoy's names."""
        return self._ask(f"/stats/prometheus?filter={quote(_COUNTED)}")

    def drain(self) -> None:
        """No new connections from now on; each that is open ends after its next answer."""
        self._ask("/healthcheck/fail", method="POST")
        self._ask("/drain_listeners", method="POST")

    def _clusters(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for cluster in json.loads(self._ask("/clusters?format=json")).get("cluster_statuses", []):
            if cluster.get("added_via_api"):  # the others are the gateway's own business, such as traces
                yield cluster["name"], cluster.get("host_statuses", [])

    def _ask(self, path: str, *, method: str = "GET") -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout_s)
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"Envoy's admin interface on port {self.port} does not answer: {error}",
                remedy="start the gateway again",
            ) from error
        finally:
            connection.close()


def _endpoint(host: dict[str, Any]) -> Endpoint:
    socket = host["address"]["socket_address"]
    draining = host["health_status"].get("eds_health_status") == "DRAINING"
    return Endpoint(socket["address"], socket["port_value"], draining)


def _gauge(host: dict[str, Any], name: str) -> int:
    return next((int(stat.get("value", 0)) for stat in host["stats"] if stat["name"] == name), 0)
