"""What no client sends on purpose is refused in one line, in the shape of the protocol that was spoken."""

from __future__ import annotations

import json
import socket
from functools import partial
from typing import Any

import pytest

from modelyard.serving.openapi import openapi
from odd_requests import NAMES, Wire, check_refusal, methods_of, odd_paths, other_methods

from .support import ServerProcess

PATHS = methods_of(openapi(repository=False))
NAMED = "worker"


def at(path: str, name: str = NAMED) -> str:
    return path.replace("{name}", name).replace("{version}", "v1.0.0")


@pytest.mark.parametrize("path", PATHS)
def test_a_method_that_a_path_does_not_take(server: ServerProcess, path: str) -> None:
    for method, said in other_methods(Wire(server.url), at(path), PATHS[path]):
        check_refusal(at(path), method, said)


def test_paths_with_something_before_or_behind(server: ServerProcess) -> None:
    wire = Wire(server.url)
    for path in odd_paths([at(path) for path in PATHS]):
        for method in ("GET", "POST", "HEAD"):
            check_refusal(path, method, wire.ask(method, path))


def test_names_that_are_none(server: ServerProcess) -> None:
    wire = Wire(server.url)
    for path in (path for path in PATHS if "{name}" in path):
        for name in NAMES:
            for method in PATHS[path]:
                said = wire.ask(method, at(path, name))
                check_refusal(at(path, name), method, said)
                assert said.status == 404, (method, path, name, said)


@pytest.mark.parametrize("name", ["team/linear", "team%2Flinear", "team/linear:v1.0.0", "team%2flinear%3Av1.0.0"])
def test_every_spelling_of_a_name_leads_to_its_model(server: ServerProcess, name: str) -> None:
    said = Wire(server.url).ask("GET", f"/v2/models/{name}")
    found: dict[str, Any] = json.loads(said.body)
    assert (said.status, found["name"]) == (200, "team/linear")


def test_a_query_and_a_host_that_are_no_text(server: ServerProcess) -> None:
    address = server.url.removeprefix("http://").rsplit(":", 1)
    for target, host in ((b"/v1/nothing?\x80", b"x"), (b"/v1/nothing", b"a:b:c\xff")):
        with socket.create_connection((address[0], int(address[1])), timeout=30) as connection:
            connection.sendall(b"GET %b HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % (target, host))
            said = b"".join(iter(partial(connection.recv, 65536), b""))
        assert said.startswith(b"HTTP/1.1 4"), said
