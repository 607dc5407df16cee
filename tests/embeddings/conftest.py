"""A repository with embedding models in it: files that only say their name, or real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.configuration import ConfigurationManager
from modelyard.importer.inspect import inspect_files
from modelyard.repository import Inspection, ModelRepository
from modelyard.repository.manifest import ModelInfo
from modelyard.store import Memory

from .builders import save_static


@pytest.fixture
def config() -> ConfigurationManager:
    return ConfigurationManager(Memory(), user="tester", environ={})


@pytest.fixture
def repository(config: ConfigurationManager, open_repository: Callable[..., ModelRepository]) -> ModelRepository:
    """Every folder is taken for a sentence-transformers model."""
    found = Inspection(ModelInfo(format="sentence-transformers"))
    return open_repository(config.storage, inspect=lambda _: found)


@pytest.fixture
def register(repository: ModelRepository, tmp_path: Path) -> Callable[..., Any]:
    """`register("m:v1.0.0")`: a version whose one file holds its own name."""

    def make(*refs: str) -> None:
        for ref in refs:
            folder = tmp_path / ref.replace(":", "-")
            folder.mkdir()
            (folder / "weights.bin").write_text(ref)
            name, version = ref.split(":")
            repository.register_model(name, version, folder, {})

    return make


@pytest.fixture(scope="session")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real sentence-transformers model, as small as can be."""
    return save_static(tmp_path_factory.mktemp("static") / "model", dimension=8)


@pytest.fixture
def real_repository(config: ConfigurationManager, open_repository: Callable[..., ModelRepository]) -> ModelRepository:
    """Folders are inspected as they are in earnest."""
    return open_repository(config.storage, inspect=inspect_files)
