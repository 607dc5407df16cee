"""What a folder holds, found out from headers and small JSON files: weights are never loaded, pickles never opened.

A new format is one file with one function and one line in FORMATS. Knows nothing of the repository or of engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from modelyard.importer.inspect import (
    gguf,
    onnx,
    pickles,
    safetensors,
    sentence_transformers,
    torchscript,
    transformers,
)
from modelyard.importer.inspect.folder import Folder
from modelyard.repository.manifest import Inspection, ModelInfo
from modelyard.store.files import File, scan


class Inspector(Protocol):
    """One format: what the folder's model is, or None when it is of another format.

    Raises InvalidInput for a file that is of this format and broken.
    """

    def __call__(self, folder: Folder, /) -> ModelInfo | None: ...


FORMATS: tuple[Inspector, ...] = (
    sentence_transformers.describe,
    transformers.describe,
    gguf.describe,
    onnx.describe,
    torchscript.describe,
    safetensors.describe,
)


def inspect(folder: Path) -> Inspection:
    """The model in a folder (or in one file) and the files that hold pickles. Raises NotFound and InvalidInput."""
    return inspect_files(scan(folder))


def inspect_files(files: Sequence[File]) -> Inspection:
    """The same for files that may lie anywhere. The first format that recognises them describes them."""
    found = pickles.find({file.path: file for file in files})
    view = Folder({file.path: file for file in files}, frozenset(found))
    for path in view.named(".safetensors"):
        safetensors.check(view, path)
    described = (describe(view) for describe in FORMATS)
    fallback = ModelInfo(format="pickle") if found else ModelInfo()
    return Inspection(next((info for info in described if info is not None), fallback), found)
