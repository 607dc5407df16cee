"""Attempts to register: each writes under keys of its own and keeps a record of how far it got.

The record lets a later attempt take over what an interrupted one had sent, and tells the garbage collector what may
still be under way. Knows nothing of manifests.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock

from pydantic import TypeAdapter, ValidationError

from modelyard.errors import IntegrityError, NotFound, StoreError
from modelyard.refs import Version
from modelyard.repository.manifest import VersionField
from modelyard.store import Store
from modelyard.store.transfer import Sent

GRACE = timedelta(hours=24)

_PREFIX = "uploads"
_SAVE_EVERY_S = 5


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """What an attempt says of itself: the files it has sent whole, and who made it."""

    name: str
    version: VersionField
    by: str
    files: tuple[Sent, ...] = ()


@dataclass(frozen=True, slots=True)
class Left:
    """The record of an attempt that is under way or was interrupted, and when it was last written."""

    id: str
    modified: datetime
    record: AttemptRecord

    @property
    def key(self) -> str:
        return record_key(self.id)

    @property
    def prefix(self) -> str:
        return files_prefix(self.record.name, self.record.version, self.id)


_record = TypeAdapter(AttemptRecord)


@dataclass(slots=True)
class Attempt:
    """One attempt of this process. Its record is written when it begins, every few seconds, and when it fails."""

    store: Store
    id: str
    name: str
    version: Version
    by: str
    _sent: list[Sent] = field(default_factory=list)
    _saved_at: float = 0
    _lock: Lock = field(default_factory=Lock)

    @property
    def prefix(self) -> str:
        return files_prefix(self.name, self.version, self.id)

    def save(self) -> None:
        self._saved_at = time.monotonic()
        record = AttemptRecord(self.name, self.version, self.by, tuple(self._sent))
        self.store.put(record_key(self.id), _record.dump_json(record))

    def add(self, file: Sent) -> None:
        """A file is in the store, whole; called from several threads."""
        with self._lock:
            self._sent.append(file)
            if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
                self.save()

    def end(self) -> None:
        """Nothing is left to take over: the files are those of a version now."""
        self.store.delete([record_key(self.id)])

    def abandon(self) -> None:
        discard(self.store, self.prefix, self.id)

    def earlier(self) -> list[Left]:
        """Other attempts at the same version, not so old that their files may be collected while they are copied."""
        found = list(left(self.store))
        mine = next((each.modified for each in found if each.id == self.id), None)
        return [
            each
            for each in found
            if mine
            and each.id != self.id
            and (each.record.name, each.record.version) == (self.name, self.version)
            and mine - each.modified < GRACE / 2
        ]


def left(store: Store) -> Iterator[Left]:
    """Every attempt that has a record. Records that can't be read are passed over: they only save work."""
    listed = {found.key.removeprefix(f"{_PREFIX}/"): found.modified for found in store.objects(_PREFIX)}
    ids = [name.removesuffix(".json") for name in listed if name.endswith(".json") and "/" not in name]
    with ThreadPoolExecutor(8) as pool:
        for attempt, record in zip(ids, pool.map(lambda each: _read(store, each), ids), strict=True):
            if record:
                yield Left(attempt, listed[f"{attempt}.json"], record)


def discard(store: Store, prefix: str, attempt: str) -> None:
    """Remove an attempt's files, as far as the store lets us: what stays is garbage after the grace period."""
    with suppress(StoreError):
        remove(store, prefix, attempt)


def remove(store: Store, prefix: str, attempt: str) -> None:
    """Remove an attempt's files, then its record."""
    store.delete([found.key for found in store.objects(prefix)])
    store.delete([record_key(attempt)])


def record_key(attempt: str) -> str:
    return f"{_PREFIX}/{attempt}.json"


def files_prefix(name: str, version: Version, attempt: str) -> str:
    return f"models/{name}/{version}/{attempt}"


def _read(store: Store, attempt: str) -> AttemptRecord | None:
    try:
        return _record.validate_python(store.get_json(record_key(attempt)))
    except (NotFound, IntegrityError, ValidationError):
        return None
