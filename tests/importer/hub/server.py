"""A model hub on 127.0.0.1: the part of the Hugging Face Hub's HTTP API that clients read models with, and its faults.

`test_import.py` checks it against huggingface_hub's own client.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_a-token-of-the-tests"

# Looks at a request; True if it has answered it.
Fault = Callable[["Answer"], bool]


@dataclass
class Repository:
    """Files by path. Those in `lfs` are listed with their sha256, the others with git's sha1."""

    files: dict[str, bytes]
    lfs: frozenset[str] = frozenset()
    private: bool = False
    gated: bool = False
    revisions: tuple[str, ...] = ("main", "refs/pr/1", COMMIT)

    def entries(self) -> list[dict[str, Any]]:
        return [self._entry(path, data) for path, data in self.files.items()]

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
        if path in self.lfs:
            oid = hashlib.sha256(data).hexdigest()
            entry |= {"oid": "f" * 40, "xetHash": "0" * 64, "lfs": {"oid": oid, "size": len(data), "pointerSize": 134}}
        return entry


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data)).hexdigest()


@dataclass(frozen=True)
class Request:
    """What was asked."""

    path: str
    headers: dict[str, str]


@dataclass
class HubServer:
    """What it holds, what it was asked, and how it misbehaves: `faults` are tried in turn, before anything else."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    cdn: str | None = None
    page: int = 1000
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if path in request.path]


class Answer(BaseHTTPRequestHandler):
    """One request and its answer."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        self.hub.requests.append(Request(self.path, {key.title(): value for key, value in self.headers.items()}))
        if any(fault(self) for fault in list(self.hub.faults)):
            return
        path = unquote(urlsplit(self.path).path)
        for old, new in self.hub.renamed.items():
            if f"/{old}/" in path:
                self.send(307, headers={"Location": self.path.replace(f"/{old}/", f"/{new}/")})
                return
        for name, repository in self.hub.repositories.items():
            for head, answer in ((f"/api/models/{name}/", self._api), (f"/{name}/resolve/", self._file)):
                if path.startswith(head):
                    answer(name, repository, path.removeprefix(head))
                    return
        self.error(401, "RepoNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _allowed(self, repository: Repository) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        if repository.private:
            self.error(401, "RepoNotFound")
        elif repository.gated:
            self.error(401, "GatedRepo")
        return not repository.private and not repository.gated

    def _api(self, name: str, repository: Repository, rest: str) -> None:
        what, _, revision = rest.partition("/")
        if repository.private and not self._allowed(repository):
            return
        if revision not in repository.revisions:
            self.error(404, "RevisionNotFound")
        elif what == "revision":
            self.json({"id": name, "modelId": name, "sha": COMMIT, "siblings": []})
        else:
            self._tree(repository)

    def _tree(self, repository: Repository) -> None:
        query = parse_qs(urlsplit(self.path).query)
        start = int(query.get("cursor", ["0"])[0])
        entries = [{"type": "directory", "path": "folder", "size": 0, "oid": "e" * 40}, *repository.entries()]
        following = start + self.hub.page
        here = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={following}"
        more = {"Link": f'<{here}>; rel="next"'} if following < len(entries) else {}
        self.json(entries[start:following], headers=more)

    def _file(self, name: str, repository: Repository, rest: str) -> None:
        revision, _, path = rest.partition("/")
        if not self._allowed(repository):
            return
        if revision not in repository.revisions:
            self.error(404, "RevisionNotFound")
        elif path not in repository.files:
            self.error(404, "EntryNotFound")
        elif path in repository.lfs and self.hub.cdn:
            self.send(
                302,
                headers={
                    "Location": f"{self.hub.cdn}{self.path}?X-Amz-Signature=secret",
                    **self._facts(repository, path),
                },
            )
        else:
            self.content(repository.files[path], headers=self._facts(repository, path))

    def _facts(self, repository: Repository, path: str) -> dict[str, str]:
        data = repository.files[path]
        etag = hashlib.sha256(data).hexdigest() if path in repository.lfs else git_sha1(data)
        return {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{etag}"',
            "X-Linked-Size": str(len(data)),
            "X-Linked-Etag": f'"{etag}"',
        }

    def content(
        self, data: bytes, *, headers: dict[str, str] | None = None, most: int | None = None, reset: bool = False
    ) -> bool:
        """A file, or the range of it that is asked for; after `most` bytes the connection ends, or is reset."""
        start, end, status = 0, len(data), 200
        extra = dict(headers or {})
        if asked := self.headers.get("Range"):
            first, last = asked.removeprefix("bytes=").split("-")
            start, end, status = int(first), int(last) + 1, 206
            extra["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        return self.send(status, data[start:end], headers=extra, most=most, reset=reset)

    def json(self, document: Any, *, headers: dict[str, str] | None = None) -> bool:
        return self.send(200, json.dumps(document).encode(), headers=headers)

    def error(self, status: int, code: str = "", **headers: str) -> bool:
        return self.send(status, b'{"error": "no"}', headers={"X-Error-Code": code, **headers})

    def send(
        self,
        status: int,
        body: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        most: int | None = None,
        reset: bool = False,
    ) -> bool:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if most is None else body[:most])
        if most is not None:
            self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return True


def of_files(do: Fault, *, times: int = 1 << 30, path: str = "/resolve/") -> Fault:
    """A fault of the first so many requests for files."""
    left = [times]

    def fault(answer: Answer) -> bool:
        if path not in answer.path or not left[0]:
            return False
        left[0] -= 1
        return do(answer)

    return fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go when they have what they want."""


@contextmanager
def hub_server() -> Iterator[HubServer]:
    hub = HubServer()
    server = _Server(("127.0.0.1", 0), type("Bound", (Answer,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
