"""Bringing the index up to date with the bucket: usually one LIST page of change marks, and what is new.

Marks are listed before anything else, so whatever is created after the listings has a mark that the next look finds.
The newest mark seen (the anchor) must be there again: if not, the store is another one, and everything begins anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import TypeVar

from modelyard.errors import IntegrityError, InvalidInput, NotFound
from modelyard.refs import Version, parse_name
from modelyard.repository import changes
from modelyard.repository.changes import Mark
from modelyard.repository.index import rows
from modelyard.repository.index.file import IndexFile, Rebuilt
from modelyard.repository.index.rows import Model, Position
from modelyard.repository.manifest import ModelVersion
from modelyard.repository.registration import read_manifest
from modelyard.store import Journal, Store
from modelyard.store.journal import entry_number
from modelyard.store.transfer import Progress

FULL_EVERY = timedelta(days=1)  # what comes without a mark, or vanishes, is noticed by then
PATIENCE = timedelta(days=1)  # how long an object that was announced may take to come

_PARALLEL = 32
_LISTED = 1000  # keys that are looked at together
_KEPT_AT_ONCE = 250

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class _Read:
    """What was found under a key: a manifest, a journal's entry, nothing, or something that can't be read."""

    key: str
    found: ModelVersion | Model | None = None
    problem: str = ""


class Sync:
    """Reads a store into an index file. Only one `run` at a time for each object; any number of processes."""

    def __init__(self, store: Store, file: IndexFile) -> None:
        self._store = store
        self._file = file
        self._epoch = ""

    def run(self, *, progress: Progress, now: datetime | None = None) -> None:
        """`progress` takes the number of objects read since its last call.

        Raises StoreError, and Rebuilt when another process has begun anew meanwhile.
        """
        now = now or datetime.now(UTC)
        before = self._file.read(rows.position_of)
        self._epoch = before.epoch
        if before.full_at is None or not timedelta() <= now - before.full_at < FULL_EVERY:
            self._full(before, now, progress)
            return
        marks = list(changes.since(self._store, before.horizon)) if before.anchor else self._first_mark()
        if before.anchor not in _keys(marks):
            self._full(before, now, progress)
            return
        self._take((mark.about for mark in marks), now, progress)
        self._finish(_after(marks, before.full_at), before)

    def _full(self, before: Position, now: datetime, progress: Progress) -> None:
        """List everything and read what is not known; forget what is gone, and all of it if the store is another."""
        marks = self._first_mark()
        if marks:
            oldest = marks[0].horizon - PATIENCE
            marks = list(changes.since(self._store, min(oldest, before.horizon or oldest)))
        if before.anchor not in _keys(marks):
            self._epoch = self._write(partial(rows.clear, position=_after(marks, None)))
        self._manifests(now, progress)
        self._catalog(now, progress)
        self._take((mark.about for mark in marks), now, progress)
        self._finish(_after(marks, now), before)

    def _first_mark(self) -> list[Mark]:
        return list(islice(changes.since(self._store, None), 1))

    def _finish(self, after: Position, before: Position) -> None:
        """Only when everything that the marks announce is taken in or pending: a killed run is simply done again."""
        after = replace(after, epoch=self._epoch)
        if after != before:
            self._write(partial(rows.put_position, now=after))

    def _write(self, work: Callable[[sqlite3.Connection], _Item]) -> _Item:
        """Only into what this run began with: another process may have found another store, or damage, meanwhile."""

        def checked(db: sqlite3.Connection) -> _Item:
            if rows.position_of(db).epoch != self._epoch:
                raise Rebuilt
            return work(db)

        return self._file.write(checked)

    def _manifests(self, now: datetime, progress: Progress) -> None:
        last = self._write(_begin_listing)
        listed = (made for found in self._store.objects("versions") if (made := _manifest_of(found.key)))
        for chunk in _chunks(listed, _LISTED):
            names = [(name, str(version)) for name, version in chunk]
            self._write(partial(_list, names=names))
            known = self._file.read(partial(rows.known_versions, wanted=names))
            self._bring([f"versions/{n}/{v}.json" for n, v in names if (n, v) not in known], now, progress)
        for gone in _chunks(self._file.read(partial(_unlisted, last=last)), _LISTED):
            self._write(partial(rows.remove_versions, ids=gone))

    def _catalog(self, now: datetime, progress: Progress) -> None:
        newest: dict[str, tuple[int, str]] = {}
        for found in self._store.objects("catalog"):
            if number := entry_number(found.key):
                model = _model_of(found.key)
                newest[model] = max((number, found.key), newest.get(model, (0, "")))
        for chunk in _chunks(newest.values(), _LISTED):
            self._bring(self._file.read(partial(_unknown, keys=[key for _, key in chunk])), now, progress)

    def _take(self, announced: Iterable[str], now: datetime, progress: Progress) -> None:
        """Read what is not known yet, of these objects and of those that were announced before and had not come."""
        waiting = self._file.read(rows.pending)
        for chunk in _chunks(dict.fromkeys([*announced, *waiting]), _LISTED):
            unknown = self._file.read(partial(_unknown, keys=chunk))
            self._bring(unknown, now, progress)
            if came := set(waiting).intersection(chunk).difference(unknown):
                self._write(partial(rows.remove_pending, keys=came))

    def _bring(self, keys: Sequence[str], now: datetime, progress: Progress) -> None:
        """Read objects, many at once, and keep those that have come while the others are on their way."""
        if not keys:
            return
        with ThreadPoolExecutor(min(_PARALLEL, len(keys))) as pool:
            for done in _chunks(pool.map(self._load, keys), _KEPT_AT_ONCE):
                self._write(partial(_keep, done=done, now=now))
                progress(len(done))

    def _load(self, key: str) -> _Read:
        try:
            if made := _manifest_of(key):
                return _Read(key, read_manifest(self._store, *made))
            model = _model_of(key)
            entry = Journal(self._store, f"catalog/{model}").entry(entry_number(key) or 0)
            return _Read(key, rows.model_of(model, entry))
        except (NotFound, InvalidInput):  # marks are only announcements, and may name anything
            return _Read(key)
        except IntegrityError as error:
            return _Read(key, problem=error.message)


def _keep(db: sqlite3.Connection, done: Sequence[_Read], now: datetime) -> None:
    """Take in what was found; what was not is looked for again, for as long as it may still come."""
    rows.put_versions(db, [each.found for each in done if isinstance(each.found, ModelVersion)])
    rows.put_models(db, [each.found for each in done if isinstance(each.found, Model)])
    rows.remove_pending(db, [each.key for each in done if each.found])
    missing = {each.key: each.problem for each in done if not each.found}
    rows.put_pending(db, missing, now=now, patience=PATIENCE)


def _unknown(db: sqlite3.Connection, keys: Iterable[str]) -> list[str]:
    """Those keys of manifests and journals' entries whose objects the index does not hold, and nothing newer."""
    manifests, unknown = {}, []
    for key in keys:
        if key.startswith("versions/"):
            name, _, version = key.removeprefix("versions/").removesuffix(".json").rpartition("/")
            manifests[key] = name, version
        elif (number := entry_number(key)) and number > (rows.entry_of(db, _model_of(key)) or (0,))[0]:
            unknown.append(key)
    known = rows.known_versions(db, manifests.values())
    return unknown + [key for key, made in manifests.items() if made not in known]


