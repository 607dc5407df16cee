"""Ollama, through its own API, without streaming. Source: https://github.com/ollama/ollama/blob/main/docs/api.md"""

from __future__ import annotations

from typing import Any, ClassVar

from modelyard.engines.http import Client, as_object, path_for

_PATHS = {"messages": "/api/chat", "prompt": "/api/generate", "input": "/api/embed"}


class OllamaServer:
    """`predict` takes Ollama's requests: `messages`, `prompt` or `input`, with its `options`."""

    name: ClassVar[str] = "ollama"
    ready_path: ClassVar[str] = "/api/version"
    keeps_connections: ClassVar[bool] = True

    def __init__(self, url: str, *, timeout_s: float = 300) -> None:
        self._client = Client("Ollama", url, "start it with `ollama serve`, or set engines.ollama_url", timeout_s)

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        document = {**request, "model": model_name, "stream": False}
        return as_object(self._client.post(path_for(_PATHS, request), document))
