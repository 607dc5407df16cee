"""The route table: which names lead to which deployed versions, with which weights.

Pure values. Knows nothing of Envoy, of processes, or of why a version is deployed.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from modelyard.access.rules import Rules
from modelyard.configuration.sections import RateLimit
from modelyard.errors import InvalidInput

ONE_REQUEST = "-one-request"
SERVED_HEADER = "x-modelyard-served"
_UNSAFE = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where one replica listens: an IP address and a port. A draining one gets no new requests."""

    host: str
    port: int
    draining: bool = False

    def __post_init__(self) -> None:
        try:
            canonical = str(ipaddress.ip_address(self.host)) == self.host
        except ValueError:
            canonical = False
        if not canonical:
            raise InvalidInput(
                f"endpoint {self.host}:{self.port}: {self.host!r} is not an IP address", remedy="resolve the name first"
            )
        if not 1 <= self.port <= 65535:
            raise InvalidInput(f"endpoint {self.host}: {self.port} is not a port", remedy="use 1 to 65535")

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port


@dataclass(frozen=True, slots=True)
class Backend:
    """One deployed version in one environment, with its replicas. `label` is `name:v1.0.0@sha256:…`.

    `internal_name` is what its engine insists on as the request's `model`; None: it takes any. Versions that share
    the replicas of a `pool` are told apart there by the request header SERVED_HEADER, which holds the label.
    """

    environment: str
    model: str
    label: str
    endpoints: tuple[Endpoint, ...] = ()
    keeps_connections: bool = True
    internal_name: str | None = None
    pool: str = ""

    @property
    def id(self) -> str:
        """A short unique name, safe as a file name and as a part of Envoy's statistics."""
        return self._name(self.model, self.model, self.label, *filter(None, (self.pool,)))

    @property
    def cluster(self) -> str:
        """The name of its replicas' cluster: its own id, or one name for the whole pool. Its ending says whether each
        request needs a connection of its own."""
        return self._name(self.pool, "pool", self.pool) if self.pool else self.id

    def _name(self, readable: str, *identity: str) -> str:
        digest = hashlib.sha256("\n".join((self.environment, *identity)).encode()).hexdigest()
        readable = _UNSAFE.sub("-", f"{self.environment}-{readable}".lower()).strip("-")
        return f"{readable[:48]}-{digest[:12]}{'' if self.keeps_connections else ONE_REQUEST}"

    def widened(self, present: Iterable[Endpoint]) -> Backend:
        """This backend without taking anything away yet: what is present stays, what takes requests goes on."""
        merged = {endpoint.address: endpoint for endpoint in present}
        for endpoint in self.endpoints:
            before = merged.get(endpoint.address)
            merged[endpoint.address] = before if before is not None and not before.draining else endpoint
        return replace(self, endpoints=tuple(sorted(merged.values())))


@dataclass(frozen=True, slots=True)
class Route:
    """Names that mean the same thing, and the backends (by id) that share their requests by weight."""

    names: tuple[str, ...]
    weights: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All that the gateway forwards, for whom and how often. Raises InvalidInput for one that contradicts itself."""

    backends: tuple[Backend, ...] = ()
    routes: tuple[Route, ...] = ()
    access: Rules = field(default_factory=Rules)
    limits: Mapping[str, RateLimit] = field(default_factory=dict)  # by model, or ANY_MODEL

    def __post_init__(self) -> None:
        ids = [backend.id for backend in self.backends]
        names = [name for route in self.routes for name in route.names]
        for what, values in (("backend", ids), ("name", names)):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise InvalidInput(f"the route table has the {what} {twice[0]!r} twice", remedy="give it once")
        clusters = self.clusters
        for backend in self.backends:
            if len({endpoint.address for endpoint in backend.endpoints}) < len(backend.endpoints):
                raise InvalidInput(f"backend {backend.label} has an endpoint twice", remedy="give each endpoint once")
            if backend.endpoints != clusters[backend.cluster].endpoints:
                raise InvalidInput(
                    f"the pool {backend.pool!r} has other endpoints elsewhere", remedy="give it the same"
                )
        for route in self.routes:
            self._check(route)

    def _check(self, route: Route) -> None:
        who = f"the route of {', '.join(route.names) or 'no name'}"
        known = {backend.id: backend for backend in self.backends}
        unknown = [backend for backend, _ in route.weights if backend not in known]
        if not route.names:
            raise InvalidInput("a route has no name", remedy="name it")
        if unknown:
            raise InvalidInput(f"{who} leads to {unknown[0]!r}, which is no backend", remedy="add the backend")
        if any(weight < 0 for _, weight in route.weights) or not sum(weight for _, weight in route.weights):
            raise InvalidInput(f"{who} has no usable weights", remedy="give weights of at least 0 and a sum above 0")
        if len({known[backend].model for backend, _ in route.weights}) > 1:
            raise InvalidInput(f"{who} mixes models", remedy="split only between versions of one model")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(name for route in self.routes for name in route.names))

    @property
    def clusters(self) -> dict[str, Backend]:
        """Each cluster's name with a backend that has its replicas."""
        return {backend.cluster: backend for backend in self.backends}

    def backend(self, backend_id: str) -> Backend:
        return next(backend for backend in self.backends if backend.id == backend_id)
