"""Runtimes: each makes one format of model computable. A new one is a file here and a line in RUNTIMES."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from modelyard.errors import InvalidInput
from modelyard.repository.manifest import ModelVersion, Signature
from modelyard.serving.protocol import Arrays

RUNTIMES = {
    "torchscript": "modelyard.serving.runtimes.torchscript",
    "onnx": "modelyard.serving.runtimes.onnx",
    "sentence-transformers": "modelyard.serving.runtimes.sentence_transformers",
}


class Runtime(Protocol):
    """A loaded model. `infer` is called from one thread only and may be slow.

    An empty signature means that nothing is known: inputs are then passed on in the order given. `infer` may give more
    than the signature's outputs: a text runtime adds `tokens`, INT64 [-1], what each text cost. One that has the
    attribute `takes_bytes`, true, gets BYTES that came as binary data as `bytes`; others get `str`.
    """

    platform: str
    signature: Signature

    def infer(self, inputs: Arrays) -> Arrays: ...


@dataclass(frozen=True, slots=True)
class Row:
    """A row made ready to be computed, and its length in tokens."""

    item: Any
    size: int


@runtime_checkable
class RowRuntime(Runtime, Protocol):
    """A runtime that works in two steps, so that rows of many requests can be computed with others of their length.

    `prepare` is called while others compute; `infer_rows` takes what it made, of any requests, in any order, and gives
    outputs of as many rows, in that order. It is called from `workers` threads at a time.
    """

    workers: int

    def prepare(self, inputs: Arrays) -> Sequence[Row]: ...

    def infer_rows(self, items: Sequence[Any]) -> Arrays: ...


def prepare(version: ModelVersion) -> ModuleType:
    """The module of the runtime for the version's format, with its libraries. Raises InvalidInput and MissingExtra."""
    module = RUNTIMES.get(version.model.format or "")
    if module is None:
        raise InvalidInput(
            f"{version.name}:{version.version} has the format {version.model.format or 'unknown'}",
            remedy=f"the model server serves {', '.join(RUNTIMES)}",
        )
    return import_module(module)


def load(version: ModelVersion, folder: Path) -> Runtime:
    """The runtime for the version's format, with its files loaded. Raises InvalidInput and MissingExtra."""
    runtime: Runtime = prepare(version).load(version, folder)
    return runtime


def only_file(folder: Path, suffixes: tuple[str, ...]) -> Path:
    """The one file with such a suffix; of several, the one called `model`. Raises InvalidInput."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    chosen = found if len(found) == 1 else [path for path in found if path.stem == "model"]
    if len(chosen) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InvalidInput(
            f"a model of this format has one {' or '.join(suffixes)} file; found {names}",
            remedy="keep one, or call the one to serve 'model'",
        )
    return chosen[0]
