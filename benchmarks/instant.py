"""The server behind every gateway that is measured: it gives each request the same answer at once.

A chat completion of the size that real ones have, with its usage; as server-sent events if the request asks for a
stream. Knows nothing of who asks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any, cast

import uvloop

from measure import accepts, free_port, message_end, pin, wait_for

MODEL = "digits"
EVENTS = 16
_USAGE = {"prompt_tokens": 48, "completion_tokens": EVENTS, "total_tokens": 48 + EVENTS}
_TEXT = "It is a seven, written by hand. " * 8


def _answer() -> bytes:
    message = {"role": "assistant", "content": _TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    body = json.dumps(_object("chat.completion", choices=[choice], usage=_USAGE)).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _stream() -> bytes:
    """All events at once, each a chunk of its own."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in _events()) + b"0\r\n\r\n"


def _events() -> Iterator[bytes]:
    for number in range(EVENTS):
        last = number == EVENTS - 1
        choice = {"index": 0, "delta": {"content": "seven "}, "finish_reason": "stop" if last else None}
        more = {"usage": _USAGE} if last else {}
        yield b"data: %s\n\n" % json.dumps(_object("chat.completion.chunk", choices=[choice], **more)).encode()
    yield b"data: [DONE]\n\n"


def _object(kind: str, **more: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1700000000, "model": MODEL, **more}


_ANSWER, _STREAM = _answer(), _stream()


@contextmanager
def instant_server(cores: set[int] | None = None) -> Iterator[int]:
    """Its port; it runs in a process of its own, on these cores."""
    port = free_port()
    process = get_context("spawn").Process(target=serve, args=(port, cores), daemon=True)
    process.start()
    try:
        wait_for(partial(accepts, port), "the instant server")
        yield port
    finally:
        process.terminate()
        process.join()


def serve(port: int, cores: set[int] | None) -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(_Instant, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    pin(cores)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(forever())


class _Instant(asyncio.Protocol):
    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if end := message_end(self._data):
            streams = b'"stream":true' in self._data[:end].replace(b" ", b"")
            self._data = self._data[end:]
            self._transport.write(_STREAM if streams else _ANSWER)
