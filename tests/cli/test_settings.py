"""Settings that can't be read: every command says which value, where it stands, and that it is to be mended."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.errors import StoreError

from .conftest import Cli, refused

FILES = {
    "store =": "is not valid TOML",
    "store = 1": "setting 'store' from",
    "nope = 1": "setting 'nope' from",
    "[gateway]\nport = 'x'": "setting 'gateway.port' from",
    "[gateway]\nport = 65536": "it must be at most 65535 (found 65536)",
    "gateway = 3": "setting 'gateway' from",
    "[gateway]\nnope = 1": "setting 'gateway.nope' from",
    "env = 'test'": "'development' or 'production' (found 'test')",
    "\xff": "can't be read",
}

VARIABLES = {
    "MODELYARD_GATEWAY__PORT": "abc",
    "MODELYARD_ENV": "test",
    "MODELYARD_SERVING__MAX_BATCH": "0",
    "MODELYARD_DEPLOYMENT__TARGET": "mars",
}


@pytest.mark.parametrize("text", FILES)
@pytest.mark.parametrize("command", ["ls", "status", "init"])
def test_a_file_that_can_not_be_read(
    yard: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, command: str
) -> None:
    monkeypatch.delenv("MODELYARD_GATEWAY__PORT")  # it would win over the file
    (folder / "modelyard.toml").write_text(text, encoding="latin-1")

    refused(yard(command), FILES[text], str(folder / "modelyard.toml"), "; ")


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_that_can_not_be_read(yard: Cli, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, VARIABLES[variable])

    refused(yard("ls"), f"from {variable}: ", f"(found '{VARIABLES[variable]}')", "mend the value")


def test_what_is_no_setting_may_be_a_secret(yard: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_STORAGE__SECRET_KEY", "hush")
    refused(yard("ls"), "from MODELYARD_STORAGE__SECRET_KEY: storage has no 'secret_key'; use one of")
    assert "hush" not in yard("ls").err

    monkeypatch.delenv("MODELYARD_STORAGE__SECRET_KEY")
    (folder / "modelyard.toml").write_text("[store]\nsecret_key = 'hush'\n")
    refused(yard("ls"), "setting 'store' from", "it must be a text; mend the value")
    assert "hush" not in yard("ls").err


def test_a_variable_that_is_no_document(yard: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_GATEWAY", "{")

    refused(yard("ls"), 'field "gateway"', "mend the value")


def test_a_store_that_is_not_there(yard: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_STORE", "nowhere")

    refused(yard("ls"), "there is no store at nowhere; make one with `modelyard init nowhere`")


def test_a_cache_that_can_not_be_used(yard: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CACHE", "/dev/null/cache")

    refused(yard("pull", "good"), "/dev/null/cache", "set MODELYARD_CACHE to another folder", code=StoreError.exit_code)


def test_the_help_needs_no_settings(cli: Cli, folder: Path) -> None:
    (folder / "modelyard.toml").write_text("store =")

    assert cli().out.startswith("Usage: modelyard")
    assert cli("ls", "--help").code == 0
    assert cli("--version").out.startswith("modelyard ")


def test_the_file_of_a_folder_above_counts(yard: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "modelyard.toml").write_text(f"store = '{folder / '.modelyard'}'")
    (folder / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(folder / "deep" / "down")

    assert yard("ls", "--json").json == ["good"]
