"""The server of port 7071: a thread of its own in whatever process it runs in, without a say about signals."""

from __future__ import annotations

import signal
import socket
from threading import Event, Thread
from types import FrameType

from modelyard.engines.listening import bind
from modelyard.errors import InvalidInput, MissingExtra, Unavailable
from modelyard.settings import ApiSettings

try:
    import uvicorn
    from starlette.types import ASGIApp
except ImportError as error:
    raise MissingExtra("uvicorn", "api") from error

_DRAIN_S = 5


class ApiServer:
    """Answers between `start()` and `stop()`; once."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._settings = settings
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_DRAIN_S,
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
        """Take no new connections; cut what takes longer than a few seconds to finish."""
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


def serve(server: ApiServer) -> None:
    """Until SIGTERM or SIGINT. Raises Unavailable when the address can't be used."""
    stop = Event()

    def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    server.start()
    stop.wait()
    server.stop()
