"""How a file is sent: headers, ranges, conditions, redirects, and what happens when one side goes away."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from obstore.store import MemoryStore
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from modelyard.api.files import FileSender, parse_range
from modelyard.api.server import ApiServer
from modelyard.api.threads import Threads
from modelyard.errors import StoreError
from modelyard.repository import ModelVersion
from modelyard.repository.manifest import Artifact
from modelyard.settings import ApiSettings
from modelyard.store import S3, LocalDisk, Store
from modelyard.store.objects import CHUNK
from ports import free_port

from .conftest import Serve, Served, write_files

BODY = bytes(range(256)) * 4
PATH = "/m/resolve/main/weights.bin"


@pytest.fixture
def version(served: Served, tmp_path: Path) -> ModelVersion:
    return served.register("m:v1.0.0", write_files(tmp_path / "m", {"weights.bin": BODY, "empty": b""}))


def file_headers(version: ModelVersion, path: str = "weights.bin") -> dict[str, str]:
    file = next(file for file in version.files if file.path == path)
    return {
        "etag": f'"{file.sha256}"',
        "x-linked-etag": f'"{file.sha256}"',
        "x-linked-size": str(file.size),
        "x-repo-commit": version.digest.hex[:40],
        "accept-ranges": "bytes",
        "content-length": str(file.size),
        "content-type": "application/octet-stream",
        "x-content-type-options": "nosniff",
    }


def test_a_whole_file_and_its_headers(served: Served, version: ModelVersion) -> None:
    got, told = served.http.get(PATH), served.http.head(PATH)

    assert (got.status_code, got.content) == (200, BODY)
    assert (told.status_code, told.content) == (200, b"")
    for answer in (got, told):
        assert file_headers(version).items() <= dict(answer.headers).items()


def test_an_empty_file(served: Served, version: ModelVersion) -> None:
    got, part = (served.http.get("/m/resolve/main/empty", headers=head) for head in ({}, {"range": "bytes=0-"}))

    assert (got.status_code, got.content) == (200, b"")
    assert file_headers(version, "empty").items() <= dict(got.headers).items()
    assert part.status_code == 416


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=10-19", (10, 19)),
        ("bytes=1000-", (1000, 1023)),
        ("bytes=1000-99999", (1000, 1023)),
        ("bytes=-24", (1000, 1023)),
        ("bytes=-99999", (0, 1023)),
    ],
)
def test_a_range(served: Served, version: ModelVersion, asked: str, span: tuple[int, int]) -> None:
    got = served.http.get(PATH, headers={"range": asked})

    first, last = span
    assert (got.status_code, got.content) == (206, BODY[first : last + 1])
    assert got.headers["content-range"] == f"bytes {first}-{last}/1024"
    assert got.headers["content-length"] == str(last + 1 - first)
    assert got.headers["etag"] == file_headers(version)["etag"]


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=1024-2000", "bytes=-0", f"bytes={10**17}-"])
def test_a_range_outside_the_file(served: Served, version: ModelVersion, asked: str) -> None:
    got = served.http.get(PATH, headers={"range": asked})

    assert (got.status_code, got.headers["content-range"]) == (416, "bytes */1024")
    assert got.json() == {"error": "GET /hf/m/resolve/main/weights.bin: the range lies outside the file"}


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-", "bytes=a-b", "items=0-1", "bytes=0-1,4-5", "", "bytes=0-٣"])
def test_a_range_that_is_not_understood_is_ignored(served: Served, version: ModelVersion, asked: str) -> None:
    got = served.http.get(PATH, headers={b"range": asked.encode()})

    assert (got.status_code, got.content) == (200, BODY)


def test_a_range_of_head_is_ignored(served: Served, version: ModelVersion) -> None:
    told = served.http.head(PATH, headers={"range": "bytes=0-1"})

    assert (told.status_code, told.headers["content-length"]) == (200, "1024")


def test_what_a_client_has_already_is_not_sent_again(served: Served, version: ModelVersion) -> None:
    tag = file_headers(version)["etag"]

    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        for method in ("GET", "HEAD"):
            got = served.http.request(method, PATH, headers={"if-none-match": given, "range": "bytes=0-1"})
            assert (got.status_code, got.content, got.headers["etag"]) == (304, b"", tag)
            assert got.headers["x-repo-commit"] == version.digest.hex[:40]
    assert served.http.get(PATH, headers={"if-none-match": '"other"'}).status_code == 200


def test_a_range_only_of_the_same_content(served: Served, version: ModelVersion) -> None:
    tag = file_headers(version)["etag"]

    def ask(condition: str) -> int:
        return served.http.get(PATH, headers={"range": "bytes=0-1", "if-range": condition}).status_code

    assert [ask(given) for given in (tag, f"W/{tag}", '"other"', "Wed, 21 Oct 2015 07:28:00 GMT")] == [
        206,
        200,
        200,
        200,
    ]


def test_a_range_is_parsed_without_a_server() -> None:
    assert parse_range("bytes=0-4", 10) == range(5)
    assert parse_range("bytes=2-", 10) == range(2, 10)
    with pytest.raises(HTTPException):
        parse_range("bytes=0-", 0)


def test_where_the_store_signs_clients_are_sent_there(s3_store: Store, serve: Serve, tmp_path: Path) -> None:
    served = serve(s3_store)
    version = served.register("m:v1.0.0", write_files(tmp_path / "m", {"ä #%41+.bin": BODY}))
    path = "/m/resolve/v1.0.0/%C3%A4%20%23%2541%2B.bin"

    told, sent = served.http.head(path), served.http.get(path, headers={"range": "bytes=1-2"})
    there = httpx.get(sent.headers["location"], headers={"range": "bytes=1-2"})
    same = served.http.get(path, headers={"if-none-match": told.headers["etag"]})
    beyond = served.http.get(path, headers={"range": "bytes=2000-"})

    assert (told.status_code, told.headers["content-length"]) == (200, "1024")
    assert (sent.status_code, sent.headers["cache-control"]) == (302, "no-store")
    for header in ("x-linked-etag", "x-linked-size", "x-repo-commit"):
        assert sent.headers[header] == told.headers[header] == file_headers(version, "ä #%41+.bin")[header]
    assert (there.status_code, there.content) == (206, BODY[1:3])
    assert (same.status_code, beyond.status_code) == (304, 416)


def test_where_clients_can_not_reach_the_store_files_come_through(
    s3_store: Store, serve: Serve, tmp_path: Path
) -> None:
    served = serve(s3_store, presigned=False)
    served.register("m:v1.0.0", write_files(tmp_path / "m", {"weights.bin": BODY}))

    assert served.http.get(PATH).content == BODY
    assert served.http.get(PATH, headers={"range": "bytes=-3"}).content == BODY[-3:]


def test_a_page_that_was_registered_is_no_page_of_ours(served: Served, tmp_path: Path) -> None:
    served.register("m:v1.0.0", write_files(tmp_path / "m", {"index.html": b"<script>alert(1)</script>"}))

    got = served.http.get("/m/resolve/main/index.html")

    assert (got.headers["content-type"], got.headers["x-content-type-options"]) == (
        "application/octet-stream",
        "nosniff",
    )


def test_damaged_bytes_are_not_sent(serve: Serve, tmp_path: Path) -> None:
    served = serve(LocalDisk(tmp_path / "store"))
    version = served.register("m:v1.0.0", write_files(tmp_path / "m", {"weights.bin": BODY}))
    (stored,) = (tmp_path / "store").glob("models/**/weights.bin")

    stored.write_bytes(BODY[:-1] + b"x")
    changed = served.http.get(PATH)
    stored.write_bytes(BODY + b"x")
    longer = served.http.get(PATH)
    stored.unlink()
    gone = served.http.get(PATH)
    part = served.http.get(PATH, headers={"range": "bytes=0-1"})

    for answer in (changed, longer, gone, part):
        assert answer.status_code == 422
        assert f"weights.bin is not as registered: see {version.files[0].key}" in answer.json()["error"]


def test_damage_at_the_end_of_a_large_file_cuts_the_answer(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(LocalDisk(tmp_path / "store"))
    served.register("m:v1.0.0", write_files(tmp_path / "m", {"weights.bin": bytes(3 * CHUNK)}))
    (stored,) = (tmp_path / "store").glob("models/**/weights.bin")
    with stored.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")

    with pytest.raises(httpx.RemoteProtocolError):
        served.http.get(PATH)
    assert any("/hf/m/resolve/main/weights.bin was cut: " in line for line in caplog.messages)
    assert "Traceback" not in caplog.text


class Endless(Store):
    """Holds one object without end, counts what it gave of it, and knows when its reader left."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), "endless://")
        self.given = 0
        self.left = False

    def stream(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        try:
            while True:
                self.given += 1
                yield bytes(CHUNK)
        finally:
            self.left = True


def test_a_client_that_goes_away_stops_the_stream() -> None:
    store, file, threads = Endless(), Artifact("a", "a", 1 << 40, "0" * 64), Threads()
    sender = FileSender(store, threads, presigned=True)
    app = Starlette(routes=[Route("/", threads.endpoint(lambda request: sender.answer(request, file, {})))])
    settings = ApiSettings(port=free_port())
    server = ApiServer(app, settings)
    server.start()
    try:
        with socket.create_connection((settings.host, settings.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
            assert not store.left
        wait_for(lambda: store.left)
    finally:
        server.stop()

    assert store.given < 10


def test_a_store_that_fails(served: Served, version: ModelVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise StoreError("memory:// failed at x: it burns", remedy="look\nthere")

    for operation, path in (("stream", PATH), ("get", PATH), ("objects", "/api/models/m")):
        with monkeypatch.context() as broken:
            broken.setattr(Store, operation, fail)
            got = served.http.get(path)
        assert (got.status_code, got.json()) == (503, {"error": "memory:// failed at x: it burns; look there"})
        assert got.headers["retry-after"] == "1"
    assert served.http.get(PATH).status_code == 200


def test_a_bucket_that_can_not_be_reached(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    served = serve(S3("yard", endpoint_url=f"http://127.0.0.1:{free_port()}"))

    got = served.http.get("/m/resolve/v1.0.0/weights.bin")

    assert got.status_code == 503
    assert got.json()["error"].startswith("s3://yard failed at ")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
