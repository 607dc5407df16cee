"""The model server's interface as an OpenAPI 3.1 document: every path and every status it answers with. Pure."""

from __future__ import annotations

from modelyard.serving.schemas import (
    BINARY,
    ERRORS,
    INFERENCE,
    LIVE,
    NAME,
    OPENAI,
    READY,
    SEGMENT,
    STRING,
    Document,
    answer,
    array,
    content,
    document,
    operation,
    parameter,
    problem,
    problems,
    record,
    reference,
)

_VERSION = parameter("version", SEGMENT)
_JSON_LENGTH = parameter(
    "Inference-Header-Content-Length", {"type": "integer", "minimum": 0, "maximum": 10**17}, place="header"
)
_ENTRY = record(
    {"name": STRING, "version": STRING, "state": {"enum": ["READY", "UNAVAILABLE"]}, "reason": STRING},
    "name",
    "version",
    "state",
    "reason",
)
_COMPUTING = (400, 404, 429, 500, 503)
_FINDING = (404, 429, 500, 503)


def openapi(*, repository: bool) -> Document:
    """The whole document; `repository`: of a server that loads models when they are asked for."""
    paths = {**_server(), **_openai(), **_models(), **(_repository() if repository else {})}
    about = "Models of one process under OpenAI's API and the Open Inference Protocol v2."
    return document("modelyard model server", about, paths, {**ERRORS, **OPENAI, **INFERENCE})


def _server() -> Document:
    ready = answer(READY) | {"503": {"description": "it does not", **content(READY)}}
    return {
        "/v2": {"get": operation("The server", answer(reference("Server")))},
        "/v2/health/live": {"get": operation("Whether the process runs", answer(LIVE))},
        "/v2/health/ready": {"get": operation("Whether it takes requests", ready)},
    }


def _openai() -> Document:
    failures = problems("Error", *_COMPUTING)
    embed = operation(
        "Embed texts", answer(reference("Embeddings")) | failures, body=content(reference("EmbeddingsRequest"))
    )
    rank = operation(
        "Rank texts by a query", answer(reference("Ranking")) | failures, body=content(reference("RerankRequest"))
    )
    return {
        "/v1/models": {"get": operation("The models of this process", answer(reference("ModelList")))},
        "/v1/embeddings": {"post": embed},
        "/v1/rerank": {"post": rank},
    }


def _models() -> Document:
    """A model by its name, and by its name and version."""
    found = answer(reference("ModelMetadata")) | problems("OipError", *_FINDING)
    paths: Document = {}
    for path, parameters in (("", [NAME]), ("/versions/{version}", [NAME, _VERSION])):
        model = f"/v2/models/{{name}}{path}"
        paths[model] = {"parameters": parameters, "get": operation("A model's inputs and outputs", found)}
        paths[f"{model}/ready"] = {"parameters": parameters, "get": operation("Whether it can be asked", _ready())}
        paths[f"{model}/infer"] = {"parameters": [*parameters, _JSON_LENGTH], "post": _infer()}
    return paths


def _ready() -> Document:
    not_yet = problem("OipError", 503)
    not_yet |= content({"anyOf": [reference("ModelReady"), reference("OipError")]})
    return answer(reference("ModelReady")) | problems("OipError", *_FINDING) | {"503": not_yet}


def _infer() -> Document:
    computed = answer(reference("InferResponse"))
    asked = content(reference("InferRequest"))
    for each in (computed["200"], asked):  # JSON, then binary data
        each["content"][BINARY] = {"schema": {"type": "string", "format": "binary"}}
    return operation("Compute a model's outputs", computed | problems("OipError", *_COMPUTING), body=asked)


def _repository() -> Document:
    done = {"200": {"description": "done; the body is empty"}}
    load = operation("Load a model", done | problems("OipError", *_FINDING))
    unload = operation("Unload a model", done | problems("OipError", 404, 503))
    index = operation("The models that may be asked for", answer(array(_ENTRY)) | problems("OipError", 503))
    return {
        "/v2/repository/index": {"post": index},
        "/v2/repository/models/{name}/load": {"parameters": [NAME], "post": load},
        "/v2/repository/models/{name}/unload": {"parameters": [NAME], "post": unload},
    }
