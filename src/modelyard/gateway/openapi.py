"""The gateway's interface as an OpenAPI 3.1 document, for tools that make clients, pages or tests out of one. Pure.

It holds what modelyard promises for every engine; engines take more (sampling options, tools) and say so themselves.
Sources: https://platform.openai.com/docs/api-reference and the Open Inference Protocol's inference_rest.md.
"""

from __future__ import annotations

from typing import Any

from modelyard import __version__

Document = dict[str, Any]

_STRING: Document = {"type": "string"}
_TEXT: Document = {"type": "string", "minLength": 1}
_INTEGER: Document = {"type": "integer"}
_BOOLEAN: Document = {"type": "boolean"}


def openapi() -> Document:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "modelyard gateway",
            "version": __version__,
            "description": "Every deployed model under OpenAI's API and the Open Inference Protocol v2.",
        },
        "paths": {**_health(), **_openai(), **_inference()},
        "components": {"schemas": _SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }


def _health() -> Document:
    live = _object({"live": _BOOLEAN}, "live")
    return {
        "/healthz": {"get": _operation("Whether the gateway runs", _object({"status": _STRING}, "status"))},
        "/readyz": {"get": _operation("Whether the gateway takes requests", _object({"status": _STRING}, "status"))},
        "/v2": {"get": _operation("The server", _ref("Server"), oip=True)},
        "/v2/health/live": {"get": _operation("Whether the gateway runs", live, oip=True)},
        "/v2/health/ready": {
            "get": _operation("Whether the gateway takes requests", _object({"ready": _BOOLEAN}, "ready"), oip=True)
        },
    }


def _openai() -> Document:
    return {
        "/v1/models": {"get": _operation("The models that can be asked for", _ref("ModelList"))},
        "/v1/chat/completions": {"post": _asking("Answer a conversation", "Chat", "ChatCompletion", stream=True)},
        "/v1/completions": {"post": _asking("Go on with a text", "Prompt", "Completion", stream=True)},
        "/v1/embeddings": {"post": _asking("Embed texts", "EmbeddingsRequest", "Embeddings")},
    }


def _inference() -> Document:
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[^/?#]+$"}}
    metadata = _operation("A model's inputs and outputs", _ref("ModelMetadata"), oip=True)
    ready = _operation("Whether a model can be asked", _ref("ModelReady"), oip=True)
    infer = _operation("Compute a model's outputs", _ref("InferResponse"), oip=True) | {
        "requestBody": _content(_ref("InferRequest"))
    }
    return {
        "/v2/models/{name}": {"parameters": [name], "get": metadata},
        "/v2/models/{name}/ready": {"parameters": [name], "get": ready},
        "/v2/models/{name}/infer": {"parameters": [name], "post": infer},
    }


def _asking(summary: str, request: str, answer: str, *, stream: bool = False) -> Document:
    operation = _operation(summary, _ref(answer)) | {"requestBody": _content(_ref(request))}
    if stream:
        operation["responses"]["200"]["content"]["text/event-stream"] = {}
    return operation


def _operation(summary: str, answer: Document, *, oip: bool = False) -> Document:
    """Everything but 200 is an error in the protocol's own shape."""
    error = {"description": "what is wrong, and what to do", **_content(_ref("OipError" if oip else "Error"))}
    return {
        "summary": summary,
        "responses": {"200": {"description": "the answer", **_content(answer)}, "default": error},
    }


def _content(schema: Document) -> Document:
    return {"content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Document, *required: str) -> Document:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(items: Document, **more: Any) -> Document:
    return {"type": "array", "items": items, **more}


_MODEL = {"type": "string", "minLength": 1, "description": "a name from /v1/models"}
_STREAM = {"type": "boolean", "description": "send the answer as server-sent events"}
_MAX_TOKENS = {"type": "integer", "minimum": 1, "maximum": 65536}
_VECTOR = {"anyOf": [_list({"type": "number"}), {"type": "string", "contentEncoding": "base64"}]}
_TENSOR = {"name": _STRING, "datatype": _STRING, "shape": _list({"type": "integer", "minimum": 0})}
_DECLARED = _object({"name": _STRING, "datatype": _STRING, "shape": _list(_INTEGER)}, "name", "datatype", "shape")
_MESSAGE = _object({"role": {"enum": ["system", "user", "assistant"]}, "content": _STRING}, "role", "content")

_SCHEMAS: Document = {
    "Error": _object({"error": _object({"message": _STRING}, "message")}, "error"),
    "OipError": _object({"error": _STRING}, "error"),
    "Server": _object(
        {"name": _STRING, "version": _STRING, "extensions": _list(_STRING)}, "name", "version", "extensions"
    ),
    "ModelList": _object(
        {"object": {"const": "list"}, "data": _list(_object({"id": _STRING, "object": {"const": "model"}}, "id"))},
        "object",
        "data",
    ),
    "Chat": _object(
        {
            "model": _MODEL,
            "messages": _list(_MESSAGE, minItems=1),
            "max_tokens": _MAX_TOKENS,
            "stream": _STREAM,
            "user": {"type": "string", "description": "the key that a split between versions is sticky by"},
        },
        "model",
        "messages",
    ),
    "Prompt": _object(
        {"model": _MODEL, "prompt": _TEXT, "max_tokens": _MAX_TOKENS, "stream": _STREAM}, "model", "prompt"
    ),
    "ChatCompletion": _object({"id": _STRING, "choices": _list({"type": "object"})}, "choices"),
    "Completion": _object({"id": _STRING, "choices": _list({"type": "object"})}, "choices"),
    "EmbeddingsRequest": _object(
        {
            "model": _MODEL,
            "input": {"anyOf": [_TEXT, _list(_TEXT, minItems=1)]},
            "encoding_format": {"enum": ["float", "base64"]},
            "dimensions": {"type": "integer", "minimum": 1},
        },
        "model",
        "input",
    ),
    "Embeddings": _object(
        {
            "object": {"const": "list"},
            "model": _STRING,
            "data": _list(_object({"index": _INTEGER, "embedding": _VECTOR}, "index", "embedding")),
            "usage": _object({"prompt_tokens": _INTEGER, "total_tokens": _INTEGER}, "prompt_tokens", "total_tokens"),
        },
        "object",
        "model",
        "data",
    ),
    "ModelMetadata": _object(
        {
            "name": _STRING,
            "versions": _list(_STRING),
            "platform": _STRING,
            "inputs": _list(_DECLARED),
            "outputs": _list(_DECLARED),
        },
        "name",
        "platform",
        "inputs",
        "outputs",
    ),
    "ModelReady": _object({"name": _STRING, "ready": _BOOLEAN}, "name", "ready"),
    "InferRequest": _object(
        {
            "id": _STRING,
            "inputs": _list(_object({**_TENSOR, "data": {"type": "array"}}, *_TENSOR, "data"), minItems=1),
            "outputs": _list(_object({"name": _STRING}, "name")),
        },
        "inputs",
    ),
    "InferResponse": _object(
        {
            "model_name": _STRING,
            "model_version": _STRING,
            "id": _STRING,
            "outputs": _list(_object({**_TENSOR, "data": {"type": "array"}}, "name", "datatype", "shape")),
        },
        "model_name",
        "outputs",
    ),
}
