"""The example of a migration does what it says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "embeddings"


@pytest.fixture
def migration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    for name, value in {"CACHE": "cache", "STATE": "state"}.items():
        monkeypatch.setenv(f"MODELYARD_{name}", str(tmp_path / value))
    monkeypatch.syspath_prepend(str(FOLDER))
    yield import_module("migration")
    for name in ("migration", "index"):
        del sys.modules[name]


def test_the_migration(migration: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    migration.main(tmp_path / "embeddings")

    printed = capsys.readouterr().out
    assert printed.count("36 vectors of minilm-small:v1.0.0@sha256:") == 2
    assert 'semantic-search: "minilm-small:v1.0.0" → "all-MiniLM-L6-v2:v1.0.0"' in printed
    assert printed.count("refund") == 2 and printed.count("Refunds") == 2


def test_the_index_never_compares_vectors_of_two_models(migration: Any) -> None:
    index = migration.Index()
    with pytest.raises(LookupError, match="no document was embedded with m:v1"):
        index.search("anything", type("Model", (), {"stamp": "m:v1"}))
