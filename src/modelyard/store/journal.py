"""Journals: everything that changes is a numbered series of small objects, each the whole state after one change.

Creating the next number is the commit, so changes are linearizable on any store that has create-if-absent; history is
complete and undo is one more entry. Keys count down, so the newest sorts first. Knows nothing of what a state means.
"""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modelyard.errors import Conflict, IntegrityError, NotFound, StoreError
from modelyard.store.documents import RESTORE, problem, to_json
from modelyard.store.objects import Store

_LAST = 10**12 - 1
_KEY = re.compile(r"\d{12}\.json")
_ATTEMPTS = 200
_FOLLOWED = 2
_LONGEST_PAUSE_S = 0.5

State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One change: `number` counts from 1, `at` is ISO 8601 in UTC, `state` is the whole state after it."""

    number: int
    id: str
    at: str
    by: str
    why: str
    state: State


class Journal:
    """The journal below one prefix of a store."""

    def __init__(self, store: Store, prefix: str, *, announce: Callable[[str], None] | None = None) -> None:
        """`announce` is called with the key of every entry that is about to be created."""
        self._store = store
        self._prefix = prefix.rstrip("/")
        self._announce = announce
        self._seen = 0

    def read(self, known: Entry | None = None) -> Entry | None:
        """The newest entry: one LIST page and one GET. None if nothing was ever written.

        An entry that is `known` and still the newest is given back without the GET. Raises StoreError when entries
        that were there are gone: a folder that is not mounted looks empty.
        """
        seen = self._seen
        key = self._newest_key()
        same = known is not None and key == self._key(known.number)
        entry = known if same else self._load(key) if key else None
        number = entry.number if entry else 0
        if number < seen:
            raise StoreError(
                f"{self._prefix} in {self._store.url} had {seen} entries and has {number}",
                remedy="look whether the store is where it was",
            )
        self._seen = max(self._seen, number)
        return entry

    def entry(self, number: int) -> Entry:
        """One entry. Raises NotFound."""
        return self._load(self._key(number))

    def history(self) -> list[Entry]:
        """Every entry, oldest first."""
        keys = sorted(self._keys(), reverse=True)
        with ThreadPoolExecutor(max_workers=16) as pool:
            return list(pool.map(self._load, keys))

    def update(self, decide: Callable[[State], State | None], *, by: str, why: str) -> Entry | None:
        """Append what `decide` makes of the newest state; nothing, if that is None or no change.

        `decide` is called again when somebody else was faster, so it must look only at the state it is given. Returns
        the newest entry. Raises whatever `decide` raises, and Conflict when others win without end.
        """
        current = self.read()
        for lost in range(_ATTEMPTS):
            if lost:  # step aside at random, the longer the more often others were faster (exponential backoff)
                time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.001 * 2 ** min(lost, 16))))  # noqa: S311
            if lost > _FOLLOWED:  # others are too fast to be followed one by one
                current = self.read()
            before = current.state if current else {}
            state = decide(json.loads(json.dumps(before)))
            if state is None:
                return current
            state = json.loads(to_json(state, what=f"the state of {self._prefix}"))
            if _text(state) == _text(before):
                return current
            number = current.number + 1 if current else 1
            entry = Entry(number, uuid.uuid4().hex, datetime.now(UTC).isoformat(), by, why, state)
            stored = self._append(entry)
            if stored.id == entry.id:
                return entry
            current = stored
        raise Conflict(f"{self._prefix} is changed by too many others at once", remedy="try again")

    def _append(self, entry: Entry) -> Entry:
        """What stands under the entry's number afterwards: the entry, or that of a faster writer.

        An "already there" and a failed request may both be our own write whose acknowledgement was lost: only the
        stored `id` tells.
        """
        key = self._key(entry.number)
        data = to_json(asdict(entry), what=key)
        if self._announce:
            self._announce(key)
        try:
            if self._store.create(key, data):
                return entry
        except StoreError as failure:
            try:
                return self._load(key)
            except NotFound:
                raise failure from None
        return self._load(key)

    def _newest_key(self) -> str | None:
        if not self._store.ordered:
            return min(self._keys(), default=None)
        return next(iter(self._keys()), None)

    def _keys(self) -> Iterator[str]:
        for name in self._store.names(self._prefix):
            if _KEY.fullmatch(name):
                yield f"{self._prefix}/{name}"

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{_LAST - number:012d}.json"

    def _load(self, key: str) -> Entry:
        data = self._store.get_json(key)
        try:
            return _entry.validate_python(data)
        except ValidationError as error:
            raise IntegrityError(
                f"{key} in {self._store.url} is not a journal entry: {problem(error)}", remedy=RESTORE
            ) from error


def entry_number(key: str) -> int | None:
    """The number of the entry under this key; None for an object that is none."""
    name = key.rpartition("/")[2]
    return _LAST - int(name.removesuffix(".json")) if _KEY.fullmatch(name) else None


_entry = TypeAdapter(Entry)


def _text(state: State) -> str:
    """For comparing: in Python 1 == True == 1.0, in JSON they differ."""
    return json.dumps(state, sort_keys=True)
