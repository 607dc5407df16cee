"""Our PyTorch model server, and whatever else speaks the Open Inference Protocol v2 or TorchServe's predictions."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SecretStr

from modelyard.engines.http import Client, as_object, post_openai, quoted


class PyTorchServer:
    """`predict` takes v2 requests (`inputs`), embeddings (`input`), and any other object for TorchServe's handlers."""

    name: ClassVar[str] = "pytorch"
    ready_path: ClassVar[str] = "/v2/health/ready"
    keeps_connections: ClassVar[bool] = True

    def __init__(self, url: str, *, timeout_s: float = 300, token: SecretStr | None = None) -> None:
        self._client = Client(
            "PyTorch server", url, "start one with `modelyard up` or `modelyard serve`", timeout_s, token
        )

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        if "inputs" in request:
            return as_object(self._client.post(f"/v2/models/{quoted(model_name)}/infer", request))
        if "input" in request:
            return post_openai(self._client, model_name, request)
        answer = self._client.post(f"/predictions/{quoted(model_name)}", request)
        # TorchServe's handlers may answer with any JSON value.
        return answer if isinstance(answer, dict) else {"predictions": answer}
