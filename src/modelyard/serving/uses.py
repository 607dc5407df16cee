"""Which models a request uses: they stay loaded until its answer is sent."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING

from starlette.requests import Request

from modelyard.serving.models import LoadedModel

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_KEY = "modelyard.uses"


class Uses:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as uses:
            scope[_KEY] = uses
            await self._app(scope, receive, send)


async def use(request: Request, model: AbstractAsyncContextManager[LoadedModel]) -> LoadedModel:
    """Enter what a pool gives, until the request has ended."""
    uses: AsyncExitStack = request.scope[_KEY]
    return await uses.enter_async_context(model)
