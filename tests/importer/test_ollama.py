"""Importing what Ollama has pulled, from a folder as Ollama lays it out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import IntegrityError, InvalidInput, ModelyardError, NotFound, Refused
from modelyard.importer import ModelImporter
from modelyard.importer.inspect import inspect_files
from modelyard.importer.sources.ollama import OllamaSource
from modelyard.repository import ModelRepository
from modelyard.store import Cache, Memory

from . import builders

WEIGHTS = builders.gguf({"general.architecture": "llama", "llama.context_length": 8192, "general.file_type": 15})
EYE = builders.gguf({"general.architecture": "clip"})
Layers = list[dict[str, Any]]


class Ollama:
    """A folder of models."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)

    def blob(self, kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self.root / "blobs" / f"sha256-{digest}").write_bytes(data)
        return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def model(self, path: str, layers: Layers, *, config: bytes = b'{"model_format": "gguf"}') -> None:
        manifest = {"schemaVersion": 2, "config": self.blob("config", config), "layers": layers}
        self.write(path, json.dumps(manifest).encode())

    def write(self, path: str, manifest: bytes) -> None:
        file = self.root / "manifests" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(manifest)


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ollama:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    return Ollama(tmp_path / "models")


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(Memory(), cache=Cache(tmp_path / "cache"), inspect=inspect_files, user="ada")


@pytest.fixture
def importer(repository: ModelRepository) -> ModelImporter:
    return ModelImporter(repository)


def test_a_model_with_all_that_belongs_to_it(
    importer: ModelImporter, repository: ModelRepository, ollama: Ollama
) -> None:
    layers = [
        ollama.blob("model", WEIGHTS),
        ollama.blob("projector", EYE),
        ollama.blob("template", b"{{ .Prompt }}"),
        ollama.blob("system", b"Be brief."),
        ollama.blob("params", b'{"temperature": 0.2, "stop": ["<end>"]}'),
        ollama.blob("license", b"First license"),
        ollama.blob("license", b"Second license"),
    ]
    ollama.model("registry.ollama.ai/library/llama3.2/1b", layers)
    version = importer.import_model("ollama://llama3.2:1b")
    assert (version.name, str(version.version)) == ("llama3.2-1b", "v1.0.0")
    assert (version.model.format, version.model.quantization, version.model.context_length) == ("gguf", "Q4_K_M", 8192)
    assert version.metadata["ollama"] == {
        "name": "llama3.2:1b",
        "template": "{{ .Prompt }}",
        "system": "Be brief.",
        "params": {"temperature": 0.2, "stop": ["<end>"]},
        "license": ["First license", "Second license"],
    }
    folder = repository.fetch(version)
    assert (folder / "llama3.2-1b.gguf").read_bytes() == WEIGHTS
    assert (folder / "mmproj-llama3.2-1b.gguf").read_bytes() == EYE


@pytest.mark.parametrize(
    ("address", "path", "name"),
    [
        ("ollama://tiny", "registry.ollama.ai/library/tiny/latest", "tiny"),
        ("ollama://ada/tiny:v2", "registry.ollama.ai/ada/tiny/v2", "tiny-v2"),
        ("ollama://hf.co/org/Tiny-GGUF:Q8_0", "hf.co/org/Tiny-GGUF/Q8_0", "Tiny-GGUF-Q8_0"),
        ("ollama://localhost:5000/team/tiny", "localhost:5000/team/tiny/latest", "tiny"),
    ],
)
def test_names(importer: ModelImporter, ollama: Ollama, address: str, path: str, name: str) -> None:
    ollama.model(path, [ollama.blob("model", WEIGHTS)])
    assert importer.import_model(address).name == name
    (listed,) = OllamaSource().list("ollama://")
    assert (listed.address.removesuffix(":latest"), listed.name, listed.version) == (address, name, "v1.0.0")


def test_all_models_are_listed_in_order(ollama: Ollama) -> None:
    for path in ("registry.ollama.ai/library/b/latest", "registry.ollama.ai/library/a/7b", "hf.co/x/a/latest"):
        ollama.model(path, [])
    (ollama.root / "manifests" / "registry.ollama.ai" / "library" / "a" / ".DS_Store").write_bytes(b"")
    assert [each.address for each in OllamaSource().list("ollama://")] == [
        "ollama://hf.co/x/a:latest",
        "ollama://a:7b",
        "ollama://b:latest",
    ]
    assert [each.address for each in OllamaSource().list("ollama://b")] == ["ollama://b:latest"]


