"""ONNX weights that lie in files of their own: each must be one of the model's files, and as long as is said.

A location may stand in any tensor: of the graph, of a node's attribute, of a function or of a training step.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from modelyard.importer.inspect.folder import Folder, broken
from modelyard.importer.inspect.protobuf import Message, Source

# Message → field → the message that stands there, as far as tensors can be reached through it.
_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA = 13
_DEEPEST = 64


def check(folder: Folder, path: str) -> None:
    """Raises InvalidInput for weights outside of the folder, missing ones, and files that are too short for them."""
    file = folder.files[path]
    with file.open() as stream:
        for entries in _entries(Message(Source(stream, path), 0, file.size), "model", 0):
            _check(folder, path, entries)


def _check(folder: Folder, path: str, entries: dict[str, str]) -> None:
    location = entries.get("location", "")
    where = posixpath.normpath(posixpath.join(posixpath.dirname(path), location))
    if not location or "\\" in location or ":" in location or location.startswith("/") or where.startswith(".."):
        raise broken(path, f"its weights lie in {location[:200]!r}, outside of the model's folder")
    if where not in folder.files:
        raise broken(path, f"its weights lie in {location[:200]!r}, which is not there")
    numbers = {key: entries.get(key, "0") for key in ("offset", "length")}
    if not all(number.isdecimal() for number in numbers.values()):
        raise broken(path, f"its weights in {location[:200]!r} have no place there")
    end = sum(int(number[:20]) for number in numbers.values())
    if end > folder.files[where].size:
        raise broken(path, f"its weights need {end} bytes of {location[:200]!r}, {folder.files[where].size} are there")


def _entries(message: Message, kind: str, depth: int) -> Iterator[dict[str, str]]:
    """The entries of every tensor that has its numbers elsewhere."""
    if depth > _DEEPEST:
        raise broken(message.file.where, "its graphs are nested too deeply")
    if kind == "tensor":
        if found := dict(_pair(entry) for entry in message.messages(_EXTERNAL_DATA)):
            yield found
        return
    for number, value in message.fields():
        part = _PARTS[kind].get(number)
        if part is None or not isinstance(value, Message):
            continue
        # Nodes are many and hardly ever hold such a tensor, which can't do without this word.
        if part == "node" and not value.mentions(b"location"):
            continue
        yield from _entries(value, part, depth + 1)


def _pair(entry: Message) -> tuple[str, str]:
    texts = {number: value.text() for number, value in entry.fields() if isinstance(value, Message)}
    return texts.get(1, ""), texts.get(2, "")
