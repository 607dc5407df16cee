"""The gateway's interface as an OpenAPI 3.1 document, for tools that make clients, pages or tests out of one. Pure.

It holds what modelyard promises for every engine; engines take more (sampling options, tools) and say so themselves.
"""

from __future__ import annotations

from modelyard.serving.schemas import (
    ERRORS,
    INFERENCE,
    LIVE,
    MODEL,
    NAME,
    OPENAI,
    READY,
    SEGMENT,
    STRING,
    TEXT,
    Document,
    answer,
    array,
    content,
    document,
    operation,
    parameter,
    problems,
    record,
    reference,
)

_STREAM = {"type": "boolean", "description": "send the answer as server-sent events"}
_MAX_TOKENS = {"type": "integer", "minimum": 1, "maximum": 65536}
_USER = {"type": "string", "description": "the key that a split between versions is sticky by"}
_STATUS = record({"status": STRING}, "status")
_MESSAGE = record({"role": {"enum": ["system", "user", "assistant"]}, "content": STRING}, "role", "content")
_LANGUAGE: Document = {
    "Chat": record(
        {
            "model": MODEL,
            "messages": array(_MESSAGE, minItems=1),
            "max_tokens": _MAX_TOKENS,
            "stream": _STREAM,
            "user": _USER,
        },
        "model",
        "messages",
    ),
    "Prompt": record({"model": MODEL, "prompt": TEXT, "max_tokens": _MAX_TOKENS, "stream": _STREAM}, "model", "prompt"),
    "ChatCompletion": record({"id": STRING, "choices": array({"type": "object"})}, "choices"),
    "Completion": record({"id": STRING, "choices": array({"type": "object"})}, "choices"),
}
_LISTING, _ASKING = (401,), (401, 403, 429)


def openapi() -> Document:
    """The whole document."""
    about = "Every deployed model under OpenAI's API and the Open Inference Protocol v2."
    schemas = {**ERRORS, **OPENAI, **_LANGUAGE, **INFERENCE}
    return document("modelyard gateway", about, {**_server(), **_openai(), **_inference()}, schemas, tokens=True)


def _server() -> Document:
    return {
        "/healthz": _open("Whether the gateway runs", _STATUS, "Error"),
        "/readyz": _open("Whether the gateway takes requests", _STATUS, "Error"),
        "/v2": {"get": _operation("The server", reference("Server"), "OipError", _LISTING)},
        "/v2/health/live": _open("Whether the gateway runs", LIVE, "OipError"),
        "/v2/health/ready": _open("Whether the gateway takes requests", READY, "OipError"),
    }


def _openai() -> Document:
    models = _operation("The models that can be asked for", reference("ModelList"), "Error", _LISTING)
    one = _operation("One of these models", reference("Model"), "Error", (*_LISTING, 404))
    return {
        "/v1/models": {"get": models},
        "/v1/models/{model}": {"parameters": [parameter("model", SEGMENT)], "get": one},
        "/v1/chat/completions": {"post": _asking("Answer a conversation", "Chat", "ChatCompletion", stream=True)},
        "/v1/completions": {"post": _asking("Go on with a text", "Prompt", "Completion", stream=True)},
        "/v1/embeddings": {"post": _asking("Embed texts", "EmbeddingsRequest", "Embeddings")},
        "/v1/rerank": {"post": _asking("Rank texts by a query", "RerankRequest", "Ranking")},
    }


def _inference() -> Document:
    metadata = _operation("A model's inputs and outputs", reference("ModelMetadata"), "OipError", _ASKING)
    ready = _operation("Whether a model can be asked", reference("ModelReady"), "OipError", _ASKING)
    infer = _operation(
        "Compute a model's outputs", reference("InferResponse"), "OipError", _ASKING, asked="InferRequest"
    )
    return {
        "/v2/models/{name}": {"parameters": [NAME], "get": metadata},
        "/v2/models/{name}/ready": {"parameters": [NAME], "get": ready},
        "/v2/models/{name}/infer": {"parameters": [NAME], "post": infer},
    }


def _open(summary: str, schema: Document, error: str) -> Document:
    """What needs no token."""
    return {"get": _operation(summary, schema, error) | {"security": []}}


def _asking(summary: str, asked: str, told: str, *, stream: bool = False) -> Document:
    found = _operation(summary, reference(told), "Error", _ASKING, asked=asked)
    if stream:
        found["responses"]["200"]["content"]["text/event-stream"] = {}
    return found


def _operation(
    summary: str, schema: Document, error: str, refusals: tuple[int, ...] = (), *, asked: str | None = None
) -> Document:
    """Everything but 200 is an error in the protocol's own shape; engines have statuses of their own."""
    other = {"default": {"description": "what is wrong, and what to do", **content(reference(error))}}
    answers = answer(schema) | problems(error, *refusals) | other
    return operation(summary, answers, body=content(reference(asked)) if asked else None)
