"""The server of port 7071: a thread of its own in whatever process it runs in, without a say about signals."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from threading import Event, Thread
from types import FrameType

from modelyard.engines.listening import bind
from modelyard.errors import InvalidInput, MissingExtra, Unavailable
from modelyard.settings import ApiSettings

try:
    import uvicorn
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as error:
    raise MissingExtra("uvicorn", "api") from error


log = logging.getLogger("modelyard.api")


class ApiServer:
    """Answers between `start()` and `stop()`, once; what is under way then has `drain_s` to finish."""

    def __init__(self, app: ASGIApp, settings: ApiSettings, *, drain_s: int = 5) -> None:
        self._settings = settings
        self._server = uvicorn.Server(
            uvicorn.Config(
                _quiet(app),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=drain_s,
            )
        )
        self._thread: Thread | None = None

    def start(self) -> None:
        """Returns when connections are taken. Raises Unavailable when the address can't be used."""
        listener = self._bind()
        # uvicorn leaves signals alone in every thread but the main one.
        self._thread = Thread(target=self._run, args=(listener,), name="api", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no new connections, finish what is under way or cut it."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        with listener:
            self._server.run(sockets=[listener])

    def _bind(self) -> socket.socket:
        try:
            return bind(self._settings.host, self._settings.port)
        except InvalidInput as error:
            raise Unavailable(
                f"the API {error.message}", remedy="stop what uses the port, or set api.port (MODELYARD_API__PORT)"
            ) from error


def _quiet(app: ASGIApp) -> ASGIApp:
    """What is cut because the server stops is no defect that needs a traceback."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            log.warning("%s was cut: the server stops", scope["path"])

    return run


def serve(server: ApiServer, ready: Callable[[], None] = lambda: None) -> None:
    """Until SIGTERM or SIGINT; `ready` is called when it listens. Raises Unavailable when the address can't be used."""
    stop = Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    server.start()
    ready()
    stop.wait()
    server.stop()
