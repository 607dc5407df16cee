"""Importing from other stores: plain files in a bucket, and versions of another modelyard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard import defaults
from modelyard.errors import AlreadyExists, IntegrityError, InvalidInput, NotFound
from modelyard.importer import ModelImporter
from modelyard.importer.inspect import inspect_files
from modelyard.importer.sources.yard import YardSource
from modelyard.repository import ModelRepository
from modelyard.settings import Settings
from modelyard.store import Cache, Memory, Store
from modelyard.store.files import Filter
from modelyard.yard import Yard

from . import builders

WEIGHTS = builders.safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))
FILES = {"model.safetensors": WEIGHTS, "onnx/readme.md": b"# Tiny\n"}

in_s3 = pytest.mark.parametrize("shared_store", ["s3"], indirect=True)
Open = Callable[..., ModelRepository]


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(Memory(), cache=Cache(tmp_path / "cache"), inspect=inspect_files, user="ada")


@pytest.fixture
def importer(repository: ModelRepository) -> ModelImporter:
    return ModelImporter(repository)


def contents(repository: ModelRepository, ref: str) -> dict[str, bytes]:
    version = repository.resolve(ref)
    folder = repository.fetch(version)
    return {file.path: (folder / file.path).read_bytes() for file in version.files}


# A bucket.


@in_s3
def test_a_folder_of_a_bucket(importer: ModelImporter, repository: ModelRepository, shared_store: Store) -> None:
    for path, data in FILES.items():
        shared_store.put(f"exports/tiny/{path}", data)
    shared_store.put("exports/tinier/model.bin", b"another one")
    for address in (f"{shared_store.url}/exports/tiny", f"{shared_store.url}/exports/tiny/"):
        version = importer.import_model(address)
        assert (version.name, version.model.format) == ("tiny", "safetensors")
        assert version.metadata == {"source": {"kind": "bucket", "url": f"{shared_store.url}/exports/tiny"}}
        assert contents(repository, "tiny") == FILES


@in_s3
def test_a_single_object(importer: ModelImporter, repository: ModelRepository, shared_store: Store) -> None:
    shared_store.put("exports/tiny-1.5.safetensors", WEIGHTS)
    assert importer.import_model(f"{shared_store.url}/exports/tiny-1.5.safetensors").name == "tiny-1.5"
    assert contents(repository, "tiny-1.5") == {"tiny-1.5.safetensors": WEIGHTS}


@in_s3
def test_files_chosen_from_a_bucket(importer: ModelImporter, shared_store: Store) -> None:
    for path, data in FILES.items():
        shared_store.put(path, data)
    version = importer.import_model(shared_store.url, "tiny", files=Filter(exclude=["*.md"]))
    assert [file.path for file in version.files] == ["model.safetensors"]


@in_s3
def test_nothing_in_a_bucket(importer: ModelImporter, shared_store: Store) -> None:
    with pytest.raises(NotFound, match=r"there is nothing at s3://.*/nowhere; check the address"):
        importer.import_model(f"{shared_store.url}/nowhere")


@in_s3
def test_hostile_keys(importer: ModelImporter, repository: ModelRepository, shared_store: Store) -> None:
    shared_store.put("m/con.txt", b"x")
    with pytest.raises(InvalidInput, match="can't be kept on every system"):
        importer.import_model(f"{shared_store.url}/m")
    shared_store.put("p/notes.txt", builders.hostile())
    with pytest.raises(InvalidInput, match=r"notes\.txt holds a pickle"):
        importer.import_model(f"{shared_store.url}/p")
    assert list(repository.storage.objects("")) == []


@pytest.mark.parametrize("address", ["s3://key:secret@bucket/x", "s3://bucket/x?versionId=1", "gs://bucket/x#y"])
def test_addresses_that_say_too_much(importer: ModelImporter, address: str) -> None:
    with pytest.raises(InvalidInput, match="names more than a bucket and a folder") as caught:
        importer.import_model(address)
    assert "secret" not in str(caught.value)


# Another modelyard.


@pytest.fixture
def other(
    shared_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_repository: Open
) -> ModelRepository:
    """A repository of two models in a store that can be reached by its address."""
    settings = Settings(cache=tmp_path / "cache", user="ada")
    monkeypatch.setattr(defaults, "yard", lambda: Yard(settings))
    there = open_repository(shared_store, inspect=inspect_files)
    model = builders.folder(tmp_path / "tiny", FILES)
    there.register_model("team/tiny", "v1.0.0", model, {"f1": 0.9}, lineage={"dataset": "digits:v1.0.0"})
    (model / "more.txt").write_text("more")
    there.register_model("team/tiny", "v1.1.0", model, {}, tags=["stable"])
    there.register_model("another", "v2.0.0-rc.1", model, {})
    return there


@pytest.mark.parametrize("ref", ["team/tiny:v1.0.0", "team/tiny", "team/tiny:stable"])
def test_a_version_of_another_store(
    importer: ModelImporter, repository: ModelRepository, other: ModelRepository, ref: str
) -> None:
    original = other.resolve(ref)
    version = importer.import_model(f"yard+{other.storage.url}#{ref}")
    assert version.ref == original.ref
    assert (version.metadata, version.lineage) == (original.metadata, original.lineage)
    assert contents(repository, "team/tiny") == contents(other, ref)
    assert importer.import_model(f"yard+{other.storage.url}#{ref}").id == version.id, "the same content again"


def test_under_another_name(importer: ModelImporter, other: ModelRepository) -> None:
    version = importer.import_model(f"yard+{other.storage.url}#team/tiny:v1.0.0", "mine", "v3.0.0")
    assert (version.name, str(version.version)) == ("mine", "v3.0.0")
    assert version.digest == other.resolve("team/tiny:v1.0.0").digest


def test_all_versions_are_listed(other: ModelRepository) -> None:
    url = f"yard+{other.storage.url}"
    found = list(YardSource().list(url))
    assert [(each.name, each.version) for each in found] == [
        ("another", "v2.0.0-rc.1"),
        ("team/tiny", "v1.0.0"),
        ("team/tiny", "v1.1.0"),
    ]
    assert found[1].address == f"{url}#team/tiny:v1.0.0"
    assert [each.name for each in YardSource().list(f"{url}#another")] == ["another"]


def test_other_content_under_the_same_version(importer: ModelImporter, other: ModelRepository) -> None:
    importer.import_model(f"yard+{other.storage.url}#team/tiny:v1.0.0", version="v1.1.0")
    with pytest.raises(AlreadyExists, match="register under the next version"):
        importer.import_model(f"yard+{other.storage.url}#team/tiny:v1.1.0")


def test_a_damaged_file(importer: ModelImporter, repository: ModelRepository, other: ModelRepository) -> None:
    file = other.resolve("team/tiny:v1.0.0").files[0]
    other.storage.put(file.key, WEIGHTS[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"model\.safetensors is not what its source says it is"):
        importer.import_model(f"yard+{other.storage.url}#team/tiny:v1.0.0")
    other.storage.delete([file.key])
    with pytest.raises(NotFound, match=r"model\.safetensors is not in"):
        importer.import_model(f"yard+{other.storage.url}#team/tiny:v1.0.0")
    assert builders.left_behind(repository) == []


@in_s3
def test_a_store_is_no_folder_of_files(importer: ModelImporter, other: ModelRepository) -> None:
    with pytest.raises(InvalidInput, match=r"is a store of modelyard; write yard\+s3://.*#name:v1\.0\.0"):
        importer.import_model(other.storage.url)


@pytest.mark.parametrize("address", ["yard+", "yard+/tmp", "yard+/tmp#", "yard+#name"])
def test_addresses_without_a_model(importer: ModelImporter, address: str) -> None:
    with pytest.raises(InvalidInput, match="names no model in a store; write yard"):
        importer.import_model(address)


def test_a_store_that_is_not_there(importer: ModelImporter, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no store at"):
        importer.import_model(f"yard+{tmp_path}/nothing#tiny")
