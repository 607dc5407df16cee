"""Many clients and many replicas, each side one event loop in a process of its own, for tests that count to 200,000."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from modelyard.gateway import Endpoint

EVENTS = 40
EVENT_S = 0.1
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
_EVENT = b'data: {"token": "a"}\n\n'
_END = b"data: [DONE]\n\n"
STREAM = _EVENT * EVENTS + _END


class Replicas:
    """Replicas in one other process, started and stopped one by one; a stopped one has closed its connections."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def start(self) -> Endpoint:
        return Endpoint("127.0.0.1", self._ask(0))

    def stop(self, replica: Endpoint) -> None:
        self._ask(replica.port)

    def _ask(self, port: int) -> int:
        self._pipe.send(port)
        return cast(int, self._pipe.recv())


@contextmanager
def replicas() -> Iterator[Replicas]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Replicas(ours)
    finally:
        process.kill()
        process.join()


class Swarm:
    """Clients in one other process. Each of the two kinds of work gives its failures, empty when there are none."""

    def __init__(self, pipes: tuple[Connection, Connection]) -> None:
        self._pipes = pipes
        self._pool = ThreadPoolExecutor(2)

    def ask(self, port: int, requests: int, connections: int) -> Future[list[str]]:
        """So many requests over so many kept-alive connections."""
        return self._pool.submit(self._call, self._pipes[0], ("ask", port, requests, connections))

    def stream(self, port: int, streams: int) -> Future[list[str]]:
        """So many streams at once, each on a connection of its own."""
        return self._pool.submit(self._call, self._pipes[1], ("stream", port, streams, streams))

    @staticmethod
    def _call(pipe: Connection, work: tuple[str, int, int, int]) -> list[str]:
        pipe.send(work)
        return cast("list[str]", pipe.recv())


@contextmanager
def swarm() -> Iterator[Swarm]:
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(2)]
    processes = [context.Process(target=_work, args=(theirs,), daemon=True) for _, theirs in pipes]
    for process in processes:
        process.start()
    try:
        yield Swarm((pipes[0][0], pipes[1][0]))
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve(pipe: Connection) -> None:
    async def forever() -> None:
        loop = asyncio.get_running_loop()
        servers: dict[int, tuple[asyncio.Server, set[_Replica]]] = {}
        while True:
            port = await loop.run_in_executor(None, pipe.recv)
            if port:
                server, connections = servers.pop(port)
                server.close()
                for connection in list(connections):
                    connection.transport.close()
            else:
                connections = set()
                server = await loop.create_server(lambda c=connections: _Replica(c), "127.0.0.1", 0, backlog=2048)  # type: ignore[misc]
                port = server.sockets[0].getsockname()[1]
                servers[port] = server, connections
            pipe.send(port)

    uvloop.run(forever())


class _Replica(asyncio.Protocol):
    """Answers with its own port, or with a stream of EVENTS."""

    transport: asyncio.Transport

    def __init__(self, connections: set[_Replica]) -> None:
        self._connections = connections
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        answer = json.dumps({"port": transport.get_extra_info("sockname")[1]}).encode()
        self._answer = _HEAD + b"content-length: %d\r\n\r\n%b" % (len(answer), answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._data.endswith(b"}"):
            return
        if b'"stream"' in self._data:
            self._task = asyncio.ensure_future(self._stream())
        else:
            self.transport.write(self._answer)
        self._data = b""

    async def _stream(self) -> None:
        self.transport.write(_HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(EVENTS):
            self.transport.write(b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
            await asyncio.sleep(EVENT_S)
        self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(_END), _END))


def _work(pipe: Connection) -> None:
    while True:
        kind, port, count, connections = pipe.recv()
        failures: list[str] = []
        body = json.dumps({"model": "digit", "messages": []} | ({"stream": True} if kind == "stream" else {})).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        request = head + b"content-length: %d\r\n\r\n%b" % (len(body), body)
        each = count // connections
        client = _stream_once if kind == "stream" else _keep_asking

        async def all_of_them() -> None:
            await asyncio.gather(*(client(port, request, each, failures) for _ in range(connections)))  # noqa: B023

        uvloop.run(all_of_them())
        pipe.send(failures)


async def _keep_asking(port: int, request: bytes, requests: int, failures: list[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(requests):
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            body = await reader.readexactly(int(length))
            if not head.startswith(b"HTTP/1.1 200 ") or not body.startswith(b'{"port"'):
                failures.append(f"{head[:40]!r} {body[:200]!r}")
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            failures.append(repr(error))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


async def _stream_once(port: int, request: bytes, _: int, failures: list[str]) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        writer.close()
        if not head.startswith(b"HTTP/1.1 200 ") or body != STREAM:
            failures.append(f"{head[:40]!r} {body[-200:]!r}")
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        failures.append(repr(error))
