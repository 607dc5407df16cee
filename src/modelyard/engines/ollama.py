"""Ollama, through its own API: asking it, and putting a version into it and taking it out again.

Source: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import SecretStr

from modelyard.engines import openai
from modelyard.engines.engine import Serves
from modelyard.engines.http import Client, as_object, path_for, refuse_stream
from modelyard.errors import EngineError, InvalidInput, NotFound
from modelyard.refs import ModelRef

_PATHS = {"messages": "/api/chat", "prompt": "/api/generate", "input": "/api/embed"}
_STREAMED = {key: _PATHS[key] for key in ("messages", "prompt")}
_PIECE = 1 << 20
_LONGEST = 80  # part of a name


class OllamaServer:
    """`predict` and `stream` take Ollama's requests, with its `options`: `messages` or `prompt`; `predict` also
    `input`."""

    name: ClassVar[str] = "ollama"
    serves: ClassVar[tuple[Serves, ...]] = (Serves(frozenset({"gguf"})),)
    devices: ClassVar[tuple[str, ...]] = ("cuda", "rocm", "metal", "cpu")
    ready_path: ClassVar[str] = "/api/version"
    keeps_connections: ClassVar[bool] = True
    refuses_with_500: ClassVar[tuple[str, ...]] = ()

    def __init__(self, url: str, *, timeout_s: float = 300, token: SecretStr | None = None) -> None:
        self._client = Client(
            "Ollama", url, "start it with `ollama serve`, or set engines.ollama_url", timeout_s, token
        )

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        refuse_stream(request)
        document = {**request, "model": model_name, "stream": False}
        return as_object(self._client.post(path_for(_PATHS, request), document))

    def stream(self, model_name: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The pieces as they come; the last one says `done`. Raises StreamBroken when it is missing."""
        document = {**request, "model": model_name, "stream": True}
        for line in self._client.lines(path_for(_STREAMED, request), document):
            if not line.strip():
                continue
            piece = openai.chunk(self._client, line)
            yield piece
            if piece.get("done") is True:
                return
        raise self._client.broken("it ended without done: true")

    @staticmethod
    def internal_name(ref: ModelRef) -> str:
        """The name under which a version is put into Ollama: it holds the digest, so it never means other bytes."""
        if ref.digest is None:
            raise InvalidInput(f"{ref} has no digest", remedy="resolve it first")
        return f"modelyard/{ref.name.replace('/', '--')[:_LONGEST]}:{ref.digest.hex[:32]}"

    def release(self) -> str:
        """Ollama's own version."""
        return str(as_object(self._client.get("/api/version")).get("version"))

    def has(self, name: str) -> bool:
        """Whether it has the model."""
        try:
            self._client.post("/api/show", {"model": name})
        except NotFound:
            return False
        return True

    def create(self, name: str, file: Path, sha256: str) -> None:
        """Put a GGUF file into it under a name. Ollama checks the sum, takes over what it has, and finds the chat
        template in the file."""
        digest = f"sha256:{sha256}"
        try:
            self._client.send("HEAD", f"/api/blobs/{digest}")
        except NotFound:
            self._client.send("POST", f"/api/blobs/{digest}", _pieces(file))
        document = {"model": name, "files": {file.name: digest}, "stream": False}
        said = as_object(self._client.post("/api/create", document))
        if said.get("status") != "success":
            raise EngineError(f"Ollama did not take {file.name}: {said.get('status', said)}")

    def remove(self, name: str) -> None:
        """Take a model out of it; one that is not there stays away."""
        try:
            self._client.send("DELETE", "/api/delete", b'{"model": "%s"}' % name.encode())
        except NotFound:
            return


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            yield piece