def test_the_folder_of_ollama(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    Ollama(tmp_path / ".ollama" / "models").model("registry.ollama.ai/library/tiny/latest", [])
    assert [each.name for each in OllamaSource().list("ollama://")] == ["tiny"]


def damaged(ollama: Ollama, layers: Layers, data: bytes) -> Layers:
    (ollama.root / "blobs" / layers[0]["digest"].replace(":", "-")).write_bytes(data)
    return layers


def changed(layer: dict[str, Any], **changes: Any) -> Layers:
    return [layer | changes]


REFUSED: dict[str, tuple[Callable[[Ollama], Layers], type[ModelyardError], str]] = {
    "adapter": (
        lambda o: [o.blob("model", WEIGHTS), o.blob("adapter", b"lora")],
        Refused,
        "tiny:latest is an adapter on top of another model; merge the two",
    ),
    "no-weights": (lambda o: [o.blob("template", b"x")], Refused, "has 0 files of weights"),
    "tensors": (lambda o: [o.blob("tensor", b"x")], Refused, "has 0 files of weights"),
    "other-bytes": (
        lambda o: damaged(o, [o.blob("model", WEIGHTS)], WEIGHTS[:-1] + b"x"),
        IntegrityError,
        "tiny.gguf is not what its source says it is",
    ),
    "half": (
        lambda o: damaged(o, [o.blob("model", WEIGHTS)], WEIGHTS[:50]),
        IntegrityError,
        r"Ollama holds 50 of \d+ bytes of sha256-.*; run `ollama pull` again",
    ),
    "other-text": (
        lambda o: [*damaged(o, [o.blob("system", b"Be brief.")], b"Be cruel."), o.blob("model", WEIGHTS)],
        IntegrityError,
        "is not what its name says",
    ),
    "path": (
        lambda o: changed(o.blob("model", WEIGHTS), digest="sha256:../../../etc/passwd"),
        InvalidInput,
        "its manifest: layers.0.digest",
    ),
    "negative": (lambda o: changed(o.blob("model", WEIGHTS), size=-1), InvalidInput, "its manifest: layers.0.size"),
    "long-text": (lambda o: [o.blob("model", WEIGHTS), o.blob("system", bytes(2 << 20))], InvalidInput, "is none"),
    "params": (lambda o: [o.blob("model", WEIGHTS), o.blob("params", b"{")], InvalidInput, "its params is not JSON"),
    "no-gguf": (lambda o: [o.blob("model", b"PK\3\4" + b"x" * 100)], InvalidInput, "tiny.gguf"),
    "pickle": (lambda o: [o.blob("model", builders.hostile())], InvalidInput, "tiny.gguf holds a pickle"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(importer: ModelImporter, repository: ModelRepository, ollama: Ollama, case: str) -> None:
    layers, error, why = REFUSED[case]
    ollama.model("registry.ollama.ai/library/tiny/latest", layers(ollama))
    with pytest.raises(error, match=why):
        importer.import_model("ollama://tiny")
    assert builders.left_behind(repository) == []


def test_models_that_are_no_gguf(importer: ModelImporter, ollama: Ollama) -> None:
    ollama.model("registry.ollama.ai/library/tiny/latest", [], config=b'{"model_format": "safetensors"}')
    with pytest.raises(Refused, match="tiny:latest is in the format 'safetensors'"):
        importer.import_model("ollama://tiny")


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b'{"layers": []}', b"[" * 100_000, b" " * (2 << 20)])
def test_broken_manifests(importer: ModelImporter, ollama: Ollama, manifest: bytes) -> None:
    ollama.write("registry.ollama.ai/library/tiny/latest", manifest)
    with pytest.raises(InvalidInput, match="Ollama's model can't be read: its manifest"):
        importer.import_model("ollama://tiny")


@pytest.mark.parametrize(
    "address", ["ollama://", "ollama://..", "ollama://a/b/c/d", "ollama://../x", "ollama://a:", "ollama://a:b/c:d:e"]
)
def test_addresses_that_name_nothing(importer: ModelImporter, ollama: Ollama, address: str) -> None:
    with pytest.raises(InvalidInput, match="names no model of Ollama; write ollama://name"):
        importer.import_model(address)


def test_a_model_that_is_not_there(importer: ModelImporter, ollama: Ollama) -> None:
    with pytest.raises(NotFound, match=r"Ollama has no model nothing:latest in .*; see `ollama list`"):
        importer.import_model("ollama://nothing")
