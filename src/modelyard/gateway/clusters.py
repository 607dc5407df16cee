"""CDS and EDS: the replicas behind each deployed version, engines elsewhere, and what they fall back on. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modelyard.gateway.corrections import corrections
from modelyard.gateway.detours import FALLBACK, detours, first_fallback
from modelyard.gateway.replies import Document
from modelyard.gateway.routes import Backend, Remote, RouteTable, is_address

# llama.cpp closes idle connections after 5 s, the model server after 75; Envoy must be the one that closes first.
_UPSTREAM_IDLE = "4s"
# The engines bound their own queues and answer 429; these only keep a runaway client from taking all memory.
_THRESHOLDS = {"max_connections": 16384, "max_pending_requests": 16384, "max_requests": 16384, "max_retries": 1024}
_MOST = 2**32 - 1  # what Envoy has room for
# A replica that can't be reached, or answers 502 to 504, several times in a row gets nothing for a while; at most half
# of them, so a single one is never left out. A model's own 500 says nothing about the replica.
_OUTLIERS = {
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 3,
    "consecutive_gateway_failure": 5,
    "enforcing_consecutive_gateway_failure": 100,
    "enforcing_consecutive_5xx": 0,
    "enforcing_success_rate": 0,
    "enforcing_local_origin_success_rate": 0,
    "interval": "1s",
    "base_ejection_time": "5s",
    "max_ejection_time": "60s",
    "max_ejection_percent": 50,
}
# A cluster counts as whole while a thousandth of its replicas can be reached; else a part of the requests would go to
# the fallback as soon as one of two replicas drains.
_POLICY = {"overprovisioning_factor": 100_000}
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_ELSE = "-or-else"


def clusters(table: RouteTable, folder: Path, ca_file: str) -> dict[str, Document]:
    """Every cluster by its name. The replicas are not in it but in the EDS file of each."""
    found = {name: _cluster(backend, folder, ca_file) for name, backend in table.clusters.items()}
    for backend in _with_fallback(table):
        found[or_else(backend)] = _aggregate(backend)
    return found


def or_else(backend: Backend) -> str:
    """The cluster that is this backend's while one of it can be reached, and its route's fallback when not."""
    return backend.cluster + _ELSE


def without_fallback(cluster: str) -> str:
    """The backend's own cluster, of one that may have been named by `or_else`."""
    return cluster.removesuffix(_ELSE)


def inner(name: str) -> Document:
    """The cluster that leads to a listener inside Envoy."""
    address = {"envoy_internal_address": {"server_listener_name": name, "endpoint_id": name}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": assignment,
        "circuit_breakers": {"thresholds": [_THRESHOLDS]},
    }


def assignment(backend: Backend) -> Document:
    """The replicas of a backend's cluster."""
    endpoints = [
        {
            "endpoint": {"address": _socket(endpoint.host, endpoint.port)},
            "health_status": "DRAINING" if endpoint.draining else "HEALTHY",
        }
        for endpoint in backend.endpoints
    ]
    return {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": backend.cluster,
        "endpoints": [{"lb_endpoints": endpoints}] if endpoints else [],
        "policy": _POLICY,
    }


def eds_path(folder: Path, cluster: str) -> Path:
    return folder / "eds" / f"{cluster}.json"


def source(path: Path) -> Document:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _with_fallback(table: RouteTable) -> Iterator[Backend]:
    routes = [route for route in table.routes if first_fallback(route)]
    routes += [detour.route for detour in detours(table) if detour.next]
    for route in routes:
        yield from (table.backend(backend) for backend, _ in route.weights)


def _cluster(backend: Backend, folder: Path, ca_file: str) -> Document:
    where = _elsewhere(backend.remote, backend.cluster, ca_file) if backend.remote else _replicas(backend, folder)
    connections: Document = {"idle_timeout": _UPSTREAM_IDLE}
    if not backend.keeps_connections:
        connections["max_requests_per_connection"] = 1
    options = _options(backend) | {"common_http_protocol_options": connections}
    if backend.remote and backend.remote.tls:
        options["upstream_http_protocol_options"] = {"auto_san_validation": True}
    bound = None if backend.pool else backend.max_requests
    limits = {"max_requests": min(bound, _MOST)} if bound else {}
    return {
        "@type": _CLUSTER,
        "name": backend.cluster,
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        # Without a window, in which changes are gathered, all threads have what the admin interface shows.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "circuit_breakers": {"thresholds": [_THRESHOLDS | limits]},
        "outlier_detection": _OUTLIERS,
        "typed_extension_protocol_options": {_HTTP: options},
        **where,
    }


def _options(backend: Backend) -> Document:
    """How its engine is spoken to."""
    return {
        "@type": f"type.googleapis.com/{_HTTP}",
        "explicit_http_config": {"http_protocol_options": {}},
        **corrections(backend.engine),
    }


def _replicas(backend: Backend, folder: Path) -> Document:
    config = source(eds_path(folder, backend.cluster))
    return {"type": "EDS", "eds_cluster_config": {"eds_config": config}}


def _elsewhere(remote: Remote, cluster: str, ca_file: str) -> Document:
    endpoint = {"endpoint": {"address": _socket(remote.host, remote.port)}}
    where: Document = {
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "wait_for_warm_on_init": False,
        "load_assignment": {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if remote.tls:
        kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        context: Document = {
            "@type": kind,
            "common_tls_context": {"validation_context": {"trusted_ca": {"filename": ca_file}}},
        }
        if not is_address(remote.host):
            context["sni"] = remote.host
        where["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return where


def _aggregate(backend: Backend) -> Document:
    kind = "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig"
    parts = {"@type": kind, "clusters": [backend.cluster, FALLBACK]}
    return {
        "@type": _CLUSTER,
        "name": or_else(backend),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": {"thresholds": [_THRESHOLDS]},  # retries count here, not where they lead
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": parts},
        "typed_extension_protocol_options": {_HTTP: _options(backend)},  # its filters are those that answers pass
    }


def _socket(host: str, port: int) -> Document:
    return {"socket_address": {"address": host, "port_value": port}}
