"""What can be searched of a version: its manifest as a flat list of paths and values, and a text that sorts versions.

Knows manifests, neither conditions nor how facts are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from modelyard.refs import Version
from modelyard.repository.manifest import ModelInfo, ModelVersion

Scalar = str | int | float

# What inspection found is named as it is; where it found nothing, the caller's metadata of that name counts.
FIELDS = frozenset(field.name for field in fields(ModelInfo)) - {"signature"}
_OWN = ("metadata", "lineage")

_MOST = 1000  # values of one version
_LONGEST = 1000  # characters of a text
_INTEGERS = range(-(2**63), 2**63)


def path_of(text: str) -> str:
    """The path of a fact, as people write it: `metrics.f1` means `metadata.metrics.f1`."""
    return text if text in FIELDS or text.partition(".")[0] in _OWN else f"metadata.{text}"


def facts_of(version: ModelVersion) -> list[tuple[str, Scalar]]:
    """Path and value, each once. Each element of a list is a value of the list's path; the first 1,000 values count."""
    found: dict[tuple[str, str, Scalar], None] = {}
    for path, value in _facts(version):
        if len(found) == _MOST:
            break
        found[path, type(value).__name__, value] = None
    return [(path, value) for path, _, value in found]


def _facts(version: ModelVersion) -> Iterator[tuple[str, Scalar]]:
    for name in sorted(FIELDS):
        value = getattr(version.model, name)
        yield from _flat(name, version.metadata.get(name) if value is None else value)
    yield from _flat("lineage", version.lineage)
    yield from _flat("metadata", version.metadata)


def _flat(path: str, value: Any) -> Iterator[tuple[str, Scalar]]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _flat(f"{path}.{key}", inner)
        case list() | tuple():
            for inner in value:
                yield from _flat(path, inner)
        case bool():
            yield path, str(value).lower()
        case str():
            yield path, value[:_LONGEST]
        case int():
            yield path, number(value)
        case float() if not math.isnan(value):
            yield path, value


def number(value: int) -> int | float:
    """The nearest number that a 64-bit integer or float can hold."""
    if value in _INTEGERS:
        return value
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def order_key(version: Version) -> str:
    """A text for each version; texts sort as the versions do."""
    head = f"{version.major:018d}.{version.minor:018d}.{version.patch:018d}"
    if not version.prerelease:
        return f"{head}~"
    labels = (f"0{int(label):018d}" if label.isdigit() else f"1{label}" for label in version.prerelease)
    return "\x01".join((head, *labels))
