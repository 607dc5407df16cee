"""What a folder holds, found out from headers and small JSON files: weights are never loaded, pickles never run.

A new format is one file with one function and one line in FORMATS. Knows nothing of the repository or of engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from modelyard.importer.inspect import (
    code,
    custom,
    gguf,
    judge,
    modelscan,
    onnx,
    pickles,
    safetensors,
    sentence_transformers,
    skops,
    torchscript,
    transformers,
)
from modelyard.importer.inspect.folder import Folder
from modelyard.importer.inspect.pickles import Found
from modelyard.repository.manifest import Inspection, ModelInfo, PicklePolicy
from modelyard.store.files import File, LocalFile, scan


class Inspector(Protocol):
    """One format: what the folder's model is, or None when it is of another format.

    Raises InvalidInput for a file that is of this format and broken.
    """

    def __call__(self, folder: Folder, /) -> ModelInfo | None: ...


FORMATS: tuple[Inspector, ...] = (
    custom.describe,  # first: beside handler.py lie weights of any format
    sentence_transformers.describe,
    transformers.describe,
    gguf.describe,
    onnx.describe,
    torchscript.describe,
    skops.describe,
    safetensors.describe,
)


def inspect(folder: Path, *, policy: PicklePolicy = "allow-listed") -> Inspection:
    """The model in a folder (or in one file) and what its files hold. Raises NotFound and InvalidInput."""
    return inspect_files(scan(folder), policy=policy)


def inspect_files(
    files: Sequence[File], *, policy: PicklePolicy = "allow-listed", modelscan_command: str | None = None
) -> Inspection:
    """The same for files that may lie anywhere. The first format that recognises them describes them."""
    found = pickles.find({file.path: file for file in files})
    scanners = judge.scanners() if found else {}
    if modelscan_command:
        scanners |= _ask_modelscan(modelscan_command, files, found)
    view = Folder({file.path: file for file in files}, frozenset(found))
    for path in view.named(".safetensors"):
        safetensors.check(view, path)
    described = (describe(view) for describe in FORMATS)
    fallback = ModelInfo(format="pickle") if found else ModelInfo()
    model = next((info for info in described if info is not None), fallback)
    code.note(view)
    return Inspection(
        model,
        {path: pickle.reason for path, pickle in found.items()},
        _refused(found, policy) | ({} if policy == "any" else code.refused(view)),
        view.notes,
        policy,
        scanners,
    )


def _ask_modelscan(command: str, files: Sequence[File], found: dict[str, Found]) -> dict[str, str]:
    """Its objections go into `found`; returns its version, if it was asked."""
    asked = {}
    for file in files:
        if isinstance(file, LocalFile) and file.path in found and found[file.path].problem is None:
            problem, asked["modelscan"] = modelscan.ask(command, file.source)
            found[file.path] = replace(found[file.path], problem=problem)
    return asked


def _refused(found: dict[str, Found], policy: PicklePolicy) -> dict[str, str]:
    """What the policy does not take, and why; a pickle that is mere data is only refused where none is wanted."""
    if policy == "any":
        return {}
    unwanted = "pickles are not taken here" if policy == "none" else None
    problems = {path: pickle.problem or unwanted for path, pickle in found.items()}
    return {path: f"a pickle ({found[path].reason}; {why})" for path, why in problems.items() if why}
