"""What differs between two versions: files, what inspection found, metadata, lineage. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modelyard.repository.manifest import ModelVersion


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs; None stands for what is not there. `what` is a path or a dotted key."""

    kind: Literal["file", "model", "metadata", "lineage"]
    what: str
    old: Any
    new: Any


def compare(old: ModelVersion, new: ModelVersion) -> list[Difference]:
    """All differences, by kind, then by name. A file is told by its sha256, other things by their JSON values."""
    a, b = _facts(old), _facts(new)
    return [
        Difference(kind, what, before, after)
        for kind in ("file", "model", "metadata", "lineage")
        for what in sorted(a[kind].keys() | b[kind].keys())
        if _text(before := a[kind].get(what)) != _text(after := b[kind].get(what))
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted keys; lists and empty objects stay as they are."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _facts(version: ModelVersion) -> dict[str, dict[str, Any]]:
    manifest = json.loads(version.to_json())
    return {
        "file": {file.path: {"size": file.size, "sha256": file.sha256} for file in version.files},
        "model": flatten(manifest["model"]),
        "metadata": flatten(version.metadata),
        "lineage": dict(version.lineage),
    }


def _text(value: Any) -> str:
    """In Python 1 == True == 1.0, in JSON they differ."""
    return json.dumps(value, sort_keys=True)
