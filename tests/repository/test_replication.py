"""A version in another store is the same version: digest, metadata, lineage, signatures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.errors import AlreadyExists, IntegrityError
from modelyard.repository import ModelRepository
from modelyard.repository.keys import Key
from modelyard.repository.replication import copy
from modelyard.repository.signatures import Signatures
from modelyard.store import Memory, Store


@pytest.fixture
def source(open_repository: Callable[..., ModelRepository], tmp_path: Path) -> ModelRepository:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights.bin").write_bytes(b"weights" * 3_000_000)
    (tmp_path / "model/config.json").write_text("{}")
    repository = open_repository(Memory())
    repository.register_model("m", "1.0.0", tmp_path / "model", {"f1": 0.9}, lineage={"code": "abc"}, tags=["best"])
    return repository


def test_it_is_the_same(source: ModelRepository, repository: ModelRepository) -> None:
    version = source.resolve("m")
    copied = copy(source, version, repository, tags=["tried"])
    assert (copied.digest, copied.metadata, copied.lineage) == (version.digest, version.metadata, version.lineage)
    assert repository.tags("m") == {"latest": "v1.0.0", "tried": "v1.0.0"}
    assert repository.verify(copied) == []
    assert copy(source, version, repository) == copied


def test_signatures_come_along(
    source: ModelRepository, repository: ModelRepository, tmp_path: Path, make_key: Callable[..., object]
) -> None:
    make_key(tmp_path, "mine")
    version, trusted = source.resolve("m"), [tmp_path / "mine.pub"]
    Signatures(source.storage, user="me").sign(version, Key.read(tmp_path / "mine.pem"))
    copied = copy(source, version, repository)
    assert Signatures(repository.storage, trusted=trusted).verify(copied)
    copy(source, version, repository)
    assert len(list(repository.storage.objects("evidence/m/v1.0.0/signature"))) == 1


def test_damage_does_not_spread(source: ModelRepository, repository: ModelRepository) -> None:
    version = source.resolve("m")
    flip(source.storage, next(file.key for file in version.files if file.path == "weights.bin"))
    with pytest.raises(IntegrityError, match=r"weights\.bin is not what its source says it is"):
        copy(source, version, repository)
    assert repository.list_models() == []


def flip(store: Store, key: str) -> None:
    data = bytearray(store.get(key))
    data[12_345] ^= 1
    store.put(key, bytes(data))


def test_another_version_under_that_number_stays(
    source: ModelRepository, repository: ModelRepository, tmp_path: Path
) -> None:
    (tmp_path / "other.bin").write_bytes(b"others")
    there = repository.register_model("m", "1.0.0", tmp_path / "other.bin")
    with pytest.raises(AlreadyExists, match="exists with other content"):
        copy(source, source.resolve("m"), repository)
    assert repository.resolve("m") == there
