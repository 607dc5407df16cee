"""The load generator for latency at a given rate: requests come when they are due, however slow the answers are.

Every millisecond it sends what is due, on connections that are free; latency counts from when a request was due, so one
that waits for a free connection is not made to look fast.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import deque
from typing import cast

import uvloop

from measure import Speed, message_end

_TICK_S = 0.001


def load_at(port: int, request: bytes, rate: float, connections: int, seconds: float) -> Speed:
    """Ask so many times a second. Raises RuntimeError for an answer that is not 200."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        latencies = sorted(runner.run(_Rate(port, request, rate).run(connections, seconds)))
    p99 = latencies[math.ceil(len(latencies) * 0.99) - 1]
    return Speed(len(latencies) / seconds, statistics.median(latencies) * 1000, p99 * 1000, len(latencies))


class _Rate:
    def __init__(self, port: int, request: bytes, rate: float) -> None:
        self.request = request
        self.free: deque[_Client] = deque()
        self.waiting: deque[float] = deque()  # when each was due
        self.latencies: list[float] = []
        self.failed: RuntimeError | None = None
        self._port = port
        self._rate = rate

    async def run(self, connections: int, seconds: float) -> list[float]:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: _Client(self), "127.0.0.1", self._port)
        began, sent = time.perf_counter(), 0
        while (now := time.perf_counter()) < began + seconds and self.failed is None:
            due = int((now - began) * self._rate)
            self.waiting.extend([now] * (due - sent))
            sent = due
            self.send()
            await asyncio.sleep(_TICK_S)
        while len(self.latencies) < sent and self.failed is None:
            await asyncio.sleep(_TICK_S)
        for client in self.free:
            client.transport.close()
        if self.failed is not None:
            raise self.failed
        return self.latencies

    def send(self) -> None:
        while self.waiting and self.free:
            self.free.popleft().ask(self.waiting.popleft())


class _Client(asyncio.Protocol):
    def __init__(self, rate: _Rate) -> None:
        self._rate = rate
        self._data = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._rate.free.append(self)

    def ask(self, due: float) -> None:
        self._due = due
        self.transport.write(self._rate.request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not message_end(self._data):
            return
        self._rate.latencies.append(time.perf_counter() - self._due)
        if not self._data.startswith(b"HTTP/1.1 200 "):
            self._rate.failed = RuntimeError(f"an answer that is not 200: {self._data[:300]!r}")
        self._data = b""
        self._rate.free.append(self)
        self._rate.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self not in self._rate.free:
            self._rate.failed = RuntimeError(f"a connection ended: {exc}")
