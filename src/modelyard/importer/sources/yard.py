"""Versions of another modelyard, out of its store: digest, metadata and lineage stay what they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from modelyard.errors import InvalidInput
from modelyard.importer.sources.source import Fetched, Listed
from modelyard.repository import ModelRepository
from modelyard.store import open_store
from modelyard.store.objects import ObjectFile

_SCHEME = "yard+"


class YardSource:
    example = "yard+s3://bucket/prefix#name:v1.2.0"

    def matches(self, source: str) -> bool:
        return source.startswith(_SCHEME)

    @contextmanager
    def open(self, source: str) -> Iterator[Fetched]:
        url, _, ref = source.removeprefix(_SCHEME).rpartition("#")
        if not url or not ref:
            raise InvalidInput(f"{source} names no model in a store", remedy=f"write {self.example}")
        repository = ModelRepository(open_store(url))
        version = repository.resolve(ref)
        files = [ObjectFile(repository.storage, f.key, f.path, f.size, f.sha256) for f in version.files]
        yield Fetched(files, version.name, str(version.version), version.metadata, version.lineage)

    def list(self, source: str) -> Iterator[Listed]:
        """No pins: the manifest, which `open` reads, has the digest of every file."""
        url, _, name = source.removeprefix(_SCHEME).partition("#")
        repository = ModelRepository(open_store(url))
        for each in [name] if name else repository.list_models():
            record = repository.record(each)
            for version in repository.list_models(each):
                yanked = record.yanked.get(version)
                yield Listed(
                    f"{_SCHEME}{url}#{each}:{version}",
                    each,
                    version,
                    tags=tuple(record.tagged(version)),
                    why="" if yanked is None else f"it is yanked there: {yanked}",
                )


def yard_address(url: str) -> str:
    """How a store's address is written to mean the modelyard in it."""
    return f"{_SCHEME}{url}"
