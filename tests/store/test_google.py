"""What is sent to Google Cloud Storage, for which there is no server to test on: the requests that all relies on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from obstore.store import GCSStore

from modelyard.errors import StoreError
from modelyard.store import Store, open_store
from modelyard.store.probe import probe

LISTING = """<?xml version='1.0' encoding='UTF-8'?><ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'>
<Name>yard</Name><Prefix>team/a/</Prefix><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"""
CONTENTS = """<Contents><Key>{key}</Key><Size>5</Size><ETag>"1"</ETag>
<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as the server saw it; names of headers in lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Sent], tuple[int, dict[str, str], bytes]]


class Recorder:
    """Keeps what it is sent, and answers what it is told to."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.answer: Answer = lambda _: (200, {"ETag": '"1"'}, b"")
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                sent = Sent(self.command, unquote(parts.path), parse_qs(parts.query), headers, body)
                recorder.sent.append(sent)
                status, said, data = recorder.answer(sent)
                self.send_response(status)
                for name, value in (said | {"Content-Length": str(len(data))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture
def store(server: Recorder) -> Store:
    account = {"gcs_base_url": server.url, "disable_oauth": True, "client_email": "", "private_key": ""}
    backend = GCSStore(
        "yard",
        prefix="team",
        config={"service_account_key": json.dumps(account | {"private_key_id": ""})},
        client_options={"allow_http": True},
    )
    return Store(backend, "gs://yard/team")


def test_a_creation_is_made_on_condition(server: Recorder, store: Store) -> None:
    assert store.create("a/b", b"data")
    (sent,) = server.sent
    assert (sent.method, sent.path, sent.body) == ("PUT", "/yard/team/a/b", b"data")
    assert sent.headers["x-goog-if-generation-match"] == "0"


def test_a_condition_that_does_not_hold_is_no_failure(server: Recorder, store: Store) -> None:
    server.answer = lambda _: (412, {}, b"<Error><Code>PreconditionFailed</Code></Error>")
    assert not store.create("a/b", b"data")


def test_a_put_has_no_condition(server: Recorder, store: Store) -> None:
    store.put("a/b", b"data")
    assert [(sent.method, "x-goog-if-generation-match" in sent.headers) for sent in server.sent] == [("PUT", False)]


def test_a_listing_is_taken_in_the_order_it_comes(server: Recorder, store: Store) -> None:
    contents = "".join(CONTENTS.format(key=f"team/a/{name}") for name in ("1", "2", "3"))
    server.answer = lambda _: (200, {}, LISTING.format(contents=contents).encode())
    assert [found.key for found in store.objects("a")] == ["a/1", "a/2", "a/3"]
    (sent,) = server.sent
    assert (sent.method, sent.path, sent.query["prefix"], sent.query["list-type"]) == (
        *("GET", "/yard"),
        *(["team/a/"], ["2"]),
    )
    assert store.ordered


def test_a_copy_stays_in_the_store(server: Recorder, store: Store) -> None:
    store.copy("a/ü", "b/c")
    (sent,) = server.sent
    assert (sent.method, sent.path, sent.body) == ("PUT", "/yard/team/b/c", b"")
    assert unquote(sent.headers["x-goog-copy-source"]) == "yard/team/a/ü"


def test_a_range_is_asked_for(server: Recorder, store: Store) -> None:
    head = {"Content-Range": "bytes 2-4/10", "ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    server.answer = lambda _: (206, head, b"234")
    assert store.get_range("a/b", 2, 3) == b"234"
    assert server.sent[0].headers["range"] == "bytes=2-4"


def test_a_busy_server_is_asked_again(server: Recorder, store: Store) -> None:
    codes = [200, 503, 429]
    server.answer = lambda _: (codes.pop(), {"ETag": '"1"'}, b"")
    store.put("a", b"data")
    assert [sent.body for sent in server.sent] == [b"data"] * 3


def test_a_server_without_conditions_is_no_store(server: Recorder, store: Store) -> None:
    with pytest.raises(StoreError, match="gs://yard/team has no create-if-absent"):
        probe(store)


def test_a_bucket_opens_by_url() -> None:
    opened = open_store("gs://yard/team/a")
    assert (opened.url, opened.ordered) == ("gs://yard/team/a", True)
