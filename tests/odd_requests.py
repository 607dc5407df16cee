"""Requests that no client sends on purpose: methods, slashes and spellings, as they go over the wire."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
NAMES = (
    "%00",
    "%ff",
    "%0a",
    "%2e%2e",
    "%E2%9C%93",
    "%2F",
    "%25",
    "a%20b",
    "a%3Ab",
    "a:b:c",
    ":",
    "@",
    "a@sha256:0",
    "a%2Fb%2Fc",
    "a/b/c/d",
    "..",
    "x" * 5000,
)


@dataclass(frozen=True)
class Said:
    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """Asks one server, with paths as they are written."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc

    def ask(self, method: str, path: str) -> Said:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return Said(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()


def odd_paths(paths: list[str]) -> Iterator[str]:
    """Spellings of good paths that lead nowhere."""
    for path in paths:
        yield f"{path}/"
        yield f"/{path}"
        yield f"{path}//"
        yield f"{path}/{'x' * 5000}"
        yield f"{path}%00"
        yield f"{path}%ff"
