"""A hub with one repository, and an importer that does not wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.utils import close_session

from modelyard.importer import ModelImporter
from modelyard.importer.inspect import inspect_files
from modelyard.importer.remote import Patience
from modelyard.importer.sources import huggingface
from modelyard.repository import ModelRepository
from modelyard.store import Cache, Memory

from .model import FILES, LFS, NAME
from .server import HubServer, Repository, hub_server


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with hub_server() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        server.repositories[NAME] = Repository(dict(FILES), LFS)
        yield server
        close_session()


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the importer would have waited."""
    waited: list[float] = []
    source = huggingface.HuggingFaceSource(Patience(sleep=waited.append))
    monkeypatch.setattr("modelyard.importer.sources.SOURCES", (source,))
    return waited


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(Memory(), cache=Cache(tmp_path / "cache"), inspect=inspect_files, user="ada")


@pytest.fixture
def importer(repository: ModelRepository, rests: list[float]) -> ModelImporter:
    return ModelImporter(repository)
