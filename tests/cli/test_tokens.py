"""Access by token as a person turns it on and works with it, with a real `modelyard up` beside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import pytest

from times import SIGNATURE, save_times

from .conftest import Cli, refused
from .test_live import REQUEST, up, wait_for


def test_making_and_taking_back(cli: Cli, folder: Path) -> None:
    cli("init")
    refused(cli("token", "create", "ana"), "this machine has no signing key", "modelyard token init")
    assert cli("token", "init").out.startswith("access is on; key-")
    refused(cli("token", "init"), "access is on already")
    made = cli("token", "create", "ana", "--role", "deployer", "--models", "calc,team/*", "--expires", "12h")
    assert made.out.count(".") == 2 and made.out.count("\n") == 1
    assert "deployer for calc, team/* until " in made.err
    as_json = cli("token", "create", "bob", "--json").json
    assert (as_json["role"], as_json["models"], as_json["expires"] - as_json["issued"]) == ("caller", ["*"], 30 * 86400)

    assert cli("token", "revoke", as_json["id"], "--reason", "left").out == f"{as_json['id']} is revoked\n"
    assert cli("token", "rotate").code == 0
    listed, state = cli("token", "ls"), cli("token", "ls", "--json").json
    assert "ana" in listed.out and " good\n" in listed.out and ": left\n" in listed.out
    assert len(state["keys"]) == 2 and state["tokens"][as_json["id"]]["revoked_by"] == "tester"
    first = min(state["keys"], key=lambda kid: state["keys"][kid]["at"])
    cli("token", "revoke", first)
    assert "its key does not count" in cli("token", "ls").out
    assert cli("token", "off").out == "access is off\n"
    assert "access is off" in cli("token", "ls").err
    for text in (made.out.strip(), as_json["token"]):
        assert not any(text in path.read_text() for path in (folder / ".modelyard").rglob("*.json"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("create a --models a*b", "'a*b' says no models"),
        ("create a --expires never", "'never' is no time"),
        ("create ../a", "can't be the name of a token"),
        ("revoke nothing", "there is no token or key 'nothing'"),
        ("rotate", "access is off"),
    ],
)
def test_what_is_refused(cli: Cli, line: str, said: str) -> None:
    cli("init")
    refused(cli("token", *line.split()), said)


def test_nothing_listens_to_others_without_tokens(yard: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_API__HOST", "0.0.0.0")
    for command in ("up", "api"):
        refused(yard(command), "api.host is 0.0.0.0", "modelyard token init", "access.open = true")
    monkeypatch.setenv("MODELYARD_API__HOST", "127.0.0.1")
    monkeypatch.setenv("MODELYARD_GATEWAY__HOST", "0.0.0.0")
    refused(yard("up"), "gateway.host is 0.0.0.0", "modelyard token init")


@pytest.mark.parametrize("text", ["two words", "töken", " "])
def test_what_is_no_token(yard: Cli, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MODELYARD_TOKEN", text)
    done = yard("ls")
    refused(done, "setting 'token' from MODELYARD_TOKEN", "it is no token")
    assert text == " " or text not in done.err


def test_working_with_access_on(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("init")
    save_times(folder / "model", 2.0)
    assert cli("register", "model", "calc:v1.0.0", "--set", f"signature={json.dumps(SIGNATURE)}").code == 0
    cli("token", "init")
    viewer = cli("token", "create", "watcher", "--role", "viewer").out.strip()
    mine = cli("token", "create", "me", "--json").json

    with up(folder):
        assert cli("stage", "calc:v1.0.0").code == 0
        refused(cli("validate", "calc:v1.0.0"), "the gateway at http://", "wants a token", "MODELYARD_TOKEN")
        monkeypatch.setenv("MODELYARD_TOKEN", viewer)
        refused(cli("predict", "calc:staging", "--json", REQUEST), "the token does not allow asking calc:staging")
        monkeypatch.setenv("MODELYARD_TOKEN", mine["token"])
        assert cli("validate", "calc:v1.0.0").code == 0
        assert cli("promote", "calc:v1.0.0").code == 0
        assert cli("predict", "calc", "--json", REQUEST).json["outputs"][0]["data"] == [2.0, 4.0]

        assert cli("config", "set", "rate-limits", "calc", '{"requests_per_minute": 1}').code == 0
        wait_for(lambda: ask(mine["token"]) == 429)
        cli("token", "revoke", mine["id"], "--reason", "lost")
        wait_for(lambda: ask(mine["token"]) == 401)
        refused(cli("predict", "calc", "--json", REQUEST), "does not take the token")
        assert ask(None) == 401
        assert ask(cli("token", "create", "another").out.strip()) == 200
        cli("token", "off")
        wait_for(lambda: ask(None) in (200, 429))

    state = Path(os.environ["MODELYARD_STATE"])
    texts = [path.read_text(errors="replace") for path in [*state.rglob("*"), folder / "up.log"] if path.is_file()]
    assert texts and not any(secret in text for text in texts for secret in (mine["token"], viewer))


def ask(token: str | None) -> int:
    url = f"http://127.0.0.1:{os.environ['MODELYARD_GATEWAY__PORT']}/v2/models/calc/infer"
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.post(url, content=REQUEST, headers=headers).status_code
