"""Keeps a version in an Ollama that runs on its own: puts it in, tells whether it is there, takes it out at the end.

It is a replica's process, though the requests go to Ollama. The version stays in Ollama while any keeper of this
machine wants it: each holds a shared lock of the version's file, and only who gets it alone takes the version out.
What a keeper that was killed has left behind, the next one takes out.
"""

from __future__ import annotations

import fcntl
import hashlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

from modelyard.engines.listening import bind
from modelyard.engines.llamacpp import find_gguf
from modelyard.engines.ollama import OllamaServer
from modelyard.errors import InvalidInput, ModelyardError

READY_PATH = "/health"


def run(ollama: OllamaServer, folder: Path, *, name: str, locks: Path, host: str, port: int) -> int:
    """Keeps the folder's GGUF file in Ollama until SIGTERM or SIGINT. The exit code: 0, or 1 after one line on stderr.

    GET READY_PATH answers 200 while Ollama has the model. `locks` is a folder that keepers of one Ollama share.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with _answering(host, port, lambda: _has(ollama, name)), _wanted(locks, name) as lock:
            sweep(ollama, locks)
            file = find_gguf(folder)
            if "-of-" in file.stem:
                raise InvalidInput("Ollama takes no model in parts", remedy="choose the engine llamacpp for it")
            with file.open("rb") as opened:
                sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            ollama.create(name, file, sha256)
            stop.wait()
            _take_out(ollama, name, lock)
    except ModelyardError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def sweep(ollama: OllamaServer, locks: Path) -> None:
    """Take out what nobody on this machine wants any more."""
    for path in locks.glob("*.lock"):
        with path.open("ab") as lock:
            _take_out(ollama, unquote(path.stem), lock)


@contextmanager
def _wanted(locks: Path, name: str) -> Iterator[IO[bytes]]:
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"{quote(name, safe='')}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lock


def _take_out(ollama: OllamaServer, name: str, lock: IO[bytes]) -> None:
    """Unless another process wants it. The lock is kept meanwhile: one that comes now puts it in anew afterwards."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ollama.remove(name)


def _has(ollama: OllamaServer, name: str) -> bool:
    try:
        return ollama.has(name)
    except ModelyardError:
        return False


@contextmanager
def _answering(host: str, port: int, ready: Callable[[], bool]) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == READY_PATH and ready() else 503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Probes are no news."""

    server = ThreadingHTTPServer((host, port), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = bind(host, port)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
