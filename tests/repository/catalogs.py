"""Catalogs as writers leave them: manifests with their marks, journals, and how an index is asked about them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any

from modelyard.refs import Version
from modelyard.repository import ModelInfo, ModelVersion, changes
from modelyard.repository.index import Index
from modelyard.repository.manifest import Artifact, content_digest
from modelyard.store import Entry, Journal, Store


def version(name: str, number: str, *, info: ModelInfo | None = None, **metadata: Any) -> ModelVersion:
    created = datetime(2026, 11, 24, tzinfo=UTC)
    new = ModelVersion(
        id=sha256(f"{name} {number} {metadata}".encode()).hexdigest()[:16],
        name=name,
        version=Version.parse(number),
        digest=content_digest(()),
        files=(),
        created_at=created,
        created_by="tester",
        model=info or ModelInfo(task="fill-mask"),
        metadata=metadata,
    )
    files = (Artifact("a.bin", f"models/{name}/{number}/{new.attempt}/a.bin", 10, f"{len(str(metadata)):064x}"),)
    return replace(new, files=files, digest=content_digest(files))


def key_of(new: ModelVersion) -> str:
    return f"versions/{new.name}/{new.version}.json"


def commit(store: Store, name: str, number: str, **fields: Any) -> ModelVersion:
    """As a writer does: the mark, then the manifest."""
    new = version(name, number, **fields)
    changes.mark(store, key_of(new))
    store.put(key_of(new), new.to_json())
    return new


def record(store: Store, name: str, **changed: Any) -> Entry:
    journal = Journal(store, f"catalog/{name.lower()}", announce=partial(changes.mark, store))
    entry = journal.update(lambda state: {"name": name, "tags": {}} | state | changed, by="me", why="")
    assert entry
    return entry


def refs(index: Index, *where: str, **options: Any) -> list[str]:
    return [f"{found.name}:{found.version}" for found in index.search(where, **options)]
