"""The route table: which names lead to which deployed versions or remote engines, with which weights.

Pure values. Knows nothing of Envoy, of processes, or of why a version is deployed.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from modelyard.access.rules import Rules
from modelyard.configuration.sections import RateLimit
from modelyard.errors import InvalidInput

ONE_REQUEST = "-one-request"
SERVED_HEADER = "x-modelyard-served"
MAX_WEIGHT = 1_000_000  # of a route in all; Envoy's own bound is 2^32 - 1
_UNSAFE = re.compile(r"[^a-z0-9]+")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


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
class Remote:
    """Where an engine that is run elsewhere listens: a host's name or IP address, a port, and whether it speaks TLS."""

    host: str
    port: int
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> Remote:
        """Of `http://host:port` or `https://host`. Raises InvalidInput."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").removesuffix("."), parts.port
        except ValueError:
            host, port = "", None
        tls = url.startswith("https://")
        if not (_HOST.fullmatch(host) or is_address(host)) or "@" in url or port == 0:
            raise InvalidInput(f"{url!r} is not an engine's address", remedy="write it as http://host:port")
        return cls(host, port or (443 if tls else 80), tls)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def is_address(text: str) -> bool:
    """Whether it is an IP address, without a zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


@dataclass(frozen=True, slots=True)
class Backend:
    """One deployed version in one environment, with its replicas; or an engine elsewhere, its `remote`.

    `label` is `name:v1.0.0@sha256:…`, or `name@external`. `internal_name` is what the engine insists on as the
    request's `model`; None: it takes any. Versions that share the replicas of a `pool` are told apart there by the
    request header SERVED_HEADER, which holds the label. `max_requests`: under way at most, more are refused; a pool has
    no such bound. `engine`: its kind, where that is known.
    """

    environment: str
    model: str
    label: str
    endpoints: tuple[Endpoint, ...] = ()
    keeps_connections: bool = True
    internal_name: str | None = None
    pool: str = ""
    remote: Remote | None = None
    max_requests: int | None = None
    engine: str = ""

    @property
    def id(self) -> str:
        """A short unique name, safe as a file name and as a part of Envoy's statistics."""
        return self._name(self.model, self.model, self.label, *filter(None, (self.pool,)))

    @property
    def cluster(self) -> str:
        """The name of its replicas' cluster: its own id, or one name for the whole pool. Its ending says whether each
        request needs a connection of its own."""
        if self.remote:
            return self._name(self.model, self.model, self.label, str(self.remote))
        return self._name(self.pool, "pool", self.pool) if self.pool else self.id

    @property
    def path_name(self) -> str:
        """What its engine calls it under /v2/models."""
        return self.internal_name or self.model

    @property
    def ready(self) -> bool:
        """Whether somebody is there to answer, as far as is known; an engine elsewhere is taken at its word."""
        return self.remote is not None or any(not endpoint.draining for endpoint in self.endpoints)

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
class Mirror:
    """Where copies of a share of the requests go, by name; their answers are dropped."""

    to: str
    percent: float = 100


@dataclass(frozen=True, slots=True)
class Route:
    """Names that mean the same thing, and the backends (by id) that share their requests by weight.

    `fallback`: names that answer in its place, in order, when no backend can be reached. `timeout_s`: a deadline for
    the whole answer. A task may be shared by different models, and is asked for in a request's body alone.
    """

    names: tuple[str, ...]
    weights: tuple[tuple[str, int], ...]
    mirror: Mirror | None = None
    fallback: tuple[str, ...] = ()
    timeout_s: float | None = None
    task: bool = False


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All that the gateway forwards, for whom and how often. Raises InvalidInput for one that contradicts itself."""

    backends: tuple[Backend, ...] = ()
    routes: tuple[Route, ...] = ()
    access: Rules = field(default_factory=Rules)
    limits: Mapping[str, RateLimit] = field(default_factory=dict)  # by model, or ANY_MODEL
    by_id: Mapping[str, Backend] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = [backend.id for backend in self.backends]
        object.__setattr__(self, "by_id", dict(zip(ids, self.backends, strict=True)))
        names = [name for route in self.routes for name in route.names]
        for what, values in (("backend", ids), ("name", names)):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise InvalidInput(f"the route table has the {what} {min(twice)!r} twice", remedy="give it once")
        clusters = self.clusters
        for backend in self.backends:
            if len({endpoint.address for endpoint in backend.endpoints}) < len(backend.endpoints):
                raise InvalidInput(f"backend {backend.label} has an endpoint twice", remedy="give each endpoint once")
            if backend.endpoints != clusters[backend.cluster].endpoints:
                raise InvalidInput(
                    f"the pool {backend.pool!r} has other endpoints elsewhere", remedy="give it the same"
                )
        all_names = frozenset(names)
        for route in self.routes:
            _check_weights(route, self.by_id)
            _check_names(route, all_names)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(name for route in self.routes for name in route.names))

    @property
    def clusters(self) -> dict[str, Backend]:
        """Each cluster's name with a backend that has its replicas."""
        return {backend.cluster: backend for backend in self.backends}

    def backend(self, backend_id: str) -> Backend:
        return self.by_id[backend_id]


def _check_weights(route: Route, known: Mapping[str, Backend]) -> None:
    who = f"the route of {', '.join(route.names) or 'no name'}"
    unknown = [backend for backend, _ in route.weights if backend not in known]
    if not route.names:
        raise InvalidInput("a route has no name", remedy="name it")
    if unknown:
        raise InvalidInput(f"{who} leads to {unknown[0]!r}, which is no backend", remedy="add the backend")
    total = sum(weight for _, weight in route.weights)
    if any(weight < 0 for _, weight in route.weights) or not 0 < total <= MAX_WEIGHT:
        raise InvalidInput(
            f"{who} has no usable weights", remedy=f"give weights of at least 0 and a sum from 1 to {MAX_WEIGHT}"
        )
    if not route.task and len({known[backend].model for backend, _ in route.weights}) > 1:
        raise InvalidInput(f"{who} mixes models", remedy="split only between versions of one model")


def _check_names(route: Route, names: Container[str]) -> None:
    others = (*route.fallback, *((route.mirror.to,) if route.mirror else ()))
    for name in others:
        if name in route.names or name not in names:
            raise InvalidInput(f"the route of {route.names[0]} refers to {name!r}", remedy="name another route")
