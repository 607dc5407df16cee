"""The command line, called in this process: `cli("ls", "--json")` in an empty folder with an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelyard.cli.app import run
from modelyard.importer.inspect import inspect_files
from modelyard.repository import ModelRepository
from modelyard.store import Cache, LocalDisk
from ports import free_port


@dataclass(frozen=True, slots=True)
class Result:
    """What a command line left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty; no settings but those that keep the test to itself."""
    for name in [name for name in os.environ if name.startswith("MODELYARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELYARD_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MODELYARD_USER", "tester")
    monkeypatch.setenv("MODELYARD_GATEWAY__PORT", str(free_port()))
    monkeypatch.setenv("MODELYARD_API__PORT", str(free_port()))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def cli(folder: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str) -> Result:
        capsys.readouterr()
        code = run(arguments)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and a store that holds it; to be copied."""
    root = tmp_path_factory.mktemp("example")
    (root / "model").mkdir()
    (root / "model" / "weights.bin").write_bytes(b"weights")
    repository = ModelRepository(
        LocalDisk(root / ".modelyard"), cache=Cache(root / "cache"), inspect=inspect_files, user="tester"
    )
    repository.register_model("good", "v1.0.0", root / "model", {})
    return root


@pytest.fixture
def yard(cli: Cli, folder: Path, example: Path) -> Cli:
    """The command line in a folder with a store that holds `good:v1.0.0`, registered from the folder `model`."""
    shutil.copytree(example, folder, dirs_exist_ok=True)
    return cli


def refused(result: Result, *said: str, code: int = 1) -> None:
    """One line on stderr that says all of `said`, and the exit code; nothing unforeseen."""
    assert result.code == code, result
    assert result.err.startswith("error: ") and result.err.endswith("\n") and result.err.count("\n") == 1, result.err
    assert (
        "unexpected " not in result.err.replace("unexpected extra argument", "")
        and "Traceback" not in result.out + result.err
    )
    for text in said:
        assert text in result.err, result.err
