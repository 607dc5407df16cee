"""The API answers as its OpenAPI document says, whatever is asked; and odd requests are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import odd_requests
import openapi_requests
from access.support import Office
from modelyard.api.app import create_app
from modelyard.api.openapi import openapi
from modelyard.api.server import ApiServer
from modelyard.settings import ApiSettings, load_settings
from modelyard.store import Memory
from modelyard.yard import Yard
from odd_requests import NAMES, Said, Wire, methods_of, odd_paths, other_methods
from openapi_requests import Operation, operations
from ports import free_port

from .conftest import write_files
from .test_access import wait_for

DOCUMENT = openapi()
PATHS = methods_of(DOCUMENT)
GOOD = {"model": ("m", "team/n"), "revision": ("main", "v1.0.0"), "path": ("a", "a/b.txt")}


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("described")
    api = ApiSettings(port=free_port())
    folders = {"cache": folder / "cache", "state": folder / "state"}
    yard = Yard(load_settings(folder, user="tester", api=api, **folders), Memory())
    model = write_files(folder / "m", {"config.json": b"{}", "a/b.txt": b"text"})
    for name in GOOD["model"]:
        yard.repository.register_model(name, "v1.0.0", model)
    server = ApiServer(create_app(yard), api)
    server.start()
    yield yard
    server.stop()


@pytest.fixture(scope="module")
def url(yard: Yard) -> str:
    return yard.settings.api.url


def ask_for_what_is_there(case: Any, number: int) -> None:
    """In three of four requests."""
    for name in (case.path_parameters or {}) if number % 4 else ():
        case.path_parameters[name] = GOOD[name][number % 2]


@pytest.mark.parametrize("operation", operations(DOCUMENT), ids=str)
def test_it_answers_as_it_says(url: str, operation: Operation) -> None:
    openapi_requests.ask(DOCUMENT, url, operation, prepare=ask_for_what_is_there)


def test_it_serves_its_document(url: str) -> None:
    assert httpx.get(f"{url}/openapi.json").json() == json.loads(json.dumps(DOCUMENT))


def at(path: str, model: str = "m") -> str:
    return path.replace("{model}", model).replace("{revision}", "main").replace("{path}", "config.json")


def check_refusal(path: str, method: str, said: Said) -> None:
    odd_requests.check_refusal(path, method, said)
    assert said.headers["x-error-message"]


@pytest.mark.parametrize("path", PATHS)
def test_a_method_that_a_path_does_not_take(url: str, path: str) -> None:
    for method, said in other_methods(Wire(url), at(path), PATHS[path]):
        check_refusal(at(path), method, said)


def test_paths_with_something_before_or_behind(url: str) -> None:
    wire = Wire(url)
    for path in odd_paths([at(path) for path in PATHS]):
        for method in ("GET", "HEAD", "POST"):
            said = wire.ask(method, path)
            if said.status != 200:  # a folder may be written with a slash behind it
                check_refusal(path, method, said)


def test_names_that_are_none(url: str) -> None:
    wire = Wire(url)
    for path in (path for path in PATHS if "{model}" in path):
        for name in NAMES:
            for method in PATHS[path]:
                check_refusal(at(path, name), method, wire.ask(method, at(path, name)))


@pytest.mark.parametrize("path", ["/", "/hf", "/hfx", "/api", "/metrics/", "//metrics", "/console", "/%00", "/%ff"])
def test_outside_of_every_part_errors_have_the_same_shape(url: str, path: str) -> None:
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        said = Wire(url).ask(method, path)
        assert said.status == 404
        check_refusal(path, method, said)


@pytest.fixture
def office(yard: Yard, url: str, tmp_path: Path) -> Iterator[Office]:
    """Access is on as long as the test runs."""

    def status() -> int:
        return httpx.get(f"{url}/hf/api/models").status_code

    office = Office(tmp_path, yard.repository.storage)
    wait_for(lambda: status() == 401)
    yield office
    office.journal.off(reason="the test has ended")
    wait_for(lambda: status() == 200)


def test_without_a_token_everything_is_refused(url: str, office: Office) -> None:
    def refused(_context: Any, response: Any, _case: Any) -> None:
        assert response.status_code == 401

    for operation in operations(DOCUMENT):
        checks = (refused, openapi_requests.as_documented)
        openapi_requests.ask(DOCUMENT, url, operation, checks=checks, examples=2, prepare=ask_for_what_is_there)


def test_with_a_token_for_one_model(url: str, office: Office) -> None:
    token = {"authorization": f"Bearer {office.token('viewer', ('m',))}"}
    for operation in operations(DOCUMENT):
        openapi_requests.ask(DOCUMENT, url, operation, examples=4, prepare=ask_for_what_is_there, headers=token)
