"""Commands as processes of their own: what they import, what they say when a port is taken, how they end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from .conftest import Cli, Result, refused

HEAVY = ("torch", "boto3", "fastapi", "starlette", "numpy", "obstore", "onnxruntime", "transformers", "uvicorn")
GROUPS = ("", "config", "deploy", "embed", "token")
COMMANDS = (
    *("init", "register", "import", "ls", "show", "pull", "tag", "history", "verify", "serve", "api"),
    *("predict", "doctor", "diff", "yank", "delete", "gc", "copy", "scan", "sign"),
    *("config get", "config set", "config unset", "config undo", "config history"),
    *("embed texts", "embed compare"),
    *("token init", "token create", "token ls", "token revoke", "token rotate", "token off"),
    *("stage", "validate", "promote", "rollback", "undeploy", "status", "logs", "up"),
    *("controller", "gateway", "deploy manifests", "deploy set"),
)

WATCHED = """
import sys
{code}
found = [name for name in {heavy!r} if name in sys.modules]
sys.exit(f"imported {{found}}" if found else code)
"""


def test_help_imports_nothing_heavy(folder: Path) -> None:
    lines = [[*command.split(), "--help"] for command in (*GROUPS, *COMMANDS)]

    done = watched(f"from modelyard.cli.app import run\ncode = max(run(line) for line in {lines!r})", HEAVY)

    assert (done.code, done.err) == (0, "")
    usages = [line for line in done.out.splitlines() if line.startswith("Usage: modelyard")]
    assert len(usages) == len(lines)


def test_the_list_of_commands_above_is_complete() -> None:
    import typer

    from modelyard.cli.app import app

    def names(command: object, prefix: str = "") -> list[str]:
        inner = getattr(command, "commands", {})
        return [n for name, each in inner.items() for n in names(each, f"{prefix} {name}")] if inner else [prefix[1:]]

    assert sorted(names(typer.main.get_command(app))) == sorted(COMMANDS)


def test_importing_modelyard_imports_nothing_at_all(folder: Path) -> None:
    done = watched("import modelyard; code = 0", (*HEAVY, "pydantic", "typer", "httpx", "yaml"))

    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("line", ["ls", "ls good", "show good", "history good", "tag good:v1.0.0 stable", "status"])
def test_everyday_commands_import_nothing_heavy(yard: Cli, line: str) -> None:
    heavy = [name for name in HEAVY if name != "obstore"]

    done = watched(f"from modelyard.cli.app import run\ncode = run({line.split()!r})", heavy)

    assert (done.code, done.err) == (0, "")


def test_exit_codes_and_streams_of_the_process(yard: Cli) -> None:
    listed, unknown, wrong = modelyard("ls"), modelyard("show", "nothing"), modelyard("frobnicate")

    assert (listed.code, listed.out, listed.err) == (0, "good\n", "")
    refused(unknown, "there is no model 'nothing'")
    refused(wrong, "No such command 'frobnicate'", code=2)


def test_a_reader_that_goes_away_early(yard: Cli) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as broken:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard", "ls"], stdout=broken, stderr=subprocess.PIPE, text=True
        )
        err = process.communicate()[1]

    assert (process.returncode, err) == (1, "")


def test_serve_on_a_port_that_is_taken(yard: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = modelyard("serve", "good", "--port", str(port))

    refused(done, f"can't listen on 127.0.0.1:{port}: address already in use; choose another port")


def test_up_with_the_gateways_port_taken(yard: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = modelyard("up", MODELYARD_GATEWAY__PORT=str(port))

    refused(done, f"127.0.0.1:{port}", "ddress already in use", "MODELYARD_GATEWAY__PORT")
    assert done.out == ""


@pytest.mark.parametrize("command", ["up", "api"])
def test_the_apis_port_taken(yard: Cli, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = modelyard(command, MODELYARD_API__PORT=str(port))

    refused(done, f"the API can't listen on 127.0.0.1:{port}: address already in use", "MODELYARD_API__PORT")
    assert done.out == ""


def test_up_on_an_address_that_is_not_ours(yard: Cli) -> None:
    refused(modelyard("up", MODELYARD_GATEWAY__HOST="192.0.2.1"), "192.0.2.1")


def modelyard(*arguments: str, **variables: str) -> Result:
    return finished([sys.executable, "-m", "modelyard", *arguments], **variables)


def watched(code: str, heavy: Sequence[str]) -> Result:
    return finished([sys.executable, "-c", WATCHED.format(code=code, heavy=tuple(heavy))])


def finished(command: Sequence[str], **variables: str) -> Result:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | variables, timeout=60)
    return Result(done.returncode, done.stdout, done.stderr)
