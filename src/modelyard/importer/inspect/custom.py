"""Custom handlers: a handler.py with a class that has `setup` and `predict`. It is parsed, never run."""

from __future__ import annotations

import ast
import warnings

from modelyard.importer.inspect import card
from modelyard.importer.inspect.folder import Folder
from modelyard.repository.manifest import ModelInfo

FILE = "handler.py"
NEEDED = frozenset({"setup", "predict"})
_LIMIT = 1 << 20


def describe(folder: Folder) -> ModelInfo | None:
    """None for a handler.py of another kind, such as those that Hugging Face's endpoints take."""
    if FILE not in folder.files or FILE in folder.pickles or not _handlers(folder):
        return None
    folder.notes[FILE] = "Python code, which runs when the model is served; that needs serving.trust_code"
    said = card.read(folder)
    return ModelInfo(task=said.task, format="custom", languages=said.languages, license=said.license)


def _handlers(folder: Folder) -> list[str]:
    with folder.files[FILE].open() as stream:
        source = stream.read(_LIMIT + 1)
    return handlers(source) if len(source) <= _LIMIT else []


def handlers(source: bytes) -> list[str]:
    """The names of the classes, at the top of the file, that define what a handler needs; none if it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef) and _methods(node) >= NEEDED]


def _methods(node: ast.ClassDef) -> set[str]:
    return {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
