"""Asking a pool's process about its models."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

from modelyard.gateway.routes import SERVED_HEADER
from modelyard.refs import ModelRef

_TIMEOUT_S = 5.0
_FAILURES = (urllib.error.URLError, OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a version is loaded; an `error` says why it can't be, none that it may come."""

    ready: bool
    error: str = ""


def ask(port: int, ref: ModelRef) -> Answer:
    """Have the pool load a version, and hear how it stands. Waits for some seconds at most."""
    path = f"/v2/models/{urllib.parse.quote(ref.name)}/versions/{ref.version}/ready"
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={SERVED_HEADER: str(ref)})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310 - our own address
            return Answer(True)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(False, "" if error.code in (404, 429, 503) else _reason(error))
    except _FAILURES:
        return Answer(False)


def loaded(port: int) -> frozenset[tuple[str, str]]:
    """(name, version) of what a pool has loaded; nothing when it does not answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/repository/index", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - our own address
            entries = json.load(answer)
        return frozenset((e["name"], e["version"]) for e in entries if e["state"] == "READY")
    except _FAILURES:
        return frozenset()


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the pool answered {error.code}"
