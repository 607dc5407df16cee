"""`verify` of journals: entries that can't be read, and names whose version is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.repository import ModelRepository
from modelyard.store import Memory


@pytest.fixture
def repository(open_repository: Callable[..., ModelRepository], tmp_path: Path) -> ModelRepository:
    (tmp_path / "weights.bin").write_bytes(b"weights")
    repository = open_repository(Memory())
    for version in ("1.0.0", "1.1.0"):
        repository.register_model("digits", version, tmp_path / "weights.bin")
    return repository


def lose(repository: ModelRepository, version: str) -> None:
    repository.storage.delete([f"versions/digits/{version}.json"])


def test_all_is_well(repository: ModelRepository) -> None:
    repository.tag("digits", "best", "v1.0.0")
    repository.request(repository.resolve("digits"), "production", why="promote")
    assert repository.verify_all()[1] == []


def test_a_tag_without_its_version(repository: ModelRepository) -> None:
    repository.tag("digits", "best", "v1.0.0")
    lose(repository, "v1.0.0")
    [damage] = repository.verify_all()[1]
    assert (damage.ref, damage.path) == ("catalog/digits", "the tag best")
    assert damage.what.startswith("without its version (digits has no version v1.0.0")


def test_a_deployment_without_its_version(repository: ModelRepository) -> None:
    repository.request(repository.resolve("digits"), "staging", why="stage")
    lose(repository, "v1.1.0")
    [damage] = repository.verify_all()[1]
    assert (damage.ref, damage.path) == ("deployments/staging", "the deployment of digits")


def test_a_tag_on_other_bytes(repository: ModelRepository, tmp_path: Path) -> None:
    repository.tag("digits", "best", "v1.0.0")
    lose(repository, "v1.0.0")
    (tmp_path / "weights.bin").write_bytes(b"others")
    repository.register_model("digits", "1.0.0", tmp_path / "weights.bin")
    [damage] = repository.verify_all()[1]
    assert damage.path == "the tag best"
    assert "has the digest" in damage.what


def test_journals_that_can_not_be_read(repository: ModelRepository) -> None:
    repository.storage.put("catalog/digits/999999999997.json", b"{")
    repository.storage.put("deployments/production/999999999998.json", b"[]")
    found = [(damage.ref, damage.path) for damage in repository.verify_all()[1]]
    assert found == [("catalog/digits", "a journal entry"), ("deployments/production", "a journal entry")]
