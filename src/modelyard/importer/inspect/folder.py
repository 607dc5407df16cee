"""The files of a model as the inspectors see them, and bounded reading of the small ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from modelyard.errors import InvalidInput
from modelyard.store.files import File

_JSON_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class Folder:
    """Relative path → file. Files that hold pickles are listed, and never handed out for reading.

    `notes` collects what whoever looks at a file finds worth a remark: path → remark.
    """

    files: dict[str, File]
    pickles: frozenset[str] = field(default_factory=frozenset)
    notes: dict[str, str] = field(default_factory=dict)

    def named(self, *suffixes: str) -> list[str]:
        """The paths with one of these endings that hold no pickles, sorted."""
        return sorted(p for p in self.files if p.lower().endswith(suffixes) and p not in self.pickles)

    def top(self, *suffixes: str) -> list[str]:
        """Those of `named` that lie in the folder itself."""
        return [path for path in self.named(*suffixes) if "/" not in path]

    def object(self, path: str) -> dict[str, Any]:
        """A JSON file that holds an object; {} when there is no such file."""
        found = self.json(path)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise broken(path, "it does not hold a JSON object")
        return found

    def json(self, path: str) -> Any:
        """A JSON file; None when there is no such file. Raises InvalidInput when it is broken or far too large."""
        file = self.files.get(path)
        if file is None or path in self.pickles:
            return None
        with file.open() as stream:
            data = stream.read(_JSON_LIMIT + 1)
        if len(data) > _JSON_LIMIT:
            raise broken(path, f"it is longer than {_JSON_LIMIT >> 20} MB")
        return parse_json(data, path)


def parse_json(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise broken(where, "it is not valid JSON") from None


def broken(path: str, why: str) -> InvalidInput:
    """A file of a known format that can't be what it says it is."""
    return InvalidInput(f"{path} can't be read: {why}", remedy="get the file again from where it came")


def whole(value: Any) -> int | None:
    """A positive whole number out of a configuration, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def text(value: Any) -> str | None:
    """A non-empty string out of a configuration, or None."""
    return value if isinstance(value, str) and value else None
