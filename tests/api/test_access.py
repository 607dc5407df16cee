"""The API with access on: the same tokens, and what each role may read and change."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from access.issuer import IssuerServer, issuing
from access.support import Office
from modelyard.api.access import model_asked, needed
from modelyard.settings import AccessSettings
from modelyard.store import Memory

from .conftest import Ask, Serve, Served, write_files


def test_hub_clients_send_tokens(serve: Serve, ask: Ask, tmp_path: Path) -> None:
    served, office = guarded(serve, tmp_path)
    good = office.token("viewer", ("digits",))
    code = """
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
def status(call):
    try:
        return call() and 200
    except HfHubHTTPError as error:
        return error.response.status_code
result = [
    open(hf_hub_download("digits", "config.json", token=good)).read(),
    status(lambda: HfApi(token=False).model_info("digits")),
    status(lambda: HfApi(token="guessed").model_info("digits")),
    status(lambda: HfApi(token=good).model_info("faces")),
]
"""
    assert ask(served.url, code, good=good) == ["{}", 401, 401, 403]


def test_refusals(serve: Serve, tmp_path: Path) -> None:
    served, office = guarded(serve, tmp_path)
    (revoked, id_), expired = office.made("admin"), office.token("admin", age_s=7200)
    assert status(served, revoked) == 200
    office.journal.revoke(id_)
    wait_for(lambda: status(served, revoked) == 401)  # within two seconds, and never on the same machine more
    for bad in (None, "guessed", expired, Office(tmp_path).token("admin")):
        answer = get(served, bad, "/api/models")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="modelyard"')
        assert answer.json()["error"] == answer.headers["x-error-message"]
        assert bad is None or bad not in answer.text
    assert get(served, office.token("admin", ("faces",)), "/api/models/digits").status_code == 403
    names = get(served, office.token("viewer", ("faces",)), "/api/models").json()
    assert {each["id"] for each in names} == {"digits", "faces"}  # names are no secret


def test_access_comes_and_goes(serve: Serve, tmp_path: Path) -> None:
    served, office = guarded(serve, tmp_path)
    office.journal.off()
    wait_for(lambda: status(served, None) == 200)
    office.journal.init()
    wait_for(lambda: status(served, None) == 401)


def test_an_issuers_tokens(serve: Serve, tmp_path: Path) -> None:
    with issuing() as issuer:
        served = serve(Memory(), access=issuer.settings)
        served.register("digits:v1.0.0", write_files(tmp_path / "files", {"config.json": b"{}"}))
        assert get(served, issuer.token(["staff"], "digits"), "/api/models/digits").status_code == 200
        assert get(served, issuer.token(["staff"], "faces"), "/api/models/digits").status_code == 403
        assert get(served, issuer.token(["guests"]), "/api/models").status_code == 403
        for bad in ({"aud": "else"}, {"iss": "else"}, {"exp": 1}, {"key": rsa.generate_private_key(65537, 2048)}):
            assert status(served, issuer.token(["staff"], **bad)) == 401
    assert status(serve(Memory(), access=unreachable(issuer)), issuer.token(["staff"])) == 503


def unreachable(issuer: IssuerServer) -> AccessSettings:
    return issuer.settings.model_copy(update={"oidc_jwks_uri": "http://127.0.0.1:1/keys"})


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/hf/api/models", None),
        ("/hf/api/models/digits", "digits"),
        ("/hf/api/models/team/digits/revision/main", "team/digits"),
        ("/hf/api/models/digits/tree/main/sub/folder", "digits"),
        ("/hf/api/models/digits/paths-info/main", "digits"),
        ("/hf/team/digits/resolve/main/sub/file.bin", "team/digits"),
        ("/", None),
    ],
)
def test_which_model_a_path_is_about(path: str, model: str | None) -> None:
    assert model_asked(path) == model


def test_what_a_change_needs() -> None:
    assert [needed("GET", "/api/v1/models"), needed("POST", "/hf/api/models/a/paths-info/main")] == ["viewer"] * 2
    assert [needed(method, "/api/v1/models") for method in ("POST", "PUT", "DELETE")] == ["deployer"] * 3


def guarded(serve: Serve, folder: Path) -> tuple[Served, Office]:
    """A yard with two models whose access is on, and who makes tokens for it."""
    store = Memory()
    office, served = Office(folder, store), serve(store)
    for name in ("digits", "faces"):
        served.register(f"{name}:v1.0.0", write_files(folder / name, {"config.json": b"{}"}))
    return served, office


def get(served: Served, token: str | None, path: str) -> httpx.Response:
    return served.http.get(path, headers={"authorization": f"Bearer {token}"} if token else {})


def status(served: Served, token: str | None) -> int:
    return get(served, token, "/api/models").status_code


def wait_for(condition: Callable[[], object], *, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
