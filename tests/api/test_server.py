"""The server around the application: its thread, its port, its end; and work that hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from modelyard.api.server import ApiServer
from modelyard.api.threads import Threads
from modelyard.errors import StoreError, Unavailable
from modelyard.settings import ApiSettings
from modelyard.store import LocalDisk
from ports import free_port

from .conftest import client_environ, write_files


def hello() -> Starlette:
    return Starlette(routes=[Route("/", lambda _: PlainTextResponse("hello"))])


def test_it_answers_between_start_and_stop() -> None:
    settings = ApiSettings(port=free_port())
    server = ApiServer(hello(), settings)
    before = signal.getsignal(signal.SIGTERM)

    server.start()
    assert httpx.get(settings.url).text == "hello"
    server.stop()

    assert signal.getsignal(signal.SIGTERM) is before
    with pytest.raises(httpx.ConnectError):
        httpx.get(settings.url)


def test_one_that_was_not_started_can_be_stopped() -> None:
    ApiServer(hello(), ApiSettings(port=free_port())).stop()


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable) as error:
            ApiServer(hello(), ApiSettings(port=port)).start()

    assert str(error.value) == (
        f"the API can't listen on 127.0.0.1:{port}: address already in use; "
        "stop what uses the port, or set api.port (MODELYARD_API__PORT)"
    )


def test_who_takes_too_long_is_cut_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"begun"
        await asyncio.Event().wait()

    settings = ApiSettings(port=free_port())
    app = Starlette(routes=[Route("/", lambda _: StreamingResponse(endless()))])
    server = ApiServer(app, settings, drain_s=0)
    server.start()
    with httpx.stream("GET", settings.url, timeout=30) as answer:
        chunks = answer.iter_raw()
        assert next(chunks) == b"begun"
        server.stop()
        with pytest.raises(httpx.RemoteProtocolError):
            next(chunks)

    assert "/ was cut: the server stops" in caplog.messages
    assert "Traceback" not in caplog.text


def test_what_hangs_is_given_up_and_holds_up_nobody() -> None:
    goes_on = threading.Event()

    async def both() -> str:
        threads = Threads(2, patience_s=0.05)
        with pytest.raises(Unavailable, match=r"did not answer within 0.05 s; look at the store, then try again"):
            await threads.run(goes_on.wait)
        return await threads.run("-".join, ["a", "b"])

    try:
        assert asyncio.run(both()) == "a-b"
    finally:
        goes_on.set()


def test_no_more_threads_than_were_said() -> None:
    threads, running, most = Threads(3), 0, 0
    lock, all_there = threading.Lock(), threading.Barrier(3)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        all_there.wait(30)
        with lock:
            running -= 1

    async def many() -> None:
        await asyncio.gather(*(threads.run(work) for _ in range(9)))

    asyncio.run(many())
    assert most == 3


def test_an_error_comes_out_as_it_was() -> None:
    def fail() -> None:
        raise StoreError("the disk is gone")

    with pytest.raises(StoreError, match="the disk is gone"):
        asyncio.run(Threads().run(fail))


def test_the_command_alone(tmp_path: Path) -> None:
    LocalDisk(tmp_path / "store")
    model, port = write_files(tmp_path / "m", {"a.txt": b"text"}), free_port()
    own = {"STORE": "store", "CACHE": "cache", "STATE": "state", "USER": "tester", "API__PORT": str(port)}
    environ = client_environ("", tmp_path) | {f"MODELYARD_{name}": value for name, value in own.items()}
    command = [sys.executable, "-m", "modelyard"]
    subprocess.run([*command, "register", str(model), "m:v1.0.0"], check=True, env=environ, cwd=tmp_path)

    with subprocess.Popen(
        [*command, "api"], env=environ, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as api:
        assert api.stdout
        said = [api.stdout.readline() for _ in range(2)]
        transport = httpx.HTTPTransport(retries=8)  # it listens a moment after it has said where
        with httpx.Client(transport=transport) as client:
            got = client.get(f"http://127.0.0.1:{port}/hf/m/resolve/main/a.txt")
        os.kill(api.pid, signal.SIGTERM)
        rest, err = api.communicate(timeout=30)

    assert said == [f"store {(tmp_path / 'store').as_uri()}\n", f"api http://127.0.0.1:{port}\n"]
    assert (got.status_code, got.text) == (200, "text")
    assert (api.returncode, rest, err) == (0, "", "")
