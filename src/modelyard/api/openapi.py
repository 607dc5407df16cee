"""The API's interface as an OpenAPI 3.1 document: every path and every status it answers with. Pure."""

from __future__ import annotations

from modelyard.serving.schemas import (
    BINARY,
    BOOLEAN,
    INTEGER,
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

_MODEL = parameter("model", SEGMENT) | {"description": "a name, or namespace/name, with its slash as it is"}
_REVISION = parameter("revision", SEGMENT) | {"description": "main, a tag, a version or a commit id"}
_PATH = parameter("path", {"type": "string", "pattern": "^[^?#]+$"}) | {"description": "with its slashes as they are"}
_PAGED = [
    parameter("limit", {"type": "integer", "minimum": 1, "maximum": 999_999}, place="query"),
    parameter("cursor", STRING, place="query"),
]
_LINK = {"headers": {"Link": {"description": "the next page", "schema": STRING}}}
_HASH = {"type": "string", "pattern": "^[0-9a-f]{40}$"}
_REF = record({"name": STRING, "ref": STRING, "targetCommit": _HASH}, "name", "ref", "targetCommit")
_SUMMARY = {"id": STRING, "modelId": STRING, "private": BOOLEAN}
_SCHEMAS: Document = {
    "Counts": record({"counts": TEXT, "clusters": {"type": "object"}}, "counts", "clusters"),
    "Error": record({"error": TEXT}, "error"),
    "Summary": record(_SUMMARY, *_SUMMARY),
    "Model": record(
        {
            **_SUMMARY,
            "sha": _HASH,
            "lastModified": {"type": "string", "format": "date-time"},
            "tags": array(STRING),
            "siblings": array(record({"rfilename": STRING, "size": INTEGER, "blobId": _HASH}, "rfilename")),
        },
        *_SUMMARY,
        "sha",
        "lastModified",
        "tags",
        "siblings",
    ),
    "Refs": record({"branches": array(_REF), "tags": array(_REF)}, "branches", "tags"),
    "Entry": record(
        {"type": {"enum": ["file", "directory"]}, "oid": _HASH, "size": INTEGER, "path": TEXT},
        "type",
        "oid",
        "size",
        "path",
    ),
    "Paths": record({"paths": array(STRING), "expand": BOOLEAN}, "paths"),
}
_REFUSALS = (401, 403, 503)
_FINDING = (401, 403, 404, 422, 503)


def openapi() -> Document:
    """The whole document."""
    about = "Models for the clients of the Hugging Face Hub, below /hf, and what the gateway has counted."
    return document("modelyard API", about, {**_models(), **_files(), **_metrics()}, _SCHEMAS, tokens=True)


def _models() -> Document:
    chosen = [parameter(name, STRING, place="query") for name in ("search", "author")]
    listing = operation("The names of the models", _listed("Summary") | _problems(400, *_REFUSALS))
    model = operation("A version and its files", answer(reference("Model")) | _problems(*_FINDING))
    refs = operation("Versions, and what moves", answer(reference("Refs")) | _problems(*_FINDING))
    at = "/hf/api/models/{model}"
    blobs = parameter("blobs", BOOLEAN, place="query")
    return {
        "/hf/api/models": {"parameters": [*chosen, *_PAGED], "get": listing},
        at: {"parameters": [_MODEL, blobs], "get": model},
        f"{at}/revision/{{revision}}": {"parameters": [_MODEL, _REVISION, blobs], "get": model},
        f"{at}/refs": {"parameters": [_MODEL], "get": refs},
    }


def _files() -> Document:
    at = "/hf/api/models/{model}"
    flags = [parameter(name, BOOLEAN, place="query") for name in ("recursive", "expand")]
    tree = operation("What lies in a folder", _listed("Entry") | _problems(400, *_FINDING))
    form = {"application/x-www-form-urlencoded": {"schema": reference("Paths")}}
    asked = {"content": content(reference("Paths"))["content"] | form}
    info = operation("What lies at some paths", _listed("Entry") | _problems(400, 413, *_FINDING), body=asked)
    where = [_MODEL, _REVISION]
    return {
        f"{at}/tree/{{revision}}": {"parameters": [*where, *flags, *_PAGED], "get": tree},
        f"{at}/tree/{{revision}}/{{path}}": {"parameters": [*where, _PATH, *flags, *_PAGED], "get": tree},
        f"{at}/paths-info/{{revision}}": {"parameters": where, "post": info},
        "/hf/{model}/resolve/{revision}/{path}": {
            "parameters": [*where, _PATH],
            "get": operation("A file's bytes", _sent() | _problems(416, *_FINDING)),
            "head": operation("A file's size and digest", _bare(200, 304, *_FINDING)),
        },
    }


def _metrics() -> Document:
    formats: Document = {"text/plain": {}, "application/openmetrics-text": {}}
    counted = {"200": {"description": "in Prometheus' format", "content": formats}}
    raw = operation("The same, to be added up over gateways", answer(reference("Counts")) | _problems(404, *_REFUSALS))
    return {
        "/metrics": {"get": operation("What the gateway has counted", counted | _problems(*_REFUSALS))},
        "/statistics": {"get": raw},
    }


def _listed(item: str) -> Document:
    found = answer(array(reference(item)))
    return {"200": found["200"] | _LINK}


def _sent() -> Document:
    data: Document = {"content": {BINARY: {}}}
    told = {"200": {"description": "the file", **data}, "206": {"description": "a part of it", **data}}
    return told | _bare(302, 304)


def _bare(*statuses: int) -> Document:
    return {str(status): {"description": "no body"} for status in statuses}


def _problems(*statuses: int) -> Document:
    """Every error says the same in a header, which clients show to people."""
    found = problems("Error", *statuses)
    for each in found.values():
        each["headers"] = {**each.get("headers", {}), "X-Error-Message": {"required": True, "schema": STRING}}
    return found
