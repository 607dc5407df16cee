"""Envoy's files: the bootstrap, and the discovery documents (RDS, CDS, EDS) that a route table becomes. Pure.

A document's version is a digest of its content, so equal tables are equal files and Envoy can be asked what it has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from modelyard.access.rules import Issuer, Rules
from modelyard.gateway import access, telemetry
from modelyard.gateway.listener import listener
from modelyard.gateway.replies import Document
from modelyard.gateway.route_config import route_configuration
from modelyard.gateway.routes import ONE_REQUEST, Backend, RouteTable
from modelyard.settings import GatewaySettings

# llama.cpp closes idle connections after 5 s, the model server after 75; Envoy must be the one that closes first.
_UPSTREAM_IDLE = "4s"
# The engines bound their own queues and answer 429; these only keep a runaway client from taking all memory.
_THRESHOLDS = {"max_connections": 16384, "max_pending_requests": 16384, "max_requests": 16384, "max_retries": 1024}


def bootstrap(folder: Path, address: str, settings: GatewaySettings, issuer: Issuer | None = None) -> Document:
    """What Envoy starts with and keeps. `address` is the IP address of `settings.host`."""
    seen = telemetry.bootstrap(settings)
    traces = seen.get("static_resources", {}).get("clusters", [])
    static: Document = {"listeners": [listener(address, settings, str(rds_path(folder)), str(tokens_path(folder)))]}
    return {
        **seen,
        "node": {"id": "gateway", "cluster": "modelyard", "metadata": {"workers": settings.workers}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {"cds_config": _source(cds_path(folder))},
        "static_resources": static | {"clusters": [*traces, *access.clusters(issuer)]},
    }


def rds(table: RouteTable, settings: GatewaySettings) -> Document:
    return _response([route_configuration(table, settings)])


def tokens(rules: Rules) -> Document:
    """What tokens are checked with."""
    return _response([access.tokens(rules)])


def cds(clusters: Iterable[str], folder: Path) -> Document:
    """All clusters. What a cluster is follows from its name alone; its replicas are in its EDS file."""
    return _response([_cluster(name, folder) for name in sorted(clusters)])


def eds(backend: Backend) -> Document:
    endpoints = [
        {
            "endpoint": {"address": {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}}},
            "health_status": "DRAINING" if endpoint.draining else "HEALTHY",
        }
        for endpoint in backend.endpoints
    ]
    return _response(
        [
            {
                "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": backend.cluster,
                "endpoints": [{"lb_endpoints": endpoints}] if endpoints else [],
            }
        ]
    )


def bootstrap_path(folder: Path) -> Path:
    return folder / "bootstrap.json"


def rds_path(folder: Path) -> Path:
    return folder / "rds.json"


def tokens_path(folder: Path) -> Path:
    return folder / "tokens.json"


def cds_path(folder: Path) -> Path:
    return folder / "cds.json"


def eds_path(folder: Path, cluster: str) -> Path:
    return folder / "eds" / f"{cluster}.json"


def _cluster(name: str, folder: Path) -> Document:
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    connections: Document = {"idle_timeout": _UPSTREAM_IDLE}
    if name.endswith(ONE_REQUEST):
        connections["max_requests_per_connection"] = 1
    return {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _source(eds_path(folder, name))},
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {"thresholds": [_THRESHOLDS]},
        "typed_extension_protocol_options": {
            protocol: {
                "@type": f"type.googleapis.com/{protocol}",
                "common_http_protocol_options": connections,
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _source(path: Path) -> Document:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _response(resources: list[Document]) -> Document:
    content = json.dumps(resources, sort_keys=True)
    return {"version_info": hashlib.sha256(content.encode()).hexdigest()[:16], "resources": resources}
