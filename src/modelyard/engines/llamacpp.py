"""llama.cpp for GGUF models: the client of a running one, and `run`, which is one, inside this process.

llama.cpp has no way to turn not-ready while it answers: take it out of routing before it is told to stop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import SecretStr

from modelyard.engines import openai
from modelyard.engines.engine import Serves
from modelyard.engines.http import Client
from modelyard.engines.listening import bind
from modelyard.errors import InvalidInput, MissingExtra, ModelyardError
from modelyard.refs import ModelRef
from modelyard.settings import ServingSettings

PARALLEL = 4
# Tokens of context that the parallel requests share. A model's own maximum can take more memory than the model.
CONTEXT = 8192
# A kept-alive connection holds a thread of llama.cpp's HTTP server; with too few, /health would have to wait.
HTTP_THREADS = 256
LOG_S = 0.2  # llama.cpp needs to write what it has to say of a failure
IDLE_BEFORE_EXIT_S = 0.5


class LlamaCppServer:
    """`predict` and `stream` take OpenAI's requests: `messages` or `prompt`; `predict` also `input`."""

    name: ClassVar[str] = "llamacpp"
    serves: ClassVar[tuple[Serves, ...]] = (Serves(frozenset({"gguf"})),)
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    ready_path: ClassVar[str] = "/health"
    keeps_connections: ClassVar[bool] = False  # it closes them after a stream, without saying so
    refuses_with_500: ClassVar[tuple[str, ...]] = (
        "Failed to parse messages: ",
        "Failed to parse tools: ",
        "Unknown reasoning format: ",
        "'messages' is required",
        "image input is not supported",
        "audio input is not supported",
        "video input is not supported",
    )

    def __init__(self, url: str, *, timeout_s: float = 300, token: SecretStr | None = None) -> None:
        self._client = Client("llama.cpp", url, "start it with `modelyard up` or `modelyard serve`", timeout_s, token)

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        return openai.post(self._client, model_name, request)

    def stream(self, model_name: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return openai.stream(self._client, model_name, request)

    @staticmethod
    def internal_name(ref: ModelRef) -> str | None:  # noqa: ARG004 - it serves one model, whatever it is called
        return None


def run(folder: Path, *, model_name: str, host: str, port: int, settings: ServingSettings) -> int:
    """Serves the folder's GGUF file until SIGTERM or SIGINT. The exit code: 0, or 1 after one line on stderr."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = _start(find_gguf(folder), model_name, host, port)
    except ModelyardError as error:
        _say_last(f"error: {' '.join(str(error).split())}")
        return 1
    stop.wait()
    _drain(server, settings.drain_timeout_s)
    return 0


def find_gguf(folder: Path) -> Path:
    """The folder's GGUF file, or the first part of one in parts. Raises InvalidInput."""
    found = sorted(path for path in folder.rglob("*.gguf") if not path.name.startswith("mmproj"))
    if not found:
        raise InvalidInput(f"no .gguf file in {folder}")
    with found[0].open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InvalidInput(f"{found[0].name} is not a GGUF file")
    return found[0]


def library() -> Any:
    """llama.cpp. Raises MissingExtra."""
    # Read when the library is loaded. Threads that spin while they wait make it many times slower as soon as another
    # process, such as the replica that it replaces, wants the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import xllamacpp
    except ImportError as error:
        raise MissingExtra("xllamacpp", "serve") from error
    return xllamacpp


def _start(path: Path, model_name: str, host: str, port: int) -> Any:
    xllamacpp = library()
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {model_name}
    params.hostnames = [host]
    params.port = port
    params.n_parallel = PARALLEL
    params.n_ctx = CONTEXT
    params.kv_unified = True
    params.n_threads_http = HTTP_THREADS
    params.endpoint_metrics = True
    params.ui = False
    params.verbosity = 1  # Errors only: from 2 on it reports every request that a client got wrong.
    # llama.cpp's own refusal of a port does not say why.
    bind(host, port).close()
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise InvalidInput(f"llama.cpp can't serve {path.name}: {error}") from error


def _say_last(line: str) -> None:
    """The log's last line is what is told of a failure, and llama.cpp writes to it from a thread of its own."""
    time.sleep(LOG_S)
    own = os.dup(sys.stderr.fileno())
    with Path(os.devnull).open("w") as nowhere, os.fdopen(own, "w") as log:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
        print(line, file=log)


def _drain(server: Any, timeout_s: float) -> None:
    """Returns when no request has been under way for a moment, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    idle_since = time.monotonic()
    while (now := time.monotonic()) < deadline and now - idle_since < IDLE_BEFORE_EXIT_S:
        if _requests_under_way(server):
            idle_since = now
        time.sleep(0.05)


def _requests_under_way(server: Any) -> int:
    metrics = dict(line.split() for line in server.handle_metrics().splitlines() if line.startswith("llamacpp:"))
    return sum(int(float(metrics[f"llamacpp:requests_{state}"])) for state in ("processing", "deferred"))
