"""A server that answers Ollama's documented API, for tests: no Ollama can be installed where they run.

Its answers are real: llama.cpp gives them, in a process for each model that is asked. What it can't show is how Ollama
itself behaves beyond what its documentation says. Source: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from ports import free_port

from .support import embedder, llamacpp, wait_for

VERSION = "0.12.6"


class Ollama:
    """What it keeps: blobs by digest, and models by name, each the digest of its GGUF file."""

    def __init__(self, folder: Path, processes: ExitStack) -> None:
        self.models: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self._folder = folder
        self._processes = processes
        self._backends: dict[tuple[str, bool], str] = {}
        self._lock = threading.Lock()

    def blob(self, digest: str) -> Path:
        return self._folder / digest.replace(":", "-") / "model.gguf"

    def backend(self, name: str, *, embeds: bool = False) -> str:
        """The address of a llama.cpp that has the model. Raises KeyError for one that is not there."""
        key = self.models[_full(name)], embeds
        with self._lock:
            if key not in self._backends:
                port = free_port()
                start = embedder if embeds else llamacpp
                self._processes.enter_context(start(self.blob(key[0]).parent, "backend", port))
                self._backends[key] = f"http://127.0.0.1:{port}"
                wait_for(lambda: _ready(self._backends[key]))
        return self._backends[key]


@contextmanager
def ollama_server(folder: Path, port: int = 0) -> Iterator[tuple[str, Ollama]]:
    """Its address, and what it keeps."""
    with ExitStack() as processes:
        ollama = Ollama(folder, processes)
        handler = type("Handler", (_Handler,), {"ollama": ollama})
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", ollama
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    ollama: Ollama

    def do_HEAD(self) -> None:
        found = self.path.startswith("/api/blobs/") and self.ollama.blob(self.path.rpartition("/")[2]).is_file()
        self._answer(200 if found else 404, b"")

    def do_GET(self) -> None:
        models = [{"name": name, "model": name, "digest": digest} for name, digest in self.ollama.models.items()]
        match self.path:
            case "/api/version":
                self._json({"version": VERSION})
            case "/api/tags" | "/api/ps":
                self._json({"models": models})
            case "/v1/models":
                self._json({"object": "list", "data": [{"id": model["name"], "object": "model"} for model in models]})
            case _:
                self._answer(404, b"404 page not found")

    def do_DELETE(self) -> None:
        name = json.loads(self._body())["model"]
        gone = self.ollama.models.pop(_full(name), None)
        self._json({} if gone else _missing(name), 200 if gone else 404)

    def do_POST(self) -> None:
        body = self._body()
        if self.path.startswith("/api/blobs/"):
            self._take_blob(self.path.rpartition("/")[2], body)
            return
        document = json.loads(body)
        self.ollama.asked.append((self.path, str(document.get("model"))))
        if self.path == "/api/create":
            self._create(document)
        elif not isinstance(document.get("options", {}), dict):
            self._json({"error": "json: cannot unmarshal options"}, 400)
        elif _full(str(document.get("model"))) not in self.ollama.models:
            self._json(_missing(document.get("model")), 404)
        elif self.path == "/api/show":
            self._json({"details": {"format": "gguf"}, "capabilities": ["completion"]})
        elif self.path.startswith("/v1/"):
            self._pass_on(document)
        elif self.path == "/api/embed":
            self._embed(document)
        else:
            self._generate(document)

    def _take_blob(self, digest: str, content: bytes) -> None:
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            self._json({"error": "digest does not match"}, 400)
            return
        self.ollama.blob(digest).parent.mkdir(parents=True, exist_ok=True)
        self.ollama.blob(digest).write_bytes(content)
        self._answer(201, b"")

    def _create(self, document: dict[str, Any]) -> None:
        (digest,) = document["files"].values()
        if not self.ollama.blob(digest).is_file():
            self._json({"error": f"blob {digest} not found"}, 400)
            return
        self.ollama.models[_full(document["model"])] = digest
        self._json({"status": "success"})

    def _pass_on(self, document: dict[str, Any]) -> None:
        embeds = self.path == "/v1/embeddings"
        url = self.ollama.backend(document["model"], embeds=embeds)
        with httpx.stream("POST", url + self.path, json=document, timeout=60) as answer:
            self._begin(answer.status_code, answer.headers["content-type"])
            for piece in answer.iter_bytes():
                self._piece(piece)
            self._piece(b"")

    def _embed(self, document: dict[str, Any]) -> None:
        url = self.ollama.backend(document["model"], embeds=True)
        texts = [document["input"]] if isinstance(document["input"], str) else document["input"]
        answer = httpx.post(f"{url}/v1/embeddings", json={"input": texts}, timeout=60).raise_for_status().json()
        self._json({"model": document["model"], "embeddings": [each["embedding"] for each in answer["data"]]})

    def _generate(self, document: dict[str, Any]) -> None:
        """/api/chat and /api/generate: a JSON line for each piece, or one object."""
        chat = self.path == "/api/chat"
        pieces = _pieces(self.ollama.backend(document["model"]), document, chat=chat)
        head = {"model": document["model"], "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        end = {"done": True, "done_reason": "stop"}
        if document.get("stream") is False:
            self._json({**head, **_part("".join(pieces), chat=chat), **end})
            return
        self._begin(200, "application/x-ndjson")
        for piece in pieces:
            self._piece(json.dumps({**head, **_part(piece, chat=chat), "done": False}).encode() + b"\n")
        self._piece(json.dumps({**head, **_part("", chat=chat), **end}).encode() + b"\n")
        self._piece(b"")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _json(self, document: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(document).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin(self, status: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def _piece(self, content: bytes) -> None:
        """One chunk; an empty one ends the answer."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _pieces(url: str, document: dict[str, Any], *, chat: bool) -> Iterator[str]:
    options = document.get("options", {})
    request = {"stream": True, "temperature": options.get("temperature", 0.8), "max_tokens": options.get("num_predict")}
    request |= {key: document[key] for key in ("messages", "prompt") if key in document}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    with httpx.stream("POST", url + path, json=request, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                text = choice["delta"].get("content") if chat else choice["text"]
                if text:
                    yield text


def _part(text: str, *, chat: bool) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}} if chat else {"response": text}


def _full(name: str) -> str:
    """As Ollama keeps it: with a tag."""
    return name if ":" in name else f"{name}:latest"


def _missing(name: object) -> dict[str, Any]:
    return {"error": f"model '{name}' not found"}


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=1).status_code == 200
    except httpx.TransportError:
        return False
