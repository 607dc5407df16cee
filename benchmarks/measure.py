"""What the benchmarks share: rounds in turn, ratios, tables, processes, and the load generator.

Whatever is compared runs in turn (A B A B …), and ratios are taken within a round, then their median over the rounds:
what slows the whole machine down for a while slows both sides. Knows nothing of what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from multiprocessing import get_context
from typing import TypeVar, cast

import psutil
import uvloop

Result = TypeVar("Result")

_START_TIMEOUT_S = 60
_QUICK_S = 0.5
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.I)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Speed:
    """What one run of the load generator saw; the latencies in milliseconds."""

    per_second: float
    median_ms: float
    p99_ms: float
    answers: int


def options(
    description: str | None, *, rounds: int, seconds: float | None = None, **quick: object
) -> argparse.ArgumentParser:
    """The options that benchmarks take; `--quick` sets those given here, too.

    From here on SIGTERM ends the process in order, so that nothing is left.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each is measured, in turn")
    if seconds is not None:
        parser.add_argument("--seconds", type=float, default=seconds, help="how long each measurement takes")
        quick["seconds"] = min(seconds, _QUICK_S)
    short = ", ".join(f"{name} {value}" for name, value in {"rounds": 1, **quick}.items())
    parser.add_argument("--quick", action=_Quick, const={"rounds": 1, **quick}, nargs=0, help=f"{short}: only a try")
    return parser


class _Quick(argparse.Action):
    """Sets several options at once; what the command line says after it counts."""

    def __call__(self, _parser: object, namespace: argparse.Namespace, *_: object) -> None:
        for name, value in self.const.items():
            setattr(namespace, name, value)


def in_turn(measurements: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Each name with its results, one a round."""
    results: dict[str, list[Result]] = {name: [] for name in measurements}
    for _ in range(rounds):
        for name, measure in measurements.items():
            results[name].append(measure())
    return results


def ratio(these: Sequence[float], those: Sequence[float]) -> str:
    """The median of the ratios within the rounds, and the range of them."""
    ratios = [this / that for this, that in zip(these, those, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    print(f"{title}\n")
    for first, *others in (head, *rows):
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join((first.ljust(widths[0]), *cells)))
    print()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], what: str, *, timeout_s: float = _START_TIMEOUT_S) -> None:
    """Raises TimeoutError when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start within {timeout_s:.0f} s")
        time.sleep(0.02)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def pin(cores: set[int] | None) -> None:
    """Keep this process, and what it starts from now on, to these cores."""
    if cores:
        os.sched_setaffinity(0, cores)


@contextmanager
def pinned(cores: set[int] | None) -> Iterator[None]:
    """What is started in this block stays on these cores."""
    before = os.sched_getaffinity(0)
    pin(cores)
    try:
        yield
    finally:
        pin(before)


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, cores: set[int] | None = None
) -> Iterator[int]:
    """A process' id, without output while the block runs; killed, as nothing that it keeps is needed afterwards."""
    quiet = subprocess.DEVNULL
    with pinned(cores):
        process = subprocess.Popen(command, env=environment, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def own_process(cores: set[int] | None = None) -> Iterator[ProcessPoolExecutor]:
    """A process that keeps what is measured, or the load generator, apart from this one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=pin, initargs=(cores,)) as pool:
        yield pool


def children(pid: int) -> list[psutil.Process]:
    """And theirs; none if the process has ended by itself."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def post(path: str, body: bytes, **headers: str) -> bytes:
    """A whole HTTP request; in the names of headers, _ stands for -."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    more = "".join(f"\r\n{name.replace('_', '-')}: {value}" for name, value in headers.items())
    return (head + more).encode() + b"\r\n\r\n" + body


def message_end(data: bytes) -> int:
    """Where the HTTP message at the beginning of `data` ends; 0 if it is not complete yet."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return 0
    if data.startswith(b"GET "):
        return head + 4
    length = _LENGTH.search(data, 0, head)
    if length is None and _CHUNKED.search(data, 0, head):
        last = data.find(_LAST_CHUNK, head + 2)
        return last + len(_LAST_CHUNK) if last >= 0 else 0
    if length is None:
        raise ValueError(f"a message without content-length: {data[:200]!r}")
    end = head + 4 + int(length[1])
    return end if len(data) >= end else 0


def load(port: int, requests: Sequence[bytes], connections: int, seconds: float, shortest: int = 0) -> Speed:
    """Ask on so many connections for so long, each sending its next request when it has its answer.

    Raises RuntimeError for an answer that is not 200 or has less than `shortest` bytes, and ConnectionError for a
    connection that ends.
    """
    began = time.perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        latencies = sorted(runner.run(_ask(port, requests, connections, began + seconds, shortest)))
    elapsed = time.perf_counter() - began
    p99 = latencies[math.ceil(len(latencies) * 0.99) - 1]  # the nearest rank: a slow machine may answer only once
    return Speed(len(latencies) / elapsed, statistics.median(latencies) * 1000, p99 * 1000, len(latencies))


async def _ask(port: int, requests: Sequence[bytes], connections: int, deadline: float, shortest: int) -> list[float]:
    """The connections begin at places spread over the requests, so that all of these are asked equally often."""
    loop = asyncio.get_running_loop()
    opened = []
    for number in range(connections):
        start = number * len(requests) // connections
        mine = [*requests[start:], *requests[:start]]
        client = partial(_Connection, mine, deadline, shortest)
        _, connection = await loop.create_connection(client, "127.0.0.1", port)
        opened.append(connection)
    return [latency for each in await asyncio.gather(*(each.done for each in opened)) for latency in each]


class _Connection(asyncio.Protocol):
    """One client. `done` gets its latencies in seconds."""

    def __init__(self, requests: Sequence[bytes], deadline: float, shortest: int) -> None:
        self.done: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self._requests = cycle(requests)
        self._deadline = deadline
        self._shortest = shortest
        self._latencies: list[float] = []
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not message_end(self._data):
            return
        now = time.perf_counter()
        self._latencies.append(now - self._sent)
        if not self._data.startswith(b"HTTP/1.1 200 "):
            self._end(RuntimeError(f"an answer that is not 200: {self._data[:300]!r}"))
        elif len(self._data) < self._shortest:
            self._end(RuntimeError(f"an answer of only {len(self._data)} bytes: {self._data[:300]!r}"))
        elif now < self._deadline:
            self._data = b""
            self._send()
        else:
            self.done.set_result(self._latencies)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionError(f"the connection ended: {exc}"))

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def _end(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
        self._transport.close()
