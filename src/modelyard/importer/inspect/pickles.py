"""Which files hold pickles, why that is said of them, and whether they are data alone: by content, whatever the name.

Unpickling runs whatever code the file asks for, so nothing here unpickles (judge.py). Knows nothing of who trusts whom.
"""

from __future__ import annotations

import ast
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, cast

from modelyard.errors import InvalidInput
from modelyard.importer.inspect import containers, judge, opcodes
from modelyard.importer.inspect.folder import broken
from modelyard.importer.inspect.opcodes import WINDOW
from modelyard.store.files import File

_NAMED = (".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".ckpt")
_DEEPEST = 4
_NPY = b"\x93NUMPY"
_NPY_HEADER_LIMIT = 64 << 10


@dataclass(frozen=True, slots=True)
class Found:
    """A pickle in a file: why it is taken for one and where it lies; why it is more than data, or None if it isn't."""

    reason: str
    problem: str | None

    def within(self, name: str) -> Found:
        return replace(self, reason=f"{self.reason}, in {name}" if name else f"{self.reason}, compressed")


def find(files: Mapping[str, File]) -> dict[str, Found]:
    """Relative path → pickle, for the files that hold any. Raises InvalidInput for broken archives.

    Of several in a file that one counts which is more than data.
    """
    with warnings.catch_warnings():
        # Text read as opcodes has "invalid escape sequences"; nobody wrote them as such.
        warnings.simplefilter("ignore", DeprecationWarning)
        pickles = {path: _in_file(file, path) for path, file in sorted(files.items())}
    return {path: found for path, found in pickles.items() if found}


def _in_file(file: File, path: str) -> Found | None:
    with io.BufferedReader(cast(Any, file.open().detach()), WINDOW) as stream:
        return _look(stream, path, containers.Budget(path), 0)


def _look(stream: io.BufferedReader, name: str, budget: containers.Budget, depth: int) -> Found | None:
    head = stream.peek(WINDOW)[:WINDOW]
    if reason := opcodes.reason(head):
        return Found(reason, judge.refusal(stream))
    if head.startswith(_NPY):
        return _in_array(stream, head, budget.where)
    found = _in_members(stream, head, budget, depth)
    if found or not name.lower().endswith(_NAMED) or head.startswith(b"PK"):
        return found  # a zip was looked into member by member
    why = f"named {PurePosixPath(name).suffix}, and what it holds is not known to be anything else"
    return Found(why, "what can't be looked into can't be taken for data")


def _in_members(stream: io.BufferedReader, head: bytes, budget: containers.Budget, depth: int) -> Found | None:
    first = None
    for name, content in containers.members(stream, head, budget):
        if depth == _DEEPEST:
            raise InvalidInput(
                f"{budget.where} holds archives within archives, deeper than {_DEEPEST}", remedy="unpack it first"
            )
        found = _look(content, name, budget, depth + 1)
        if found and found.problem:
            return found.within(name)
        first = first or (found and found.within(name))
    return first


def _in_array(stream: io.BufferedReader, head: bytes, where: str) -> Found | None:
    if not _npy_holds_objects(head, where):
        return None
    width = 2 if head[6:7] == b"\x01" else 4
    length = int.from_bytes(head[8 : 8 + width], "little")
    if length > _NPY_HEADER_LIMIT:
        return Found("NumPy array of Python objects", "its header is longer than NumPy takes")
    stream.read(8 + width + length)
    return Found("NumPy array of Python objects", judge.refusal(stream))


def _npy_holds_objects(head: bytes, where: str) -> bool:
    """Format: numpy.lib.format; arrays of dtype object are pickled."""
    width = 2 if head[6:7] == b"\x01" else 4
    length = int.from_bytes(head[8 : 8 + width], "little")
    header = head[8 + width : 8 + width + length]
    if len(header) < min(length, _NPY_HEADER_LIMIT) or len(head) < 8 + width:
        raise broken(where, "its NumPy header ends early")
    if length > _NPY_HEADER_LIMIT:
        return True  # NumPy refuses such a header too, unless it is told to unpickle
    try:
        # Python 2 wrote the lengths of a shape as 3L.
        described = ast.literal_eval(re.sub(r"(?<=\d)L(?=[,)])", "", header.decode("latin-1")).strip())
        return _is_object(described["descr"])
    except (ValueError, SyntaxError, TypeError, LookupError, RecursionError, MemoryError):
        raise broken(where, "its NumPy header is malformed") from None


def _is_object(descr: Any) -> bool:
    """Whether a dtype as NumPy writes it, plain or structured, has objects in it."""
    match descr:
        case str():
            return "O" in descr or "object" in descr.lower()
        case [*fields] if isinstance(descr, list):
            return any(_is_object(field[1]) for field in fields)
        case (base, _):
            return _is_object(base)
    raise ValueError(descr)