def _manifest_of(key: str) -> tuple[str, Version] | None:
    """Whose manifest this key is; None for anything else."""
    name, _, ending = key.removeprefix("versions/").rpartition("/")
    version = ending.removesuffix(".json")
    if not key.startswith("versions/") or version == ending:
        return None
    try:
        made = parse_name(name), Version.parse(version)
    except InvalidInput:
        return None
    return made if str(made[1]) == version else None


def _model_of(key: str) -> str:
    """The model whose journal has this entry."""
    return key.removeprefix("catalog/").rpartition("/")[0]


def _after(marks: list[Mark], full_at: datetime | None) -> Position:
    """The position once these marks, and all before them, are taken in."""
    newest = changes.newest_of(marks)
    return Position(newest.key if newest else None, newest.horizon if newest else None, full_at)


def _keys(marks: Iterable[Mark]) -> set[str | None]:
    """The keys among which the anchor must be; None, for no anchor, if there is no mark at all."""
    return {mark.key for mark in marks} or {None}


def _begin_listing(db: sqlite3.Connection) -> int:
    """An empty list of what is in the store; returns the id of the newest row, as later ones may not be listed."""
    db.execute("DROP TABLE IF EXISTS temp.listed")
    db.execute("CREATE TEMP TABLE listed (name TEXT, version TEXT, PRIMARY KEY (name, version)) WITHOUT ROWID")
    return int(db.execute("SELECT coalesce(max(id), 0) FROM versions").fetchone()[0])


def _list(db: sqlite3.Connection, names: Iterable[tuple[str, str]]) -> None:
    db.executemany("INSERT OR IGNORE INTO temp.listed VALUES (?, ?)", names)


def _unlisted(db: sqlite3.Connection, last: int) -> list[int]:
    found = db.execute(
        "SELECT id FROM versions WHERE id <= ? AND (name, version) NOT IN (SELECT name, version FROM temp.listed)",
        (last,),
    )
    return [row[0] for row in found]


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
