"""Which files hold pickles, and why that is said of them: by content first, whatever the file is called.

Unpickling runs whatever code the file asks for, so nothing here unpickles. Knows nothing of who trusts whom.
"""

from __future__ import annotations

import ast
import io
import re
import warnings
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, cast

from modelyard.errors import InvalidInput
from modelyard.importer.inspect import containers, opcodes
from modelyard.importer.inspect.folder import broken
from modelyard.importer.inspect.opcodes import WINDOW
from modelyard.store.files import File

_NAMED = (".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".ckpt")
_DEEPEST = 4
_NPY = b"\x93NUMPY"
_NPY_HEADER_LIMIT = 64 << 10


def find(files: Mapping[str, File]) -> dict[str, str]:
    """Relative path → reason, for the files that hold pickles. Raises InvalidInput for broken archives."""
    with warnings.catch_warnings():
        # Text read as opcodes has "invalid escape sequences"; nobody wrote them as such.
        warnings.simplefilter("ignore", DeprecationWarning)
        reasons = {path: _in_file(file, path) for path, file in sorted(files.items())}
    return {path: reason for path, reason in reasons.items() if reason}


def _in_file(file: File, path: str) -> str | None:
    with io.BufferedReader(cast(Any, file.open().detach()), WINDOW) as stream:
        head = stream.peek(WINDOW)[:WINDOW]
        found = _reason(stream, containers.Budget(path), 0)
        if found or not path.lower().endswith(_NAMED) or head.startswith(b"PK"):
            return found  # a zip was looked into member by member
    return f"named {PurePosixPath(path).suffix}, and what it holds is not known to be anything else"


def _reason(stream: io.BufferedReader, budget: containers.Budget, depth: int) -> str | None:
    head = stream.peek(WINDOW)[:WINDOW]
    if found := opcodes.reason(head):
        return found
    if head.startswith(_NPY):
        return "NumPy array of Python objects" if _npy_holds_objects(head, budget.where) else None
    for name, content in containers.members(stream, head, budget):
        if depth == _DEEPEST:
            raise InvalidInput(
                f"{budget.where} holds archives within archives, deeper than {_DEEPEST}", remedy="unpack it first"
            )
        if found := _reason(content, budget, depth + 1):
            return f"{found}, in {name}" if name else f"{found}, compressed"
    return None


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
