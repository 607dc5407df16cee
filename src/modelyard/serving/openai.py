"""OpenAI's shapes: embeddings, the list of models, errors. Knows JSON documents; knows nothing of HTTP or of computing.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput
from modelyard.repository.manifest import ModelVersion, Signature
from modelyard.serving.protocol import Arrays, require_finite


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    model: str
    texts: np.ndarray[Any, Any]
    base64: bool


def model_name(document: dict[str, Any]) -> str:
    """The model a request names. Raises InvalidInput."""
    name = document.get("model")
    if not isinstance(name, str) or not name:
        raise InvalidInput("the request names no 'model'", remedy="send the name of a model from /v1/models")
    return name


def parse_embeddings(document: dict[str, Any], signature: Signature) -> EmbeddingsRequest:
    """A request that a model with this signature can answer. Raises InvalidInput."""
    name = model_name(document)
    embedding = {tensor.name: tensor for tensor in signature.outputs}.get("embedding")
    if embedding is None or [tensor.name for tensor in signature.inputs] != ["text"]:
        raise InvalidInput(f"{name} does not embed text", remedy=f"ask it at /v2/models/{name}/infer")
    texts = document.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInput(
            "'input' is neither a string nor a list of strings", remedy="send text; tokens are not taken"
        )
    if not all(texts):
        raise InvalidInput("'input' holds an empty string", remedy="leave it out")
    encoding = document.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise InvalidInput(f"'encoding_format' is {encoding!r}", remedy="use float or base64")
    dimensions = document.get("dimensions")
    if dimensions is not None and dimensions != embedding.shape[-1]:
        raise InvalidInput(f"{name} gives {embedding.shape[-1]} dimensions, not {dimensions}", remedy="leave it out")
    return EmbeddingsRequest(name, np.array(texts, dtype=object), encoding == "base64")


def embeddings_document(asked: EmbeddingsRequest, computed: Arrays) -> dict[str, Any]:
    """The answer: one vector a text, in the order asked, and what they cost. Raises ModelFailed."""
    vectors = np.ascontiguousarray(computed["embedding"], dtype="<f4")
    require_finite("embedding", vectors)
    tokens = int(computed["tokens"].sum()) if "tokens" in computed else 0
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, asked.base64)}
            for index, vector in enumerate(vectors)
        ],
        "model": asked.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def models_document(versions: Iterable[ModelVersion]) -> dict[str, Any]:
    """The list of models, each as `name:version`."""
    return {
        "object": "list",
        "data": [
            {
                "id": f"{version.name}:{version.version}",
                "object": "model",
                "created": int(version.created_at.timestamp()),
                "owned_by": version.created_by,
            }
            for version in versions
        ],
    }


def error_document(message: str, status: int, code: str) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _encoded(vector: np.ndarray[Any, Any], as_base64: bool) -> str | list[float]:
    return base64.b64encode(vector.tobytes()).decode() if as_base64 else vector.tolist()
