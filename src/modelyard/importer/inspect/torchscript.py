"""TorchScript: a zip that holds `<root>/code/…` and `<root>/constants.pkl`, read by torch's own restricted loader."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection

from modelyard.importer.inspect import card
from modelyard.importer.inspect.folder import Folder
from modelyard.repository.manifest import ModelInfo


def describe(folder: Folder) -> ModelInfo | None:
    if not any(_is_torchscript(folder, path) for path in sorted(folder.files) if path not in folder.pickles):
        return None
    said = card.read(folder)
    return ModelInfo(
        task=said.task, format="torchscript", framework="pytorch", languages=said.languages, license=said.license
    )


def root(names: Collection[str]) -> str | None:
    """The folder inside the archive, when its members are those of a TorchScript file."""
    roots = [name.removesuffix("/constants.pkl") for name in names if name.count("/") == 1 and "/constants.pkl" in name]
    if len(roots) != 1 or not any(name.startswith(f"{roots[0]}/code/") for name in names):
        return None
    return roots[0]


def own_member(name: str, of: str) -> bool:
    """Whether a member belongs to the format itself: torch reads it without running what a pickle could ask for."""
    inside = name.removeprefix(f"{of}/")
    return re.fullmatch(r"(data|constants|bytecode)\.pkl|(data|constants)/\d+|code/.*\.debug_pkl", inside) is not None


def _is_torchscript(folder: Folder, path: str) -> bool:
    with folder.files[path].open() as stream:
        if stream.read(4) != b"PK\x03\x04":
            return False
        try:
            with zipfile.ZipFile(stream) as archive:
                return root(archive.namelist()) is not None
        except zipfile.BadZipFile:
            return False
