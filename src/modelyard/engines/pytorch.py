"""Our PyTorch model server, and whatever else speaks the Open Inference Protocol v2 or TorchServe's predictions."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SecretStr

from modelyard.engines import openai, v2
from modelyard.engines.engine import Serves
from modelyard.engines.http import Client
from modelyard.refs import ModelRef


class PyTorchServer:
    """`predict` takes v2 requests (`inputs`), embeddings (`input`), and any other object for TorchServe's handlers."""

    name: ClassVar[str] = "pytorch"
    # What serving.runtimes.RUNTIMES has; a test holds that.
    serves: ClassVar[tuple[Serves, ...]] = (
        Serves(frozenset({"custom", "onnx", "sentence-transformers", "skops", "torchscript"})),
        Serves(
            frozenset({"transformers"}),
            frozenset(
                {
                    *("text-classification", "token-classification", "text-ranking"),
                    *("feature-extraction", "sentence-similarity", "image-classification"),
                }
            ),
        ),
    )
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    ready_path: ClassVar[str] = "/v2/health/ready"
    keeps_connections: ClassVar[bool] = True
    refuses_with_500: ClassVar[tuple[str, ...]] = ()

    def __init__(self, url: str, *, timeout_s: float = 300, token: SecretStr | None = None) -> None:
        self._client = Client(
            "PyTorch server", url, "start one with `modelyard up` or `modelyard serve`", timeout_s, token
        )

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        if "inputs" in request:
            return v2.infer(self._client, model_name, request)
        if "input" in request:
            return openai.post(self._client, model_name, request)
        return v2.predictions(self._client, model_name, request)

    @staticmethod
    def internal_name(ref: ModelRef) -> str | None:  # noqa: ARG004 - it goes by the name that was asked for
        return None
