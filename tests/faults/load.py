"""Clients that keep asking over kept-alive connections, and count what they get."""

from __future__ import annotations

import http.client
import json
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .machine import WIDTH

LABEL = "x-modelyard-model"  # of every answer
_PAUSE_S = 0.005  # leaves the processors to the replicas that start meanwhile
_COLUMNS = 3_000_000  # of a long answer: more than all the buffers on its way hold
_HEAD_LENGTH = "inference-header-content-length"
_PATIENCE_S = 60
_BROKEN = (OSError, http.client.HTTPException, ValueError, KeyError, IndexError)


class Load:
    """`answered` counts good answers by the version that gave them; `failures` holds everything else."""

    def __init__(self, port: int, model: str, *, clients: int = 4) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self.clients = clients
        self._port = port
        self.model = model
        self._lock = threading.Lock()
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._keep_asking, args=(n + 1,)) for n in range(self.clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(60)

    def saw(self, version: str) -> bool:
        return self.answered[version] > 0

    def _keep_asking(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE_S)
        while not self._over.wait(_PAUSE_S):
            try:
                version = self._ask(connection, number)
            except _BROKEN as error:
                connection.close()  # it opens again by itself
                with self._lock:
                    self.failures.append(repr(error))
            else:
                with self._lock:
                    self.answered[version] += 1
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, number: int) -> str:
        """The version that answered. A wrong answer is a failure, too."""
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": [number] * WIDTH}
        label, answer = post(connection, f"/v2/models/{self.model}/infer", {"inputs": [tensor]})
        version = version_of(label)
        if answer["outputs"][0]["data"] != [number * factor(version)] * WIDTH:
            raise ValueError(f"{label} answered {answer}")
        return version


def post(connection: http.client.HTTPConnection, path: str, body: object) -> tuple[str, Any]:
    """Who answered, and what. Raises ValueError for an error."""
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    data = response.read()
    if response.status != 200:
        raise ValueError(f"{response.status} {data[:200]!r}")
    return response.headers.get(LABEL, ""), json.loads(data)


class LongAnswer(threading.Thread):
    """One answer of 12 MB, which is not read before `go_on` is set: so replica and gateway have it in hand. Empty is
    the `failure` of a good one."""

    def __init__(self, port: int, model: str) -> None:
        super().__init__(daemon=True)
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.version = self.failure = ""
        self._port, self._path = port, f"/v2/models/{model}/infer"

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE_S)
        try:
            self._read(connection)
        except _BROKEN as error:
            self.failure = repr(error)
        connection.close()

    def _read(self, connection: http.client.HTTPConnection) -> None:
        data = {"binary_data_size": 4 * _COLUMNS}
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, _COLUMNS], "parameters": data}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        headers = {"content-type": "application/octet-stream", _HEAD_LENGTH: str(len(head))}
        connection.request("POST", self._path, head + struct.pack("<f", 1) * _COLUMNS, headers)
        with connection.getresponse() as response:
            self.version = version_of(response.headers.get(LABEL, ""))
            self.begun.set()
            self.go_on.wait(_PATIENCE_S)
            answer = response.read()
        if response.status != 200:
            raise ValueError(f"{response.status} {answer[:200]!r}")
        if answer[int(response.headers[_HEAD_LENGTH]) :] != struct.pack("<f", factor(self.version)) * _COLUMNS:
            raise ValueError(f"{self.version} answered {len(answer)} bytes: {answer[:200]!r}")


def version_of(label: str) -> str:
    """Of the model that the header LABEL names."""
    return label.partition("@")[0].partition(":")[2]


def factor(version: str) -> int:
    """What a version of the tests' model multiplies by: its minor number."""
    return int(version.split(".")[1])
