"""The Open Inference Protocol v2 and TorchServe's predictions, as clients speak them."""

from __future__ import annotations

from typing import Any

from modelyard.engines.http import Client, as_object, quoted


def infer(client: Client, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
    """A v2 request, whose tensors stand under `inputs`."""
    return as_object(client.post(f"/v2/models/{quoted(model_name)}/infer", request))


def predictions(client: Client, model_name: str, request: dict[str, Any]) -> dict[str, Any]:
    """Any object, for the model's own handler; it may answer with any JSON value."""
    answer = client.post(f"/predictions/{quoted(model_name)}", request)
    return answer if isinstance(answer, dict) else {"predictions": answer}
