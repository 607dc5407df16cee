"""An HTTP proxy that does to requests of a store what networks and busy servers do. The Host header passes unchanged,
so signatures hold. Decides nothing itself: it asks for each request what to do."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from typing import Literal

Fault = Literal["503", "429", "reset", "cut off", "lost", "lost 503", "late"]

FAULTS: tuple[Fault, ...] = ("503", "429", "reset", "cut off", "lost", "lost 503", "late")
_BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


@dataclass(frozen=True, slots=True)
class Request:
    """`number` counts the requests of the proxy from 0; `target` is path and query."""

    number: int
    method: str
    target: str


Decide = Callable[[Request], Fault | None]


def at_random(seed: int, chance: float) -> Decide:
    """A fault for that share of all requests."""
    source, lock = random.Random(seed), threading.Lock()

    def decide(_: Request) -> Fault | None:
        with lock:
            return source.choice(FAULTS) if source.random() < chance else None

    return decide


def once(fault: Fault, method: str, part: str = "") -> Decide:
    """A fault for the first request of a method whose target holds `part`."""
    left = [fault]

    def decide(request: Request) -> Fault | None:
        return left.pop() if left and request.method == method and part in request.target else None

    return decide


class FaultyProxy:
    """Listens on a free port of 127.0.0.1 while it is open; `decide` may be replaced at any moment.

    503 and 429 are said instead of forwarding, "reset" ends the connection instead. The others forward: "cut off" ends
    the connection in the middle of the answer, "lost" before it, "lost 503" says 503 in its place, "late" waits.
    """

    def __init__(self, upstream: str, decide: Decide = lambda _: None) -> None:
        host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        self.decide = decide
        self.requests: list[tuple[Request, Fault | None]] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._open:
                _reset(each)
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError), client, client.makefile("rb") as reader:
            while head := _head(reader):
                body = reader.read(_length(head))
                if not self._answer(client, head, body):
                    break
        with self._lock:
            self._open.discard(client)

    def _answer(self, client: socket.socket, head: bytes, body: bytes) -> bool:
        """Whether the connection stays open."""
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        with self._lock:
            request = Request(len(self.requests), method, target)
            fault = self.decide(request)
            self.requests.append((request, fault))
        if fault == "reset":
            return _reset(client)
        if fault not in ("503", "429"):
            answer, data = self._forward(method, head, body)
        if fault == "lost":
            return _reset(client)
        if fault in ("503", "429", "lost 503"):
            code = fault.removeprefix("lost ")
            answer, data = f"HTTP/1.1 {code} Slow\r\nContent-Length: {len(_BUSY)}\r\n\r\n".encode(), _BUSY
        if fault == "cut off":
            client.sendall(answer + data[: len(data) // 2] if data else answer[:-4])
            return _reset(client)
        if fault == "late":
            time.sleep(0.05)
        client.sendall(answer + data)
        return True

    def _forward(self, method: str, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        with socket.create_connection(self._upstream) as server, server.makefile("rb") as reader:
            server.sendall(head + body)
            answer = _head(reader)
            status = answer.split(b" ", 2)[1]
            if method == "HEAD" or status in (b"204", b"304"):
                return answer, b""
            if b"transfer-encoding: chunked" in answer.lower():
                return answer, _chunks(reader)
            return answer, reader.read(_length(answer))


def _head(reader: BufferedReader) -> bytes:
    """Everything up to the empty line; nothing at the connection's end."""
    lines = []
    while line := reader.readline():
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)
    return b""


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _chunks(reader: BufferedReader) -> bytes:
    """A chunked body as it came."""
    parts = []
    while True:
        line = reader.readline()
        parts += [line, reader.read(int(line, 16) + 2)]
        if int(line, 16) == 0:
            return b"".join(parts)


def _reset(connection: socket.socket) -> bool:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    return False
