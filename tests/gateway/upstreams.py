"""Small servers that stand behind the gateway in these tests, and how to ask through it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import uvicorn

from modelyard.gateway import Backend, Endpoint

Message = MutableMapping[str, Any]


class Upstream:
    """A model server in a thread. It answers with what it got; the body may ask it to wait or to stream.

    {"hold": true}: the answer waits for `release`. {"stream": n}: n events, 20 ms apart, then [DONE]; with
    {"pause": true} the last event waits for `release`. {"usage": …}: the answer tells of tokens; with
    {"stream": true, "events": n} so does the last event. All are answered with `status`.
    """

    def __init__(self, name: str, *, certificate: Path | None = None) -> None:
        self.name = name
        self.status = 200
        self.seen: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.release = threading.Event()
        self.cancelled = threading.Event()
        config = uvicorn.Config(
            self._app,
            port=0,
            interface="asgi3",
            lifespan="off",
            ws="none",
            loop="asyncio",
            log_level="critical",
            timeout_keep_alive=75,
            ssl_certfile=certificate,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name=name)

    def __enter__(self) -> Upstream:
        self._thread.start()
        wait_for(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """As a replica does on SIGTERM: finish what runs, then go."""
        self.release.set()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def forget(self) -> None:
        self.seen.clear()
        self.bodies.clear()
        self.release.clear()
        self.cancelled.clear()

    @property
    def port(self) -> int:
        port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return port

    def endpoint(self, *, draining: bool = False) -> Endpoint:
        return Endpoint("127.0.0.1", self.port, draining)

    async def _app(self, scope: Message, receive: Callable[[], Any], send: Callable[[Message], Any]) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        asked = _object(body)
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        path = scope["raw_path"].decode()
        got = {"server": self.name, "path": path, "headers": headers, "size": len(body), "model": asked.get("model")}
        got["asked"] = asked if len(body) < 10_000 else {}
        self.seen.append(got)
        self.bodies.append(body)
        if asked.get("hold"):
            await self._hold(receive)
        content_type = b"text/event-stream" if "stream" in asked else asked.get("kind", "application/json").encode()
        headers_sent = [(b"content-type", content_type)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers_sent})
        gone = asyncio.ensure_future(receive())
        events = int(asked.get("events", asked.get("stream", 0)))
        for number in range(events):
            if asked.get("pause") and number == events - 1:
                while not self.release.is_set() and not gone.done():
                    await asyncio.wait([gone], timeout=0.01)
            await send({"type": "http.response.body", "body": b'data: {"a": 1}\n\n', "more_body": True})
            await asyncio.wait([gone], timeout=0.02)
            if gone.done():
                self.cancelled.set()
                return
        gone.cancel()
        if "usage" in asked:
            got["usage"] = asked["usage"]
        answer = json.dumps(got).encode()
        if "stream" in asked:
            answer = (b"data: %s\n\n" % answer if "usage" in asked else b"") + b"data: [DONE]\n\n"
        await send({"type": "http.response.body", "body": answer})

    async def _hold(self, receive: Callable[[], Any]) -> None:
        gone = asyncio.ensure_future(receive())
        while not self.release.is_set() and not gone.done():
            await asyncio.wait([gone], timeout=0.01)
        if gone.done():
            self.cancelled.set()
        gone.cancel()


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def closing_server(after: bytes = b"") -> Iterator[tuple[int, list[bytes]]]:
    """A server that takes a request and closes the connection, instead of an answer or `after` its beginning: its port,
    and what it read."""
    taken: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                taken.append(connection.recv(65536))
                connection.sendall(after)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], taken
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


class _Answers(socketserver.BaseRequestHandler):
    server: CountingServer

    def handle(self) -> None:
        self.server.connections += 1
        while self.request.recv(65536):
            self.request.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


class CountingServer(socketserver.ThreadingTCPServer):
    """Answers every request and keeps connections open; `connections` counts them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.connections = 0
        self._thread = threading.Thread(target=self.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def backend(model: str, *endpoints: Endpoint, version: str = "v1.0.0", environment: str = "production") -> Backend:
    return Backend(environment, model, f"{model}:{version}@sha256:{'0' * 64}", endpoints)


def wait_for(condition: Callable[[], object], *, timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


class Client:
    """One kept-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Answer:
        """`body` is sent as it is when bytes, else as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"content-type": content_type} if data is not None and content_type else {}
        self._connection.request(method, path, data, kind | dict(headers))
        response = self._connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())

    def post(self, model: str, path: str = "/v1/chat/completions", **more: object) -> Answer:
        return self.ask("POST", path, {"model": model, **more})


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {key.lower(): value for key, value in headers.items()}
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> Any:
        """The error, after a check of its shape under /v1."""
        assert self.headers["content-type"] == "application/json"
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error
