"""An S3 server that takes objects and keeps none of their bytes: it counts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

_PIECE = 1024 * 1024


class Sink(ThreadingHTTPServer):
    """It reads one body at a time, so that whoever sends several parts at once has to keep all of them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reading = Lock()
        self.taken = 0
        self.largest = 0
        self.parts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Sink

    def log_message(self, *_: object) -> None:
        return

    def do_PUT(self) -> None:
        size = int(self.headers["content-length"])
        buffer = memoryview(bytearray(_PIECE))
        with self.server.reading:
            left = size
            while left:
                left -= self.rfile.readinto(buffer[: min(left, _PIECE)])
            self.server.taken += size
            self.server.largest = max(self.server.largest, size)
            self.server.parts += "partNumber=" in self.path
        self._answer("", etag='"part"')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        begun = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        ended = "<CompleteMultipartUploadResult><ETag>whole</ETag></CompleteMultipartUploadResult>"
        self._answer(begun if self.path.endswith("?uploads") or "uploads=" in self.path else ended)

    def _answer(self, body: str, **headers: str) -> None:
        self.send_response(200)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())


@contextmanager
def sink() -> Iterator[Sink]:
    with Sink() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
