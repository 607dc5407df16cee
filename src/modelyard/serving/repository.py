"""Open Inference Protocol's model repository extension over a pool: its index, load and unload.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from modelyard.serving.pool import Loaded, Pool


def routes(pool: Pool) -> list[Route]:
    api, model = _Api(pool), "/v2/repository/models/{name:path}"
    return [
        Route("/v2/repository/index", api.index, methods=["POST"]),
        Route(model + "/load", api.load, methods=["POST"]),
        Route(model + "/unload", api.unload, methods=["POST"]),
    ]


class _Api:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def index(self, _: Request) -> Response:
        return Response(
            orjson.dumps([_entry(each) for each in await self._pool.index()]), media_type="application/json"
        )

    async def load(self, request: Request) -> Response:
        async with self._pool.use(request.path_params["name"]):
            return Response()

    async def unload(self, request: Request) -> Response:
        await self._pool.unload(request.path_params["name"])
        return Response()


def _entry(each: Loaded) -> dict[str, Any]:
    state = "READY" if each.loaded else "UNAVAILABLE"
    return {"name": each.ref.name, "version": str(each.ref.version), "state": state, "reason": each.reason}
