"""One more opinion from modelscan's command, here played by a script that answers as it does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import Unavailable
from modelyard.importer.inspect import inspect_files
from modelyard.store import Memory
from modelyard.store.files import scan
from modelyard.store.objects import ObjectFile

from . import builders

ISSUE = {"description": "Use of unsafe operator 'system' from module 'posix'", "severity": "CRITICAL"}
Command = Callable[..., str]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """A command that writes an answer where it is told, and exits as modelscan does."""

    def make(answer: Any, code: int = 0) -> str:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        path = tmp_path / "modelscan"
        path.write_text(
            f"#!{sys.executable}\nimport pathlib, sys\n"
            f"pathlib.Path(sys.argv[sys.argv.index('-o') + 1]).write_text({text!r})\nsys.exit({code})\n"
        )
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return builders.folder(tmp_path / "model", {"w.bin": builders.state(), "notes.txt": "hello"})


def answer(*issues: Any, errors: tuple[Any, ...] = ()) -> dict[str, Any]:
    return {"summary": {"modelscan_version": "0.8.8"}, "issues": list(issues), "errors": list(errors)}


def test_it_finds_nothing(command: Command, model: Path) -> None:
    found = inspect_files(scan(model), modelscan_command=command(answer()))
    assert (found.refused, found.scanners["modelscan"]) == ({}, "0.8.8")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (answer(ISSUE), "modelscan says: Use of unsafe operator 'system'"),
        (answer(errors=({"description": "bad magic"},)), "modelscan says: it can't read it: bad magic"),
    ],
)
def test_it_objects(command: Command, model: Path, said: Any, why: str) -> None:
    found = inspect_files(scan(model), modelscan_command=command(said, 1))
    assert list(found.refused) == ["w.bin"]
    assert why in found.refused["w.bin"]


def test_it_is_only_asked_about_pickles_on_this_machine(model: Path) -> None:
    store, data = Memory(), builders.state()
    store.put("w", data)
    inspect_files([ObjectFile(store, "w", "w.bin", len(data))], modelscan_command="/not/there")
    (model / "w.bin").unlink()
    inspect_files(scan(model), modelscan_command="/not/there")


def test_it_gives_no_answer(command: Command, model: Path) -> None:
    with pytest.raises(Unavailable, match="/not/there can't be run"):
        inspect_files(scan(model), modelscan_command="/not/there")
    for said, code in ((answer(), 2), ("nonsense", 0), ([], 0)):
        with pytest.raises(Unavailable, match="gave no answer that is known"):
            inspect_files(scan(model), modelscan_command=command(said, code))
