"""Requests that no client sends on purpose: methods, slashes and spellings, as they go over the wire."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
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


def methods_of(document: dict[str, Any]) -> dict[str, set[str]]:
    """Which methods each path of an OpenAPI document takes."""
    return {path: {key.upper() for key in item if key != "parameters"} for path, item in document["paths"].items()}


def other_methods(wire: Wire, path: str, taken: set[str]) -> Iterator[tuple[str, Said]]:
    """What is said to each method that a path does not take: 405, with those that it does."""
    taken = taken | {"HEAD"} if "GET" in taken else taken
    for method in (each for each in METHODS if each not in taken):
        said = wire.ask(method, path)
        assert said.status == 405, (method, path, said)
        assert {each.strip() for each in said.headers["allow"].split(",")} == taken
        yield method, said


def check_refusal(path: str, method: str, said: Said) -> None:
    """One line that says why, in the shape of the protocol that was spoken."""
    assert 400 <= said.status < 500, (method, path, said)
    assert said.headers["content-type"] == "application/json"
    if method == "HEAD":
        return
    error = json.loads(said.body)["error"]
    message = error["message"] if path.startswith("/v1/") else error
    assert isinstance(message, str) and message and "\n" not in message and len(message) <= 1001, (method, path, said)
