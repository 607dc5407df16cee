"""Work that blocks, as every operation of the store does, away from the event loop; what hangs holds up nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from modelyard.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """At most `count` blocking calls at a time; whoever waits longer than `patience_s` for one gets Unavailable."""

    def __init__(self, count: int = 32, *, patience_s: float = 30) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="api")
        self._patience_s = patience_s

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises."""
        work = asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))
        try:
            return await asyncio.wait_for(work, self._patience_s)
        except TimeoutError:
            raise Unavailable(
                f"the store did not answer within {self._patience_s:g} s", remedy="look at the store, then try again"
            ) from None

    def endpoint(self, answer: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint out of a function that blocks."""

        async def respond(request: Request) -> Response:
            return await self.run(answer, request)

        return respond
