"""Asking a deployed model through the gateway, as its callers do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from modelyard.access.tokens import Unauthorized
from modelyard.engines.http import bearer
from modelyard.errors import Refused, Unavailable


@dataclass(frozen=True, slots=True)
class Answer:
    """`label` is the `x-modelyard-model` header; `seconds` from sending to the whole answer."""

    status: int
    body: Any
    label: str
    seconds: float


class ModelClient:
    """One deployed model, by one of its names at the gateway (`name:staging`, `name:v1.2.0`, …)."""

    def __init__(self, gateway_url: str, model: str, *, token: SecretStr | None = None, timeout_s: float = 60) -> None:
        headers = bearer(token)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)  # as many as there are callers
        self._http = httpx.Client(base_url=gateway_url, timeout=timeout_s, headers=headers, limits=limits)
        self._has_token = bool(headers)
        self.url = gateway_url
        self.model = model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def signature(self) -> Answer:
        """The model's inputs and outputs (Open Inference Protocol v2 metadata)."""
        return self._ask("GET", self._path())

    def ask(self, request: dict[str, Any]) -> Answer:
        """Send a request to the address that fits its shape: messages, prompt, input (OpenAI) or inputs (OIP v2)."""
        if "messages" in request:
            return self._ask("POST", "/v1/chat/completions", request | {"model": self.model})
        if "prompt" in request:
            return self._ask("POST", "/v1/completions", request | {"model": self.model})
        if "input" in request:
            return self._ask("POST", "/v1/embeddings", request | {"model": self.model})
        return self._ask("POST", f"{self._path()}/infer", request)

    def _path(self) -> str:
        return f"/v2/models/{quote(self.model)}"

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        began = time.perf_counter()
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"the gateway at {self._http.base_url} does not answer: {error}", remedy="start `modelyard up`"
            ) from error
        seconds = time.perf_counter() - began
        self._require_access(response.status_code)
        try:
            document = response.json()
        except ValueError:
            document = {"error": response.text[:200]}
        return Answer(response.status_code, document, response.headers.get("x-modelyard-model", ""), seconds)

    def _require_access(self, status: int) -> None:
        """What the gateway says of the token is not about the model."""
        if status == 401:
            what = "does not take the token" if self._has_token else "wants a token"
            raise Unauthorized(
                f"the gateway at {self._http.base_url} {what}",
                remedy="set MODELYARD_TOKEN to one that is good; `modelyard token create NAME --role caller` makes one",
            )
        if status == 403:
            raise Refused(
                f"the token does not allow asking {self.model} at the gateway at {self._http.base_url}",
                remedy="set MODELYARD_TOKEN to one with the role caller and this model",
            )


def message(answer: Answer) -> str:
    """The error an answer carries, in either protocol's shape."""
    error = answer.body.get("error", answer.body) if isinstance(answer.body, dict) else answer.body
    text = error.get("message", error) if isinstance(error, dict) else error
    return f"{answer.status}: {text}"
