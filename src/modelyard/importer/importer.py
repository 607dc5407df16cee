"""Bringing a model into the repository: fetch it from its source, name and number it, register it.

Knows neither formats nor pickles: the repository inspects what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from modelyard.errors import InvalidInput, NotFound
from modelyard.importer.sources import source_of
from modelyard.refs import Version, parse_name
from modelyard.repository import ModelRepository, ModelVersion


class ModelImporter:
    """Imports into one repository."""

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository

    def import_model(
        self,
        source: str | Path,
        name: str | None = None,
        version: str | None = None,
        *,
        metadata: dict[str, Any] | None = None,
        tags: Sequence[str] = (),
        trust_pickle: str | None = None,
    ) -> ModelVersion:
        """Register what a source holds, under its own name and the next version where none are given.

        `metadata` wins over what the source says of itself. `trust_pickle` is the reason why files that hold pickles
        may be stored all the same. Raises what the source and `ModelRepository.register_model` raise.
        """
        address = str(source)
        with source_of(address).open(address) as fetched:
            model_name = parse_name(name) if name else valid_name(fetched.name)
            return self._repository.register_model(
                model_name=model_name,
                model_version=version or str(next_version(self._versions(model_name))),
                artifacts_path=fetched.folder,
                metadata=fetched.metadata | (metadata or {}),
                tags=tags,
                trust_pickle=trust_pickle,
            )

    def _versions(self, name: str) -> list[Version]:
        try:
            return [Version.parse(text) for text in self._repository.list_models(name)]
        except NotFound:
            return []


def next_version(versions: Iterable[Version]) -> Version:
    """v1.0.0 for a new model, the release of a prerelease, else the next minor version of the highest."""
    highest = max(versions, default=None)
    if highest is None:
        return Version(1, 0, 0)
    if highest.prerelease:
        return Version(highest.major, highest.minor, highest.patch)
    return Version(highest.major, highest.minor + 1, 0)


def valid_name(text: str) -> str:
    """A model name made of what a file or folder is called. Raises InvalidInput when too little of it is left."""
    allowed = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")
    try:
        return parse_name(allowed[:96].rstrip(".-"))
    except InvalidInput:
        raise InvalidInput(f"can't make a model name of {text!r}", remedy="give the model a name") from None
