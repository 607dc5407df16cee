"""Garbage: what no manifest, no journal and no attempt under way refers to, and how it is removed without a race.

A writer may be paused anywhere for any time and go on afterwards. So before the files of an attempt without a manifest
are removed, the attempt is declared void in the model's journal, and the manifest is looked for once more: a writer
that was faster keeps its files, and a manifest that comes later counts for nothing (`Record.void`). Ages are those that
the store's own clock gives.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from modelyard.errors import InvalidInput
from modelyard.refs import Version
from modelyard.repository import changes
from modelyard.repository.attempts import GRACE, left, record_key
from modelyard.repository.catalog import Catalog
from modelyard.repository.registration import read_manifest
from modelyard.store import Object, Store

_FILE = re.compile(r"models/(?P<name>[^/]+(?:/[^/]+)?)/(?P<version>v\d[^/]*)/(?P<attempt>\d{8}T\d{6}-[0-9a-f]{16})/.+")
_METADATA = re.compile(r"models/(?P<name>[^/]+(?:/[^/]+)?)/(?P<version>v\d[^/]*)/metadata\.json")
_PROBES = "probe"


@dataclass(frozen=True, slots=True)
class Slot:
    """A version's number of a model, whether or not such a version exists."""

    name: str
    version: Version


@dataclass(frozen=True, slots=True)
class Garbage:
    """What may go: `why` in words."""

    key: str
    size: int
    why: str


class Collector:
    """Collects in one store. `grace` is how old something must be before it can be garbage."""

    def __init__(self, store: Store, catalog: Catalog, *, grace: timedelta = GRACE) -> None:
        self._store = store
        self._catalog = catalog
        self._grace = grace

    def collect(self, *, dry_run: bool = False, found: Callable[[Garbage], None] = lambda _: None) -> list[Garbage]:
        """Remove garbage and return what was removed; with `dry_run`, what would be. `found` is told of each object."""
        now, garbage = store_time(self._store), []
        for each in self._search(now, dry_run):
            if not dry_run:
                self._store.delete([each.key])
            garbage.append(each)
            found(each)
        return garbage

    def _search(self, now: datetime, dry_run: bool) -> Iterator[Garbage]:
        old = now - self._grace
        records = list(left(self._store))
        running = {each.id: each.modified for each in records}
        recorded = {Slot(each.record.name, each.record.version) for each in records}
        for slot in recorded | self._suspects():
            yield from self._attempts(slot, running, old, dry_run)
        for attempt, modified in running.items():
            if modified <= old:
                yield Garbage(record_key(attempt), 0, "the record of an attempt that is over")
        for key in changes.removable(self._store, now=now):
            yield Garbage(key, 0, "a change mark that everybody has seen")
        for each in self._store.objects(_PROBES):
            if each.modified <= old:
                yield Garbage(each.key, each.size, "left by a check of the store")

    def _suspects(self) -> set[Slot]:
        """Versions that may have garbage: those with files of several attempts, or with files and no manifest."""
        there = {found.key for found in self._store.objects("versions")}
        seen: dict[Slot, set[str]] = {}
        for found in self._store.objects("models"):
            if (parsed := _parse(found.key)) is not None:
                seen.setdefault(parsed[0], set()).add(parsed[1])
        return {
            slot
            for slot, attempts in seen.items()
            if f"versions/{slot.name}/{slot.version}.json" not in there or len(attempts - {""}) != 1
        }

    def _objects(self, slot: Slot) -> dict[str, list[Object]]:
        """What is stored of a version: attempt → its files; metadata.json under ''."""
        found: dict[str, list[Object]] = {}
        for each in self._store.objects(f"models/{slot.name}/{slot.version}"):
            if (parsed := _parse(each.key)) is not None:
                found.setdefault(parsed[1], []).append(each)
        return found

    def _attempts(
        self,
        slot: Slot,
        running: dict[str, datetime],
        old: datetime,
        dry_run: bool,
    ) -> Iterator[Garbage]:
        over = {
            attempt: objects
            for attempt, objects in self._objects(slot).items()
            if max([each.modified for each in objects] + [running.get(attempt, old)]) <= old
        }
        why = self._why(slot, set(over), dry_run)
        for attempt, objects in over.items():
            if reason := why.get(attempt):
                yield from (Garbage(each.key, each.size, reason) for each in objects)

    def _why(self, slot: Slot, over: set[str], dry_run: bool) -> dict[str, str]:
        """Attempt → why its files are garbage. Without a manifest they are only once they are declared void."""
        manifest = read_manifest(self._store, slot.name, slot.version)
        if manifest is None and not dry_run and over - {""}:
            self._declare_void(slot, over - {""})
            manifest = read_manifest(self._store, slot.name, slot.version)
            if manifest and manifest.attempt in over:
                self._declare_valid(slot, manifest.attempt)
        if manifest is None:
            return dict.fromkeys(over, "of an attempt that never became a version")
        record = self._catalog.record(slot.name)
        if str(slot.version) in record.deleted:
            return dict.fromkeys(over, "of a deleted version")
        if manifest.attempt in record.void:
            return dict.fromkeys(over, "of a writer whose time was over")
        return dict.fromkeys(over - {manifest.attempt, ""}, "of an attempt that another one was faster than")

    def _declare_void(self, slot: Slot, attempts: set[str]) -> None:
        void = dict.fromkeys(sorted(attempts), str(slot.version))
        self._catalog.change(slot.name, lambda record: replace(record, void=record.void | void), why="collect garbage")

    def _declare_valid(self, slot: Slot, attempt: str) -> None:
        self._catalog.change(
            slot.name,
            lambda record: replace(record, void={k: v for k, v in record.void.items() if k != attempt}),
            why=f"{slot.version} was registered after all",
        )


def store_time(store: Store) -> datetime:
    """What time it is by the store's clock."""
    key = f"{_PROBES}/{uuid.uuid4().hex}/clock"
    store.put(key, b"")
    try:
        return max(found.modified for found in store.objects(key.rpartition("/")[0]))
    finally:
        store.delete([key])


def _parse(key: str) -> tuple[Slot, str] | None:
    """The slot and the attempt an object belongs to ('' for metadata.json); None for objects that are not ours."""
    match = _FILE.fullmatch(key) or _METADATA.fullmatch(key)
    if match is None:
        return None
    try:
        version = Version.parse(match["version"])
    except InvalidInput:
        return None
    return Slot(match["name"], version), match.groupdict().get("attempt", "")
