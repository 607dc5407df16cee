"""JSON schemas of the two protocols, and the pieces that OpenAPI documents are put together from. Pure.

The model server and the gateway speak the same protocols, so their documents share this. Knows no paths.
Sources: https://platform.openai.com/docs/api-reference, https://docs.cohere.com/reference/rerank and the Open Inference
Protocol's inference_rest.md with its extensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard import __version__

Document = dict[str, Any]

JSON, BINARY = "application/json", "application/octet-stream"
STRING: Document = {"type": "string"}
TEXT: Document = {"type": "string", "minLength": 1}
INTEGER: Document = {"type": "integer"}
BOOLEAN: Document = {"type": "boolean"}
SEGMENT: Document = {"type": "string", "pattern": "^[^/?#]+$"}  # of a path

_PROBLEMS = {
    400: "the request can't be taken",
    401: "there is no token, or none that counts",
    403: "the token does not allow this",
    404: "there is nothing of that name",
    413: "the body is too large",
    416: "the range lies outside the file",
    422: "the stored bytes are not those that were registered",
    429: "too many requests",
    500: "the model failed",
    503: "nothing is there (yet) to do the work",
}
_HEADERS: Mapping[int, Document] = {
    401: {"WWW-Authenticate": {"required": True, "schema": STRING}},
    429: {"Retry-After": {"description": "seconds", "schema": STRING}},
    503: {"Retry-After": {"description": "seconds", "schema": STRING}},
}


def document(title: str, description: str, paths: Document, schemas: Document, *, tokens: bool = False) -> Document:
    """A whole OpenAPI document; `tokens`: of a server that asks for one while access is on."""
    found: Document = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": description},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if tokens:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{}, {"token": []}]
    return found


def operation(summary: str, answers: Document, *, body: Document | None = None) -> Document:
    """An operation, with what it answers by status."""
    asked = {} if body is None else {"requestBody": {"required": True, **body}}
    return {"summary": summary, **asked, "responses": answers}


def answer(schema: Document) -> Document:
    """The answer that tells of success."""
    return {"200": {"description": "the answer", **content(schema)}}


def problems(schema: str, *statuses: int) -> Document:
    """Answers that tell what is wrong, all in the shape of this schema."""
    return {str(status): problem(schema, status) for status in statuses}


def problem(schema: str, status: int) -> Document:
    headers = {"headers": _HEADERS[status]} if status in _HEADERS else {}
    return {"description": _PROBLEMS[status], **headers, **content(reference(schema))}


def content(schema: Document) -> Document:
    return {"content": {JSON: {"schema": schema}}}


def reference(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def parameter(name: str, schema: Document, *, place: str = "path") -> Document:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def record(properties: Document, *required: str) -> Document:
    return {"type": "object", "properties": properties, "required": list(required)}


def array(items: Document, **more: Any) -> Document:
    return {"type": "array", "items": items, **more}


MODEL = {"type": "string", "minLength": 1, "description": "a name from /v1/models"}
NAME = parameter("name", SEGMENT)
LIVE = record({"live": BOOLEAN}, "live")
READY = record({"ready": BOOLEAN}, "ready")

_DATATYPES = "BOOL INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 FP16 FP32 FP64 BYTES"
_LENGTHS = array({"type": "integer", "minimum": 0})
_DECLARED = record({"name": STRING, "datatype": STRING, "shape": array(INTEGER)}, "name", "datatype", "shape")
_VECTOR = {"anyOf": [array({"type": "number"}), {"type": "string", "contentEncoding": "base64"}]}
_INPUT = record(
    {
        "name": STRING,
        "datatype": {"enum": _DATATYPES.split()},
        "shape": _LENGTHS,
        "data": {"type": "array"},
        "parameters": record({"binary_data_size": {"type": "integer", "minimum": 0}}),
    },
    "name",
    "datatype",
    "shape",
)
_WANTED = record({"name": STRING, "parameters": record({"binary_data": BOOLEAN})}, "name")
_OUTPUT = record(
    {"name": STRING, "datatype": STRING, "shape": _LENGTHS, "data": {"type": "array"}}, "name", "datatype", "shape"
)
_DOCUMENT = {"anyOf": [STRING, record({"text": STRING}, "text")]}
_RANKED = record({"index": INTEGER, "relevance_score": {"type": "number"}}, "index", "relevance_score")

_CODE = {"type": ["string", "integer", "null"], "description": "a word, but for some engines the status"}
ERRORS: Document = {
    "Error": record({"error": record({"message": TEXT, "type": STRING, "code": _CODE}, "message")}, "error"),
    "OipError": record({"error": TEXT}, "error"),
}
OPENAI: Document = {
    "Model": record(
        {"id": STRING, "object": {"const": "model"}, "created": INTEGER, "owned_by": STRING}, "id", "object", "created"
    ),
    "ModelList": record({"object": {"const": "list"}, "data": array(reference("Model"))}, "object", "data"),
    "EmbeddingsRequest": record(
        {
            "model": MODEL,
            "input": {"anyOf": [TEXT, array(TEXT, minItems=1)]},
            "encoding_format": {"enum": ["float", "base64"]},
            "dimensions": {"type": "integer", "minimum": 1},
        },
        "model",
        "input",
    ),
    "Embeddings": record(
        {
            "object": {"const": "list"},
            "model": STRING,
            "data": array(record({"index": INTEGER, "embedding": _VECTOR}, "index", "embedding")),
            "usage": record({"prompt_tokens": INTEGER, "total_tokens": INTEGER}, "prompt_tokens", "total_tokens"),
        },
        "object",
        "model",
        "data",
    ),
    "RerankRequest": record(
        {
            "model": MODEL,
            "query": TEXT,
            "documents": array(_DOCUMENT, minItems=1),
            "top_n": {"type": "integer", "minimum": 1},
            "return_documents": BOOLEAN,
        },
        "model",
        "query",
        "documents",
    ),
    "Ranking": record(
        {"model": STRING, "results": array(_RANKED), "usage": record({"total_tokens": INTEGER})}, "results"
    ),
}
INFERENCE: Document = {
    "Server": record({"name": STRING, "version": STRING, "extensions": array(STRING)}, "name", "version", "extensions"),
    "ModelMetadata": record(
        {
            "name": STRING,
            "versions": array(STRING),
            "platform": STRING,
            "inputs": array(_DECLARED),
            "outputs": array(_DECLARED),
        },
        "name",
        "platform",
        "inputs",
        "outputs",
    ),
    "ModelReady": record({"name": STRING, "ready": BOOLEAN}, "name", "ready"),
    "InferRequest": record(
        {
            "id": STRING,
            "inputs": array(_INPUT, minItems=1),
            "outputs": array(_WANTED),
            "parameters": record({"binary_data_output": BOOLEAN}),
        },
        "inputs",
    ),
    "InferResponse": record(
        {"model_name": STRING, "model_version": STRING, "id": STRING, "outputs": array(_OUTPUT)},
        "model_name",
        "outputs",
    ),
}
