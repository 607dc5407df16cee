"""Importing: from which address, under which name and version, with which metadata."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.errors import InvalidInput, NotFound
from modelyard.importer import ModelImporter
from modelyard.importer.importer import next_version, valid_name
from modelyard.importer.inspect import inspect_files
from modelyard.importer.sources import source_of
from modelyard.refs import Version
from modelyard.repository import ModelRepository
from modelyard.store import Cache, Memory

from . import builders


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(Memory(), cache=Cache(tmp_path / "cache"), inspect=inspect_files, user="ada")


@pytest.fixture
def importer(repository: ModelRepository) -> ModelImporter:
    return ModelImporter(repository)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    return builders.folder(tmp_path / "My model", {"model.safetensors": builders.safetensors(header, b"\0" * 8)})


def test_a_folder(importer: ModelImporter, repository: ModelRepository, model: Path) -> None:
    version = importer.import_model(model)
    assert str(version.ref).startswith("My-model:v1.0.0@sha256:")
    assert (version.model.format, version.model.parameters) == ("safetensors", 2)
    assert version.metadata == {"source": {"kind": "local", "path": "My model"}}
    files, _ = repository.get_model("My-model", "v1.0.0")
    assert (files / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_the_next_import_is_the_next_version(importer: ModelImporter, repository: ModelRepository, model: Path) -> None:
    versions = [importer.import_model(model, "m", given).version for given in (None, "1.0.5", None, "2.0.0-rc.1", None)]
    assert [str(version) for version in versions] == ["v1.0.0", "v1.0.5", "v1.1.0", "v2.0.0-rc.1", "v2.0.0"]


def test_a_number_is_not_used_again(importer: ModelImporter, repository: ModelRepository, model: Path) -> None:
    importer.import_model(model, "m", "v3.0.0")
    repository.delete("m", "v3.0.0", reason="wrong")
    assert str(importer.next_version("m")) == "v3.1.0"
    assert str(importer.import_model(model, "m").version) == "v3.1.0"


def test_a_real_file_by_url(importer: ModelImporter) -> None:
    version = importer.import_model(f"file://{builders.smollm()}")
    assert (version.name, version.model.format) == ("SmolLM2-135M-Instruct.Q4_1", "gguf")
    assert [file.path for file in version.files] == [builders.smollm().name]


def test_addresses(importer: ModelImporter, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    monkeypatch.chdir(model)
    for source in ("~/My model", model.as_uri(), f"file://localhost{model}", ".", str(model / "model.safetensors")):
        with source_of(source).open(source) as fetched:
            assert [file.path for file in fetched.files] == ["model.safetensors"]
            assert fetched.metadata["source"]["path"] in ("My model", "model.safetensors")


def test_what_the_caller_says_wins(importer: ModelImporter, model: Path) -> None:
    version = importer.import_model(model, "m", metadata={"accuracy": 0.9, "source": "ours"}, tags=["best"])
    assert version.metadata == {"accuracy": 0.9, "source": "ours"}


def test_pickles_need_a_reason(importer: ModelImporter, model: Path) -> None:
    (model / "notes.txt").write_bytes(builders.hostile())
    with pytest.raises(InvalidInput, match=r"notes\.txt holds a pickle"):
        importer.import_model(model)
    version = importer.import_model(model, trust_pickle="made by ourselves")
    assert version.trusted_pickle == "made by ourselves"


@pytest.mark.parametrize(
    ("source", "error", "why"),
    [
        ("mars://org/model", InvalidInput, "no such kind of source; give hf://.* or the path of a folder"),
        ("file://elsewhere/model", InvalidInput, "another machine"),
        ("/no/such/model", NotFound, "no file or folder /no/such/model"),
        ("", InvalidInput, "not a path"),
        ("a\0b", InvalidInput, "not a path"),
        ("file:///a%00b", InvalidInput, "not a path"),
        ("~nobody-of-that-name/model", InvalidInput, "home folder"),
    ],
)
def test_bad_sources(importer: ModelImporter, source: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        importer.import_model(source)


def test_bad_names_and_versions(importer: ModelImporter, repository: ModelRepository, model: Path) -> None:
    for name, version in (("a b", None), ("m", "one"), ("task", None)):
        with pytest.raises(InvalidInput):
            importer.import_model(model, name, version)
    assert repository.list_models() == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("my model (2)", "my-model-2"),
        ("_x.", "x"),
        ("é" * 3 + "a" * 200, "a" * 96),
    ],
)
def test_valid_names(text: str, name: str) -> None:
    assert valid_name(text) == name


@pytest.mark.parametrize("text", ["", "...", "v1.2.0", "task", "日本"])
def test_names_that_need_a_person(text: str) -> None:
    with pytest.raises(InvalidInput, match="give the model a name"):
        valid_name(text)


@pytest.mark.parametrize(
    ("versions", "following"),
    [
        ([], "v1.0.0"),
        (["v1.0.0"], "v1.1.0"),
        (["v0.9.3", "v0.10.7"], "v0.11.0"),
        (["v1.0.0", "v2.0.0-rc.1"], "v2.0.0"),
        (["v1.2.0-rc.1", "v1.2.0"], "v1.3.0"),
    ],
)
def test_next_versions(versions: list[str], following: str) -> None:
    assert str(next_version(map(Version.parse, versions))) == following
