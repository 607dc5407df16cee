"""The model server process: binds, loads, warms up, answers, and ends in good order.

The port is bound first, so that whoever waits can see the process live before it is ready. On SIGTERM or SIGINT it
turns not-ready at once, still answers what comes for a moment (asking clients to close their connections), finishes
what it has, and returns 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence

from modelyard.engines.listening import bind
from modelyard.engines.startup import without_collection
from modelyard.errors import MissingExtra, ModelyardError
from modelyard.serving.app import create_app
from modelyard.serving.memory import Memory, default_budget
from modelyard.serving.models import Models, Served, Source, load, warm_up
from modelyard.serving.pool import Pool, Shelf
from modelyard.settings import ServingSettings

try:
    import uvicorn
    import uvloop
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise MissingExtra("uvicorn with uvloop", "serve") from error

KEEP_ALIVE_S = 75
LINGER_S = 0.5
_SWEEP_S = 1.0


def run(served: Sequence[Served], *, host: str, port: int, settings: ServingSettings) -> int:
    """Loads all, serves until SIGTERM or SIGINT. The exit code: 0, or 1 after one line on stderr that says what is
    wrong."""
    return _run(lambda listener: _serve_all(served, listener, settings), host, port, settings)


def run_pool(shelf: Shelf, *, host: str, port: int, settings: ServingSettings) -> int:
    """The same, but models are loaded when they are asked for."""
    return _run(lambda listener: _serve_pool(shelf, listener, settings), host, port, settings)


def _run(
    serve: Callable[[socket.socket], Coroutine[None, None, bool]], host: str, port: int, settings: ServingSettings
) -> int:
    settle()
    try:
        with bind(host, port) as listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            finished = runner.run(serve(listener))
    except ModelyardError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if not finished:
        print(f"requests that took longer than {settings.drain_timeout_s:g} s to finish were cut", file=sys.stderr)
        sys.stderr.flush()
        # A thread that is still inside a model's library would abort the interpreter as that ends.
        os._exit(0)
    return 0


def settle() -> None:
    """What holds for this whole process. Libraries read these variables when they are imported, so it comes first."""
    for variable in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):  # a server asks no hub and prints no progress
        os.environ.setdefault(variable, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Compiled files of a model's own code would lie among verified ones.
    sys.dont_write_bytecode = True


async def _serve_all(served: Sequence[Served], listener: socket.socket, settings: ServingSettings) -> bool:
    models = Models()

    async def begin(stop: asyncio.Event) -> bool:
        with without_collection():
            models.loaded = await _load_all(served, models, stop, settings)
        return models.loaded

    return await _serve(models, begin, listener, settings)


async def _serve_pool(shelf: Shelf, listener: socket.socket, settings: ServingSettings) -> bool:
    pool = Pool(shelf, settings, Memory(settings.memory_budget or default_budget()))
    sweeper = asyncio.create_task(_sweep(pool))

    async def begin(_stop: asyncio.Event) -> bool:
        return True

    try:
        return await _serve(pool, begin, listener, settings)
    finally:
        sweeper.cancel()
        await pool.close()


async def _sweep(pool: Pool) -> None:
    while True:
        await asyncio.sleep(_SWEEP_S)
        await pool.sweep()


async def _serve(
    models: Source,
    begin: Callable[[asyncio.Event], Awaitable[bool]],
    listener: socket.socket,
    settings: ServingSettings,
) -> bool:
    """Whether all work was finished in time."""
    stop = asyncio.Event()
    server = _Server(_config(_CloseWhenStopping(create_app(models), stop), settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    answering = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        if await begin(stop):
            await stop.wait()
            models.stopping = True
            await asyncio.sleep(LINGER_S)
    finally:
        server.should_exit = True
        await answering
    return not any(model.batcher.busy for model in models.all())


async def _load_all(served: Sequence[Served], models: Models, stop: asyncio.Event, settings: ServingSettings) -> bool:
    """Whether all were loaded before the process was told to stop."""
    for each in served:
        if stop.is_set():
            break
        runtime = await asyncio.to_thread(load, each, trust_code=settings.trust_code)
        models.add(await warm_up(each.version, runtime, settings))
    return not stop.is_set()


def _config(app: ASGIApp, settings: ServingSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process with the signal instead of with an exit code."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _CloseWhenStopping:
    """Asks clients to close their connection with the answer once the process stops."""

    def __init__(self, app: ASGIApp, stop: asyncio.Event) -> None:
        self._app = app
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._stop.is_set():
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_and_close)
