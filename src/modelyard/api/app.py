"""The application of port 7071, composed of its parts: each has a path below which it answers for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.api.access import Guard
from modelyard.api.huggingface.hub import create_hub
from modelyard.api.huggingface.missing import ON_ERROR
from modelyard.api.metrics import Metrics
from modelyard.api.openapi import openapi
from modelyard.api.threads import Threads
from modelyard.errors import MissingExtra, NotFound, Unavailable

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Mount, Route
except ImportError as error:
    raise MissingExtra("starlette", "api") from error

if TYPE_CHECKING:
    from modelyard.gateway import Gateway
    from modelyard.yard import Yard


def create_app(yard: Yard) -> Starlette:
    """The application over what is in the yard's store."""
    threads = Threads()
    hub = create_hub(yard.repository, threads, presigned=yard.settings.api.presigned)
    metrics = Metrics(yard.gateway.statistics, yard.engine_of)
    routes = [
        Mount("/hf", hub),
        Route("/metrics", threads.endpoint(metrics.answer)),
        Route("/statistics", threads.endpoint(lambda _: _counts(yard.gateway))),
        Route("/openapi.json", _describe),
    ]
    app = Starlette(routes=routes, exception_handlers=ON_ERROR)
    app.router.redirect_slashes = False
    app.add_middleware(Guard, rules=yard.access.rules(yard.settings.api.host), issuer=yard.access.issuer)
    return app


def _counts(gateway: Gateway) -> Response:
    """For whoever adds up what several gateways have counted. It blocks."""
    try:
        counts, clusters = gateway.counts()
    except Unavailable as error:
        raise NotFound("no gateway runs beside this API", remedy="ask where one does") from error
    return JSONResponse({"counts": counts, "clusters": clusters})


async def _describe(_: Request) -> Response:
    return JSONResponse(openapi())
