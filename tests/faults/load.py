"""Clients that keep asking over kept-alive connections, and count what they get."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .machine import WIDTH

_PAUSE_S = 0.005  # leaves the processors to the replicas that start meanwhile


class Load:
    """`answered` counts good answers by the version that gave them; `failures` holds everything else."""

    def __init__(self, port: int, model: str, *, clients: int = 4) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self.clients = clients
        self._port = port
        self._model = model
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
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._over.wait(_PAUSE_S):
            try:
                version = self._ask(connection, number)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
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
        body = json.dumps({"inputs": [tensor]})
        path = f"/v2/models/{self._model}/infer"
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        data, label = response.read(), response.headers.get("x-modelyard-model", "")
        if response.status != 200:
            raise ValueError(f"{response.status} {data[:200]!r}")
        version = label.partition("@")[0].partition(":")[2]
        answer: dict[str, Any] = json.loads(data)
        if answer["outputs"][0]["data"] != [number * factor(version)] * WIDTH:
            raise ValueError(f"{label} answered {data[:200]!r}")
        return version


def factor(version: str) -> int:
    """What a version of the tests' model multiplies by: its minor number."""
    return int(version.split(".")[1])
