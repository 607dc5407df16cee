"""TorchServe: the client of one that runs elsewhere, through its inference API.

modelyard does not start it: its archives hold code of their own.
Source: https://docs.pytorch.org/serve/inference_api.html
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SecretStr

from modelyard.engines import v2
from modelyard.engines.engine import Serves
from modelyard.engines.http import Client
from modelyard.refs import ModelRef


class TorchServeServer:
    """`predict` takes any object for the model's handler, and v2 requests (`inputs`) where the model has the service
    envelope `kservev2`."""

    name: ClassVar[str] = "torchserve"
    serves: ClassVar[tuple[Serves, ...]] = ()
    devices: ClassVar[tuple[str, ...]] = ("cuda", "cpu")
    ready_path: ClassVar[str] = "/ping"
    keeps_connections: ClassVar[bool] = True
    refuses_with_500: ClassVar[tuple[str, ...]] = ()

    def __init__(self, url: str, *, timeout_s: float = 300, token: SecretStr | None = None) -> None:
        start = "start it with `torchserve --start`, or set engines.torchserve_url"
        self._client = Client("TorchServe", url, start, timeout_s, token)

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
        if "inputs" in request:
            return v2.infer(self._client, model_name, request)
        return v2.predictions(self._client, model_name, request)

    @staticmethod
    def internal_name(ref: ModelRef) -> str | None:
        return ref.name
