"""The index of one store on this machine: names and searches over all versions, and manifests that are kept for good.

The bucket stays the truth. Names and searches first bring the index up to date. What it says without asking the store
is only what can't have changed: the manifest of a version that the caller has just seen to exist, and only while the
model's journal proves that the store is still the one that the manifest came from.
"""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from modelyard.errors import IntegrityError, NotFound, StoreError
from modelyard.refs import Version
from modelyard.repository.environments import NAMES as ENVIRONMENTS
from modelyard.repository.environments import Environment
from modelyard.repository.index import rows, search
from modelyard.repository.index.conditions import NO_ORDER, ordering, parse_condition
from modelyard.repository.index.file import IndexFile, Rebuilt
from modelyard.repository.index.rows import Model
from modelyard.repository.index.search import Found, Query
from modelyard.repository.index.sync import Sync
from modelyard.repository.manifest import ModelVersion
from modelyard.repository.registration import read_manifest
from modelyard.store import Entry, Journal, Store
from modelyard.store.transfer import Progress, no_progress

_ATTEMPTS = 10

_Result = TypeVar("_Result")


class Index:
    """Kept in a file in `folder`, which belongs to this store alone; a store in memory is indexed in memory."""

    def __init__(self, store: Store, folder: Path | None) -> None:
        self._store = store
        self._file = IndexFile(None if store.url == "memory://" else folder)
        self._sync = Sync(store, self._file)
        self._refreshing = threading.Lock()

    def refresh(self, *, progress: Progress = no_progress) -> None:
        """Take in what is new in the store; `progress` takes the number of objects read. Raises StoreError."""
        with self._refreshing:
            self._again(lambda: self._sync.run(progress=progress))

    def names(self, *, progress: Progress = no_progress) -> list[str]:
        """The names of all models that have a version, sorted. Raises StoreError."""

        def ask() -> list[str]:
            self.refresh(progress=progress)
            return self._file.read(partial(_complete, ask=search.names))

        return self._again(ask)

    def search(
        self,
        where: Sequence[str] = (),
        *,
        name: str | None = None,
        latest: bool = False,
        yanked: bool = False,
        sort: str | None = None,
        limit: int | None = None,
        details: bool = False,
        progress: Progress = no_progress,
    ) -> list[Found]:
        """Versions that meet all conditions; see `Query` and `conditions`. Raises InvalidInput, StoreError.

        `sort` is a path, with a `-` before it for the highest first; versions without such a value come last. `details`
        adds what inspection found and the caller's metadata.
        """
        order = ordering(sort) if sort else NO_ORDER
        query = Query(tuple(map(parse_condition, where)), name, latest, yanked, order, limit, details)

        def ask() -> list[Found]:
            self.refresh(progress=progress)
            answer = partial(search.search, query=query, deployed=self._deployed())
            return self._file.read(partial(_complete, ask=answer))

        return self._again(ask)

    def absent(self, where: Sequence[str]) -> list[str]:
        """Those paths of conditions that no version had at the last refresh: misspelt, perhaps."""
        conditions = [parse_condition(each) for each in where]
        return self._again(lambda: self._file.read(partial(search.absent, conditions=conditions)))

    def problems(self) -> dict[str, str]:
        """Objects of the catalog that can't be read, with the reason, as of the last refresh."""
        return self._again(lambda: self._file.read(rows.problems))

    def manifest(self, name: str, version: Version, entry: Entry) -> ModelVersion | None:
        """A manifest, from here if it is known, else from the store; None if there is none.

        `entry` is the newest of the model's journal in the catalog, just read. It carries a random id: the same id
        means the same store, or a copy of it. If the journal has gone on since, the entry that is known here is looked
        at once more; if it is not what it was, this is another store, and nothing that is kept counts any more.
        Raises IntegrityError, StoreError.
        """
        if kept := self._again(lambda: self._kept(name, version, entry)):
            return kept
        found = read_manifest(self._store, name, version)
        if found:
            model = rows.model_of(name, entry)
            self._again(lambda: self._file.write(partial(_keep, model=model, version=found)))
        return found

    def _kept(self, name: str, version: Version, entry: Entry) -> ModelVersion | None:
        known = self._file.read(partial(rows.entry_of, model=name.lower()))
        if known is None:
            return None
        if known[1] != entry.id:
            if not self._goes_on(name, known):
                self._file.write(rows.clear)
                return None
            self._file.write(partial(rows.put_models, models=[rows.model_of(name, entry)]))
        data = self._file.read(partial(rows.manifest, name=name, version=str(version)))
        try:
            where = f"of {name}:{version} in the index"
            return ModelVersion.from_json(zlib.decompress(data), where=where) if data else None
        except (zlib.error, IntegrityError):
            self._file.give_up()

    def _goes_on(self, name: str, known: tuple[int, str]) -> bool:
        number, identity = known
        try:
            return Journal(self._store, f"catalog/{name.lower()}").entry(number).id == identity
        except NotFound:
            return False

    def _deployed(self) -> dict[str, dict[str, str]]:
        """Environment → name → the version that serves."""
        with ThreadPoolExecutor(len(ENVIRONMENTS)) as pool:
            journals = pool.map(lambda name: Environment(self._store, name).read(), ENVIRONMENTS)
            return {
                name: {model: str(each.serving.version) for model, each in deployments.items() if each.serving}
                for name, deployments in zip(ENVIRONMENTS, journals, strict=True)
            }

    @staticmethod
    def _again(work: Callable[[], _Result]) -> _Result:
        """Once more, if the file was damaged or another process has begun anew."""
        for _ in range(_ATTEMPTS):
            try:
                return work()
            except Rebuilt:
                continue
        raise StoreError(
            "the index of the catalog is made anew again and again",
            remedy="see whether other processes look at another store under the same address",
        )


def _complete(db: sqlite3.Connection, ask: Callable[[sqlite3.Connection], _Result]) -> _Result:
    """An answer from a whole index; raises Rebuilt if another process has begun anew since the last refresh."""
    if rows.position_of(db).full_at is None:
        raise Rebuilt
    return ask(db)


def _keep(db: sqlite3.Connection, model: Model, version: ModelVersion) -> None:
    rows.put_models(db, [model])
    rows.put_versions(db, [version])
