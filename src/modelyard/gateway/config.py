"""Envoy's files: the bootstrap, and the discovery documents (RDS, CDS, EDS) that a route table becomes. Pure.

A document's version is a digest of its content, so equal tables are equal files and Envoy can be asked what it has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from modelyard.access.rules import Issuer, Rules
from modelyard.gateway import access, telemetry
from modelyard.gateway.clusters import assignment, clusters, eds_path, inner, source
from modelyard.gateway.detours import HEADERS
from modelyard.gateway.listener import inner_listener, listener, scope
from modelyard.gateway.replies import Document
from modelyard.gateway.route_config import route_configuration
from modelyard.gateway.routes import Backend, RouteTable
from modelyard.settings import GatewaySettings

_INNER = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"


def bootstrap(folder: Path, address: str, settings: GatewaySettings, issuer: Issuer | None = None) -> Document:
    """What Envoy starts with and keeps. `address` is the IP address of `settings.host`."""
    routes = source(rds_path(folder))
    inside = [inner_listener(name, settings, routes) for name in HEADERS]
    scopes, access_path = source(srds_path(folder)), str(tokens_path(folder))
    outside = listener(address, settings, routes=routes, scopes=scopes, access_path=access_path)
    seen = telemetry.bootstrap(settings)
    own = [inner(name) for name in HEADERS]
    traces = seen.get("static_resources", {}).get("clusters", [])
    return {
        **seen,
        "node": {"id": "gateway", "cluster": "modelyard", "metadata": {"workers": settings.workers}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "bootstrap_extensions": [
            {"name": "envoy.bootstrap.internal_listener", "typed_config": {"@type": f"type.googleapis.com/{_INNER}"}}
        ],
        "dynamic_resources": {"cds_config": source(cds_path(folder))},
        "static_resources": {
            "listeners": [outside, *inside],
            "clusters": [*own, *traces, *access.clusters(issuer)],
        },
    }


def rds(table: RouteTable, settings: GatewaySettings) -> Document:
    return _response([route_configuration(table, settings)])


def srds() -> Document:
    """The scope that the routes are in."""
    return _response([scope()])


def tokens(rules: Rules) -> Document:
    """What tokens are checked with."""
    return _response([access.tokens(rules)])


def cds(definitions: Mapping[str, Document]) -> Document:
    """All clusters, by their names; their replicas are in their EDS files."""
    return _response([definitions[name] for name in sorted(definitions)])


def eds(backend: Backend) -> Document:
    return _response([assignment(backend)])


def bootstrap_path(folder: Path) -> Path:
    return folder / "bootstrap.json"


def rds_path(folder: Path) -> Path:
    return folder / "rds.json"


def srds_path(folder: Path) -> Path:
    return folder / "srds.json"


def tokens_path(folder: Path) -> Path:
    return folder / "tokens.json"


def cds_path(folder: Path) -> Path:
    return folder / "cds.json"


def _response(resources: list[Document]) -> Document:
    content = json.dumps(resources, sort_keys=True)
    return {"version_info": hashlib.sha256(content.encode()).hexdigest()[:16], "resources": resources}


__all__ = ["bootstrap", "bootstrap_path", "cds", "cds_path", "clusters", "eds", "eds_path", "rds", "rds_path"]
