"""The model server's HTTP face: Open Inference Protocol v2 under /v2, OpenAI's embeddings under /v1.

Knows routes, statuses and headers; what a request means is the protocol's, what an answer costs the batcher's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import modelyard
from modelyard.errors import ModelyardError, Unavailable
from modelyard.serving import binary, openai, repository
from modelyard.serving.models import LoadedModel, Source
from modelyard.serving.openapi import openapi
from modelyard.serving.pool import Pool
from modelyard.serving.protocol import Arrays, parse_object, parse_request, serialize_response
from modelyard.serving.refusals import one_line, refusal
from modelyard.serving.rerank import parse_rerank, rerank_document
from modelyard.serving.uses import Uses, use

MODEL_HEADER = "x-modelyard-model"
SERVED_HEADER = "x-modelyard-served"  # names the exact version, where the name asked for is not its own
_READY_PATIENCE_S = 1.0
_BINARY = "application/octet-stream"


def create_app(models: Source) -> Starlette:
    """The application over these models; their state is read at every request."""
    api = _Api(models)
    model = "/v2/models/{name:path}"
    routes = [
        Route("/v2", api.server),
        Route("/v2/health/live", api.live),
        Route("/v2/health/ready", api.ready),
        Route("/v1/models", api.list_models),
        Route("/v1/embeddings", api.embeddings, methods=["POST"]),
        Route("/v1/rerank", api.rerank, methods=["POST"]),
        Route("/openapi.json", api.description),
        Route(model + "/versions/{version}/infer", api.infer, methods=["POST"]),
        Route(model + "/versions/{version}/infer", _only_post),
        Route(model + "/versions/{version}/ready", api.model_ready),
        Route(model + "/versions/{version}", api.metadata),
        Route(model + "/infer", api.infer, methods=["POST"]),
        Route(model + "/infer", _only_post),  # else it would be the description of a model of that name
        Route(model + "/ready", api.model_ready),
        Route(model, api.metadata),
    ]
    if isinstance(models, Pool):
        routes += repository.routes(models)
    handlers = {ModelyardError: _on_error, HTTPException: _on_error, Exception: _on_error}
    app = Starlette(routes=routes, middleware=[Middleware(Uses)], exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app


class _Api:
    def __init__(self, models: Source) -> None:
        self._models = models

    async def server(self, _: Request) -> Response:
        return _json(
            {
                "name": "modelyard",
                "version": modelyard.__version__,
                "extensions": ["binary_tensor_data", *["model_repository"] * isinstance(self._models, Pool)],
            }
        )

    async def description(self, _: Request) -> Response:
        return _json(openapi(repository=isinstance(self._models, Pool)))

    async def live(self, _: Request) -> Response:
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        return _json({"ready": self._models.ready}, status=200 if self._models.ready else 503)

    async def model_ready(self, request: Request) -> Response:
        model, ready = await self._find(request, patience_s=_READY_PATIENCE_S), self._models.ready
        return _json({"name": model.version.name, "ready": ready}, status=200 if ready else 503, model=model)

    async def metadata(self, request: Request) -> Response:
        model = await self._find(request)
        document: dict[str, Any] = {
            "name": model.version.name,
            "versions": self._models.versions(model.version.name),
            "platform": model.runtime.platform,
            "inputs": model.runtime.signature.inputs,
            "outputs": model.runtime.signature.outputs,
        }
        if labels := getattr(model.runtime, "labels", ()):
            document["parameters"] = {"labels": labels}
        return _json(document, model=model)

    async def infer(self, request: Request) -> Response:
        model = await self._find(request)
        asked = parse_request(
            await request.body(),
            model.runtime.signature,
            header=request.headers.get(binary.HEADER),
            takes_bytes=getattr(model.runtime, "takes_bytes", False),
        )
        computed = await _compute(request, model, asked.inputs)
        names = asked.outputs or [tensor.name for tensor in model.runtime.signature.outputs] or list(computed)
        head = {"model_name": model.version.name, "model_version": str(model.version.version)}
        if asked.id is not None:
            head["id"] = asked.id
        body, json_length = serialize_response({n: computed[n] for n in names}, head, asked)
        if json_length is None:
            return _response(body, model=model)
        return _response(body, model=model, headers={binary.HEADER: str(json_length)}, media_type=_BINARY)

    async def embeddings(self, request: Request) -> Response:
        document = parse_object(await request.body())
        model = await self._use(request, openai.model_name(document))
        asked = openai.parse_embeddings(document, model.runtime.signature)
        computed = await _compute(request, model, {"text": asked.texts})
        return _json(openai.embeddings_document(asked, computed), model=model)

    async def rerank(self, request: Request) -> Response:
        document = parse_object(await request.body())
        model = await self._use(request, name := openai.model_name(document))
        asked = parse_rerank(document, name, model.runtime.signature)
        return _json(rerank_document(asked, await _compute(request, model, asked.inputs)), model=model)

    async def list_models(self, _: Request) -> Response:
        return _json(openai.models_document(model.version for model in self._models.all()))

    async def _find(self, request: Request, *, patience_s: float | None = None) -> LoadedModel:
        version = request.path_params.get("version")
        name: str = request.path_params["name"]
        return await self._use(request, f"{name}:{version}" if version else name, patience_s=patience_s)

    async def _use(self, request: Request, name: str, *, patience_s: float | None = None) -> LoadedModel:
        label = request.headers.get(SERVED_HEADER)
        return await use(request, self._models.use(name, label, patience_s=patience_s))


async def _compute(request: Request, model: LoadedModel, inputs: Arrays) -> Arrays:
    """The model's outputs; its work is dropped when the client goes away before it was begun."""
    work = asyncio.ensure_future(model.batcher.infer(inputs))
    watch = asyncio.create_task(_client_gone(request))
    watch.add_done_callback(lambda _: work.cancel())
    try:
        return await work
    except asyncio.CancelledError:
        if watch.done() and not watch.cancelled():
            raise HTTPException(499, "the client closed the connection") from None
        raise Unavailable("the server stopped before the answer was computed", remedy="try again") from None
    finally:
        watch.cancel()


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _only_post(_: Request) -> Response:
    raise HTTPException(405, headers={"Allow": "POST"})


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, ModelyardError):
        headers = {"retry-after": "1"} if isinstance(error, Unavailable) else {}
        return _error(request, str(error), error.status, error.code, headers)
    if isinstance(error, HTTPException):
        line = refusal(request, error, see="/v1/models, /v2 and /openapi.json")
        return _error(request, line, error.status_code, "http", error.headers or {})
    return _error(request, f"internal error: {type(error).__name__}", 500, "internal", {})


def _error(request: Request, message: str, status: int, code: str, headers: Mapping[str, str]) -> Response:
    line = one_line(message)
    document = (
        openai.error_document(line, status, code) if request.scope["path"].startswith("/v1/") else {"error": line}
    )
    return _json(document, status=status, headers=headers)


def _json(
    document: Any, *, status: int = 200, model: LoadedModel | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    return _response(orjson.dumps(document), status=status, model=model, headers=headers)


def _response(
    body: bytes,
    *,
    status: int = 200,
    model: LoadedModel | None = None,
    headers: Mapping[str, str] | None = None,
    media_type: str = "application/json",
) -> Response:
    head = dict(headers or {})
    if model is not None:
        head[MODEL_HEADER] = str(model.version.ref)
    return Response(body, status, head, media_type=media_type)
