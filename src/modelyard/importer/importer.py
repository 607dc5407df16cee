"""Bringing a model into the repository: fetch it from its source, name and number it, register it.

Knows neither formats nor pickles: the repository inspects what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.errors import InvalidInput, NotFound
from modelyard.importer.sources import source_of
from modelyard.refs import Version, parse_name
from modelyard.repository import ModelRepository, ModelVersion
from modelyard.store.files import File, Filter, check_files
from modelyard.store.transfer import Progress, no_progress


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model where it lies, named and numbered, before any of it is moved."""

    name: str
    version: Version
    files: Sequence[File]
    metadata: dict[str, Any]
    lineage: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


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
        files: Filter | None = None,
        trust_pickle: str | None = None,
        progress: Progress = no_progress,
    ) -> ModelVersion:
        """Register what a source holds, under its own name and its own or the next version where none are given.

        `files` chooses some of them. `metadata` wins over what the source says of itself. `trust_pickle` is the reason
        why files that hold pickles may be stored all the same. Raises what the source and `ModelRepository.register`
        raise.
        """
        with self.open(source, name, version, metadata=metadata, files=files) as candidate:
            return self.register(candidate, tags=tags, trust_pickle=trust_pickle, progress=progress)

    @contextmanager
    def open(
        self,
        source: str | Path,
        name: str | None = None,
        version: str | None = None,
        *,
        metadata: dict[str, Any] | None = None,
        files: Filter | None = None,
    ) -> Iterator[Candidate]:
        """What `import_model` would register, for as long as the context lasts. Moves nothing."""
        address = str(source)
        with source_of(address).open(address) as fetched:
            model_name = parse_name(name) if name else valid_name(fetched.name)
            wanted = version or fetched.version
            chosen = (files or Filter()).choose(fetched.files)
            check_files(chosen)
            yield Candidate(
                model_name,
                Version.parse(wanted) if wanted else self.next_version(model_name),
                chosen,
                fetched.metadata | (metadata or {}),
                fetched.lineage,
            )

    def register(
        self,
        candidate: Candidate,
        *,
        tags: Sequence[str] = (),
        trust_pickle: str | None = None,
        progress: Progress = no_progress,
    ) -> ModelVersion:
        """Bring in what `open` gave."""
        return self._repository.register(
            candidate.name,
            candidate.version,
            candidate.files,
            candidate.metadata,
            lineage=candidate.lineage,
            tags=tags,
            trust_pickle=trust_pickle,
            progress=progress,
        )

    def next_version(self, name: str) -> Version:
        """The version that a model of this name gets when none is given; a number that was used is not used again."""
        record = self._repository.record(name)
        used = [Version.parse(text) for text in (*record.deleted, *record.void.values())]
        with suppress(NotFound):
            used += self._repository.versions(name)
        return next_version(used)


def next_version(versions: Iterable[Version]) -> Version:
    """v1.0.0 for a new model, the release of a prerelease, else the next minor version of the highest."""
    highest = max(versions, default=None)
    if highest is None:
        return Version(1, 0, 0)
    if highest.prerelease:
        return Version(highest.major, highest.minor, highest.patch)
    return Version(highest.major, highest.minor + 1, 0)


def valid_name(text: str) -> str:
    """A model name made of what a model is called elsewhere. Raises InvalidInput when too little of it is left."""
    with suppress(InvalidInput):
        return parse_name(text)
    allowed = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")
    try:
        return parse_name(allowed[:96].rstrip(".-"))
    except InvalidInput:
        raise InvalidInput(f"can't make a model name of {text!r}", remedy="give the model a name") from None
