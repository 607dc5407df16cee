"""The gateway in a cluster: Envoy, led by what the journals say and by the pods there are.

A pod that is to end is out of traffic as soon as the API server says so, while it still answers what it has: draining
works as on one machine. Any number of gateways may run; none of them decides anything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from modelyard.deployment.routing import route_table
from modelyard.deployment.targets.kubernetes.pod_watch import PodWatch
from modelyard.deployment.targets.kubernetes.replicas import traffic
from modelyard.deployment.wanted import Newest
from modelyard.errors import ModelyardError
from modelyard.gateway import Gateway
from modelyard.gateway.routes import RouteTable

log = logging.getLogger("modelyard.gateway")

_INTERVAL_S = 0.5


@dataclass(slots=True)
class ClusterGateway:
    """Runs Envoy beside itself; `newest` reads the journals, `port` is where pods listen."""

    gateway: Gateway
    watch: PodWatch
    newest: Newest
    guard: Callable[[RouteTable], RouteTable]
    port: int

    def run(self, stop: Event) -> None:
        """Until `stop` is set; then Envoy finishes what is under way. Raises Unavailable when Envoy can't start."""
        self.watch.start()
        told = ""
        try:
            while not stop.is_set():
                self.watch.changed.wait(_INTERVAL_S)
                self.watch.changed.clear()
                try:
                    self.tick()
                    told = ""
                except ModelyardError as error:
                    if str(error) != told:
                        told = str(error)
                        log.warning("%s", told)
        finally:
            self.gateway.stop()

    def tick(self) -> None:
        """Lead requests to where they belong now. Envoy starts once that is known."""
        wanted, pods = self.newest.get(), self.watch.pods()
        if wanted is None or pods is None:
            return
        self.gateway.start()
        found, routed = traffic(pods, self.port, wanted.deployments, time.time())
        table = route_table(wanted.deployments, found, routed, wanted.tags, wanted.rules)
        self.gateway.apply(self.guard(table))
