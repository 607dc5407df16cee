"""Requests of every kind: whatever is asked, the answer is no failure of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import Message

from modelyard.api.app import create_app
from modelyard.settings import load_settings
from modelyard.store import Memory
from modelyard.yard import Yard

from .conftest import write_files

WORDS = ["hf", "api", "models", "m", "team", "n", "revision", "tree", "refs", "resolve", "paths-info", "main", "v1.0.0"]
HOSTILE = [
    "",
    ".",
    "..",
    "...",
    "%2e%2e",
    "a\x00b",
    "\n",
    "m\n",
    "é",
    "✓",
    "~",
    "C:",
    "\\",
    "a b",
    "0" * 40,
    "x" * 5000,
]
FILES = ["config.json", "a", "b.txt", "a/b.txt"]
SEGMENTS = st.sampled_from([*WORDS, *WORDS, *HOSTILE, *FILES]) | st.text(st.characters(exclude_categories=["Cs"]))
PATHS = st.lists(SEGMENTS, max_size=9).map(lambda parts: "/" + "/".join(parts))
LIKELY = st.tuples(
    st.sampled_from(["/hf/api/models/{}/tree/{}/{}", "/hf/{}/resolve/{}/{}", "/hf/api/models/{}/paths-info/{}"]),
    *(st.sampled_from(each) | SEGMENTS for each in (["m", "team/n"], ["main", "v1.0.0", "production"], FILES)),
).map(lambda parts: parts[0].format(*parts[1:]))
VALUES = st.binary(max_size=40) | st.sampled_from(
    [b"bytes=0-", b"bytes=-1", b"bytes=1-0", b'"x"', b"*", b"a:b:c", b"[::"]
)
NAMES = ["host", "range", "if-range", "if-none-match", "content-type", "content-length", "accept", "authorization"]
HEADERS = st.dictionaries(st.sampled_from([name.encode() for name in NAMES]), VALUES)
QUERY = st.binary(max_size=60) | st.builds(
    lambda name, value: f"{name}={value}".encode("utf-8", "replace"),
    st.sampled_from(["limit", "cursor", "search", "recursive", "expand", "blobs", "author", "filter"]),
    st.text(max_size=10) | st.sampled_from(["true", "1", "-1", "a/", "%ff", "9" * 30]),
)
BODIES = st.binary(max_size=60) | st.sampled_from(
    [b"paths=a&paths=config.json", b'{"paths": ["a"]}', b'{"paths": null}']
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("random")
    yard = Yard(load_settings(folder, cache=folder / "cache", state=folder / "state", user="tester"), Memory())
    model = write_files(folder / "m", {"config.json": b"{}", "a/b.txt": b"text"})
    for name in ("m", "team/n"):
        yard.repository.register_model(name, "v1.0.0", Path(model))
    yield create_app(yard)


async def ask(app: Any, scope: dict[str, Any], body: bytes) -> list[Message]:
    sent: list[Message] = []
    coming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not coming:
            await asyncio.Event().wait()  # the client stays
        return coming.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "PUT", "OPTIONS", "BREW"]),
    path=PATHS | LIKELY,
    query=QUERY,
    headers=HEADERS,
    body=BODIES,
)
@example(method="GET", path="/hf/", query=b"\x80", headers={}, body=b"")
@example(method="GET", path="/hf/api/models/", query=b"\x80", headers={}, body=b"")
@example(method="GET", path="/hf/api/models", query=b"limit=1&\x80", headers={b"host": b"a:b:c\xff"}, body=b"")
def test_no_request_makes_the_server_fail(
    app: Any, method: str, path: str, query: bytes, headers: dict[bytes, bytes], body: bytes
) -> None:
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": list(headers.items()),
        "server": ("127.0.0.1", 7071),
        "client": ("127.0.0.1", 40000),
    }
    start, *rest = asyncio.run(ask(app, scope, body))

    assert 200 <= start["status"] < 500
    assert rest and not rest[-1].get("more_body", False)
    for name, value in start["headers"]:
        assert b"\n" not in name + value and b"\r" not in name + value
