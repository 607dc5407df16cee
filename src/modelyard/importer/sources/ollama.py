"""Models that Ollama has pulled onto this machine: its manifests and blobs, read where they lie.

The weights become a .gguf file; what Ollama keeps beside them (parameters, template, system prompt, license) becomes
metadata. Blobs are named by their sha256, which is checked when they are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from modelyard.errors import IntegrityError, InvalidInput, NotFound, Refused
from modelyard.importer.sources.source import Fetched, Listed
from modelyard.store.documents import problem
from modelyard.store.files import LocalFile

_REGISTRY, _LIBRARY = "registry.ollama.ai", "library"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,254}(?::\d{1,5})?")
_LAYER = "application/vnd.ollama.image."
_MOST_BYTES = 1 << 20  # of anything that is no weights
_PULL = "run `ollama pull` again"


class OllamaSource:
    example = "ollama://name:tag"

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def matches(self, source: str) -> bool:
        return source.startswith("ollama://")

    @contextmanager
    def open(self, source: str) -> Iterator[Fetched]:
        name, root = _Name.parse(source), self._folder or _folder()
        path = root / "manifests" / name.path
        if not path.is_file():
            raise NotFound(
                f"Ollama has no model {name} in {root}", remedy=f"see `ollama list`, or `ollama pull {name}`"
            )
        manifest = _parse(_Manifest, _beginning(path), "its manifest")
        blobs = _Blobs(root / "blobs")
        files = _files(manifest, blobs, name)
        kept = {"name": str(name), **_described(manifest, blobs)}
        said = {"source": {"kind": "ollama", "model": str(name)}, "ollama": kept}
        yield Fetched(files, name.readable, metadata=said)

    def list(self, source: str) -> Iterator[Listed]:
        """Ollama knows no versions: each name and tag is the first version of a model."""
        wanted = source.removeprefix("ollama://")
        manifests = (self._folder or _folder()) / "manifests"
        for path in sorted(manifests.glob("*/*/*/*")):
            parts = path.relative_to(manifests).parts
            if path.is_file() and not any(part.startswith(".") for part in parts):
                name = _Name(*parts)
                if wanted in ("", name.model):
                    yield Listed(f"ollama://{name}", name.readable, "v1.0.0")


@dataclass(frozen=True, slots=True)
class _Name:
    """A model as Ollama names it: [host/][namespace/]model[:tag]."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, source: str) -> _Name:
        *before, last = source.removeprefix("ollama://").split("/")
        model, colon, tag = last.partition(":")
        host, namespace = ([_REGISTRY, _LIBRARY][: 2 - len(before)] + before)[:2]
        name = cls(host, namespace, model, tag if colon else "latest")
        parts = (name.namespace, name.model, name.tag)
        if len(before) > 2 or not _HOST.fullmatch(host) or not all(map(_PART.fullmatch, parts)):
            raise InvalidInput(f"{source} names no model of Ollama", remedy="write ollama://name or ollama://name:tag")
        return name

    @property
    def path(self) -> str:
        return "/".join((self.host, self.namespace, self.model, self.tag))

    @property
    def readable(self) -> str:
        """A name for the model here. Tags tell sizes and quantizations apart: each is a model of its own."""
        return self.model if self.tag == "latest" else f"{self.model}-{self.tag}"

    def __str__(self) -> str:
        shown = [self.model] if self.namespace == _LIBRARY else [self.namespace, self.model]
        return "/".join(shown if self.host == _REGISTRY else [self.host, self.namespace, self.model]) + f":{self.tag}"


class _Layer(BaseModel):
    media: str = Field(alias="mediaType")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0)

    @property
    def kind(self) -> str:
        return self.media.removeprefix(_LAYER)


class _Manifest(BaseModel):
    config: _Layer
    layers: list[_Layer] = Field(max_length=1000)


class _Config(BaseModel):
    format: str = Field("gguf", alias="model_format")


@dataclass(frozen=True, slots=True)
class _Blobs:
    folder: Path

    def path(self, layer: _Layer) -> Path:
        """Raises IntegrityError for a blob that is not there as a whole."""
        path = self.folder / layer.digest.replace(":", "-")
        size = path.stat().st_size if path.is_file() else 0
        if size != layer.size:
            raise IntegrityError(f"Ollama holds {size} of {layer.size} bytes of {path.name}", remedy=_PULL)
        return path

    def content(self, layer: _Layer) -> bytes:
        """A small one, as a whole."""
        path = self.path(layer)
        if layer.size > _MOST_BYTES:
            raise InvalidInput(f"a {layer.kind} of {layer.size} bytes is none", remedy=_PULL)
        data = path.read_bytes()
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != layer.digest:
            raise IntegrityError(f"Ollama's {path.name} is not what its name says", remedy=_PULL)
        return data


def _folder() -> Path:
    """Where Ollama keeps its models: as it decides itself, or as its service on Linux does."""
    if said := os.environ.get("OLLAMA_MODELS"):
        return Path(said).expanduser()
    own, service = Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")
    return service if service.is_dir() and not own.is_dir() else own


def _files(manifest: _Manifest, blobs: _Blobs, name: _Name) -> list[LocalFile]:
    of = {
        kind: [layer for layer in manifest.layers if layer.kind == kind] for kind in ("model", "projector", "adapter")
    }
    format = _parse(_Config, blobs.content(manifest.config), "its configuration").format
    if format != "gguf":
        raise Refused(f"{name} is in the format {format!r}", remedy="import it from where it was made")
    if of["adapter"]:
        raise Refused(f"{name} is an adapter on top of another model", remedy="merge the two, or import the other one")
    if len(of["model"]) != 1 or len(of["projector"]) > 1:
        raise Refused(f"{name} has {len(of['model'])} files of weights", remedy="import it from where it was made")
    return [
        *_named(of["projector"], f"mmproj-{name.readable}.gguf", blobs),
        *_named(of["model"], f"{name.readable}.gguf", blobs),
    ]


def _named(layers: Sequence[_Layer], name: str, blobs: _Blobs) -> list[LocalFile]:
    return [LocalFile(blobs.path(each), name, each.size, each.digest.removeprefix("sha256:")) for each in layers]


def _described(manifest: _Manifest, blobs: _Blobs) -> dict[str, Any]:
    """What there is of parameters, template, system prompt, messages and licenses."""
    found: dict[str, Any] = {}
    for layer in manifest.layers:
        match layer.kind:
            case "template" | "system" | "prompt":
                found[layer.kind] = blobs.content(layer).decode(errors="replace")
            case "license":
                found.setdefault("license", []).append(blobs.content(layer).decode(errors="replace"))
            case "params" | "messages":
                found[layer.kind] = _json(blobs.content(layer), f"its {layer.kind}")
    return found


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise InvalidInput(f"{path} can't be read: {error.strerror}", remedy="mend its permissions") from error


def _parse(kind: type[Any], data: bytes, what: str) -> Any:
    try:
        return kind.model_validate(_json(data, what))
    except ValidationError as error:
        raise InvalidInput(f"Ollama's model can't be read: {what}: {problem(error)}", remedy=_PULL) from error


def _json(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidInput(f"Ollama's model can't be read: {what} is not JSON", remedy=_PULL) from None
