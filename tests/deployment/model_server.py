"""A gateway with one model behind it, played by a small HTTP server that answers y = x · factor."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TENSOR = {"datatype": "FP32", "shape": [-1, 2]}
DESCRIPTION = {"name": "digit", "inputs": [TENSOR | {"name": "x"}], "outputs": [TENSOR | {"name": "y"}]}

Answer = tuple[int, Any]


@dataclass
class FakeModel:
    """What it says of itself and how it answers; tests change it as they need."""

    label: str
    factor: float = 1.0
    description: Any = field(default_factory=lambda: dict(DESCRIPTION))
    answer: Callable[[dict[str, Any]], Answer] | None = None
    asked: int = 0

    def infer(self, request: dict[str, Any]) -> Answer:
        self.asked += 1
        if self.answer:
            return self.answer(request)
        x = request["inputs"][0]
        data = [value * self.factor for value in x["data"]]
        return 200, {"outputs": [{"name": "y", "datatype": "FP32", "shape": x["shape"], "data": data}]}


@contextmanager
def gateway(models: dict[str, FakeModel]) -> Iterator[str]:
    """Its address; `models` by their names there."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one piece, which the system does not hold back

        def do_GET(self) -> None:
            model = models[self._name()]
            self._reply(model, 200, model.description)

        def do_POST(self) -> None:
            model = models[self._name()]
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._reply(model, *model.infer(body))

        def log_message(self, *_: object) -> None:
            """Quiet."""

        def _name(self) -> str:
            return self.path.split("/")[3].replace("%3A", ":")

        def _reply(self, model: FakeModel, status: int, document: Any) -> None:
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("x-modelyard-model", model.label)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
