"""In which numbers a model computes, and by which library: what its metadata declare under `serving`.

They belong to the version, so what is validated is what is served, wherever that is.
"""

from __future__ import annotations

from typing import Any, get_args

from modelyard.errors import InvalidInput
from modelyard.repository.declared import Backend, Precision
from modelyard.repository.manifest import ModelVersion


def declared_precision(version: ModelVersion) -> Precision:
    """`fp32` unless declared otherwise. Raises InvalidInput."""
    precision: Precision = _declared(version, "precision", get_args(Precision)) or "fp32"
    return precision


def declared_backend(version: ModelVersion) -> Backend | None:
    """None: whatever suits the files and the precision. Raises InvalidInput."""
    backend: Backend | None = _declared(version, "backend", get_args(Backend))
    return backend


def _declared(version: ModelVersion, key: str, known: tuple[str, ...]) -> Any:
    serving = version.metadata.get("serving", {})
    value = serving.get(key) if isinstance(serving, dict) else serving
    if value is not None and value not in known:
        raise InvalidInput(
            f"{version.name}:{version.version} declares serving.{key} as {value!r}",
            remedy=f"register a version with --set serving.{key}= one of {', '.join(known)}",
        )
    return value
