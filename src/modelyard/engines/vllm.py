"""vLLM, through its OpenAI-compatible API."""

from __future__ import annotations

from typing import Any, ClassVar

from modelyard.engines.http import Client, post_openai


class VLLMServer:
    """`predict` takes OpenAI's requests: `messages`, `prompt` or `input`."""

    name: ClassVar[str] = "vllm"
    ready_path: ClassVar[str] = "/health"
    keeps_connections: ClassVar[bool] = True

    def __init__(self, url: str, *, timeout_s: float = 300) -> None:
        self._client = Client("vLLM", url, "start it with `vllm serve`, or set engines.vllm_url", timeout_s)

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        return post_openai(self._client, model_name, request)
