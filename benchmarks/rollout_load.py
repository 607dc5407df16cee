"""The load of `rollout.py`, in a process of its own: clients that keep asking, and long answers that are read slowly.

A long answer is a stream of tokens where the model makes one. The PyTorch server has none: there it is an answer of
12 MB of which little is read until somebody says so, so that replica and gateway have it in hand all the while. Every
answer is compared with what its version has to say; what is not as it should be is a failure. Knows no rollouts.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

_PAUSE_S = 0.005  # of each client between two requests, which leaves the processors to replicas that start
_COLUMNS = 3_000_000  # of a long answer: more than all the buffers on its way hold
_PIECE = 16 * 1024
_SLOWLY_S = 0.1  # a piece
_TIMEOUT_S = 120.0
_BROKEN = (OSError, http.client.HTTPException, ValueError, KeyError, IndexError)


@dataclass(frozen=True, slots=True)
class Job:
    """Whom to ask. `tokens` of a stream, if the model is a language model's; 0: it multiplies by its minor number."""

    port: int
    model: str
    clients: int
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A good one; times of the system's monotonic clock."""

    sent: float
    arrived: float
    version: str


@dataclass(slots=True)
class Seen:
    """`streams`: whole ones; `overtaken`: those of them that were still being read when they were told to end."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    streams: int = 0
    overtaken: int = 0


class Load:
    """The side that says what to do."""

    def __init__(self, there: Connection) -> None:
        self._there = there

    def open_streams(self, count: int) -> None:
        """Returns when each of them has begun, or failed."""
        self._say(("open", count))

    def end_streams(self) -> Seen:
        """Read them to their end. Returns what was seen since the last time."""
        found: Seen = self._say(("end", 0))
        return found

    def stop(self) -> Seen:
        found: Seen = self._say(("stop", 0))
        return found

    def _say(self, words: tuple[str, int]) -> Any:
        self._there.send(words)
        return self._there.recv()


@contextmanager
def loading(job: Job) -> Iterator[Load]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(job, there), daemon=True)
    process.start()
    there.close()
    try:
        yield Load(here)
    finally:
        process.terminate()
        process.join()


def _run(job: Job, told: Connection) -> None:
    """Clients ask from the beginning on, until `stop`."""
    side = _Side(job)
    clients = [threading.Thread(target=side.keep_asking, args=(number + 1,)) for number in range(job.clients)]
    for client in clients:
        client.start()
    verb = ""
    while verb != "stop":
        verb, count = told.recv()
        if verb == "stop":
            side.over.set()
            for client in clients:
                client.join()
        if verb == "open":
            side.open(count)
        told.send(None if verb == "open" else side.end())


class _Side:
    """What the threads share."""

    def __init__(self, job: Job) -> None:
        self.over = threading.Event()
        self._job = job
        self._seen = Seen()
        self._lock = threading.Lock()
        self._streams: list[_Stream] = []

    def open(self, count: int) -> None:
        self._streams = [_Stream(self._job) for _ in range(count)]
        for stream in self._streams:
            stream.start()
        for stream in self._streams:
            stream.begun.wait(_TIMEOUT_S)

    def end(self) -> Seen:
        overtaken = sum(stream.is_alive() for stream in self._streams)
        for stream in self._streams:
            stream.hurry.set()
        for stream in self._streams:
            stream.join(_TIMEOUT_S)
        with self._lock:
            seen, self._seen = self._seen, Seen()
        seen.failures += [stream.failure for stream in self._streams if stream.failure]
        seen.streams = sum(not stream.failure for stream in self._streams)
        seen.overtaken = min(overtaken, seen.streams)
        self._streams = []
        return seen

    def keep_asking(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._job.port, timeout=_TIMEOUT_S)
        while not self.over.wait(_PAUSE_S):
            sent = time.monotonic()
            try:
                version = self._chat(connection) if self._job.tokens else self._multiply(connection, number)
            except _BROKEN as error:
                connection.close()  # it opens again by itself
                with self._lock:
                    self._seen.failures.append(repr(error))
            else:
                with self._lock:
                    self._seen.answers.append(Answer(sent, time.monotonic(), version))
        connection.close()

    def _multiply(self, connection: http.client.HTTPConnection, number: int) -> str:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [number, number]}
        version, data = _ask(connection, _infer(self._job), json.dumps({"inputs": [tensor]}).encode())
        if json.loads(data)["outputs"][0]["data"] != [number * factor(version)] * 2:
            raise ValueError(f"{version} answered {data[:200]!r}")
        return version

    def _chat(self, connection: http.client.HTTPConnection) -> str:
        version, data = _ask(connection, _CHAT, _question(self._job, 4, stream=False))
        if json.loads(data)["usage"]["completion_tokens"] != 4:
            raise ValueError(f"{version} answered {data[:200]!r}")
        return version


class _Stream(threading.Thread):
    """One long answer. `begun`: a part of it has come; `hurry`: read the rest as it comes."""

    def __init__(self, job: Job) -> None:
        super().__init__(daemon=True)
        self.begun = threading.Event()
        self.hurry = threading.Event()
        self.failure = ""
        self._job = job

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._job.port, timeout=_TIMEOUT_S)
        try:
            if self._job.tokens:
                self._chat(connection)
            else:
                self._multiply(connection)
        except _BROKEN as error:
            self.failure = f"a stream: {error!r}"
        self.begun.set()
        connection.close()

    def _chat(self, connection: http.client.HTTPConnection) -> None:
        connection.request("POST", _CHAT, _question(self._job, self._job.tokens, stream=True), _JSON)
        with connection.getresponse() as response:
            pieces, whole = 0, False
            for line in response:
                self.begun.set()
                pieces += line.startswith(b"data: {")
                whole = whole or line.startswith(b"data: [DONE]")
        if response.status != 200 or not whole or pieces < self._job.tokens:
            raise ValueError(f"{response.status}, {pieces} pieces, {'its end' if whole else 'no end'}")

    def _multiply(self, connection: http.client.HTTPConnection) -> None:
        one = struct.pack("<f", 1.0)
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, _COLUMNS], "parameters": {"binary_data_size": _SIZE}}
        document = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {**_JSON, _LENGTH: str(len(document))}
        connection.request("POST", _infer(self._job), document + one * _COLUMNS, headers)
        with connection.getresponse() as response:
            data = bytearray()
            while piece := response.read(_PIECE):
                data += piece
                self.begun.set()
                if not self.hurry.is_set():
                    time.sleep(_SLOWLY_S)
        times = struct.pack("<f", factor(_version(response)))
        if response.status != 200 or data[int(response.headers[_LENGTH]) :] != times * _COLUMNS:
            raise ValueError(f"{response.status}, {len(data)} bytes: {bytes(data[:200])!r}")


_JSON = {"content-type": "application/json"}
_LENGTH = "inference-header-content-length"
_SIZE = 4 * _COLUMNS
_CHAT = "/v1/chat/completions"


def factor(version: str) -> float:
    """What a version multiplies by: its minor number."""
    return float(version.split(".")[1])


def _infer(job: Job) -> str:
    return f"/v2/models/{job.model}/infer"


def _question(job: Job, tokens: int, *, stream: bool) -> bytes:
    """`ignore_eos`: so that the answer is as long as it may be."""
    message = {"role": "user", "content": "Count from one to two hundred, in words."}
    body = {"model": job.model, "messages": [message], "max_tokens": tokens, "ignore_eos": True, "stream": stream}
    return json.dumps(body).encode()


def _ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[str, bytes]:
    """The version that answered, and what."""
    connection.request("POST", path, body, _JSON)
    response = connection.getresponse()
    data = response.read()
    if response.status != 200:
        raise ValueError(f"{response.status} {data[:200]!r}")
    return _version(response), data


def _version(response: http.client.HTTPResponse) -> str:
    return response.headers.get("x-modelyard-model", "").partition("@")[0].partition(":")[2]
