"""Change marks: small objects that let a reader find everything new in a bucket with one LIST page.

Whoever is about to create a manifest or an entry of a catalog's journal puts a mark with that object's key just before.
A killed writer may leave a mark whose object never comes, but no object comes without a mark. Keys count down, so the
newest sort first, and hold all there is to know, so that a LIST is enough. Knows keys and clocks, not what changed.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from modelyard.errors import IntegrityError
from modelyard.store import Object, Store
from modelyard.store.documents import RESTORE, to_json

PREFIX = "changes"
SKEW = timedelta(minutes=15)  # S3 and Azure refuse requests of clocks that are further off
KEEP = timedelta(days=30)

_OVERLAP = 2 * SKEW
_HOUR = 3_600_000
_LAST_HOUR, _LAST = 10**7 - 1, 10**13 - 1
_KEY = re.compile(r"changes/\d{7}/(\d{13})-[0-9a-f]{8}(?:,([^/]+))?\.json")
_LONGEST = 255  # bytes of a file's name on disk


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark: the key that was about to be created, and when, by the writer's clock and by the store's."""

    key: str
    about: str
    written: datetime
    modified: datetime

    @property
    def horizon(self) -> datetime:
        """Marks that come after this one was listed bear a later time, by whatever clock, within `SKEW`.

        The store's clock and a writer's differ by `SKEW` at most. Another `SKEW` is for what the clocks of the store's
        own servers differ by, and for the time that a listing takes.
        """
        return min(self.written, self.modified) - _OVERLAP


def mark(store: Store, about: str, *, now: datetime | None = None) -> None:
    """Say that the object `about` is going to be created now. Raises StoreError; then it must not be created."""
    head = _head(now or datetime.now(UTC))
    name = f"{head}-{uuid.uuid4().hex[:8]},{about.replace('/', ',')}"
    if "," in about or not about.endswith(".json") or len(name.rpartition("/")[2].encode()) > _LONGEST:
        name = f"{name.partition(',')[0]}.json"
    store.put(f"{PREFIX}/{name}", to_json({"about": about}, what="a mark"))


def since(store: Store, oldest: datetime | None) -> Iterator[Mark]:
    """Marks written at `oldest` or later, newest first; without it, all there are."""
    last = f"{PREFIX}/{_head(oldest)}~" if oldest else f"{PREFIX}/~"
    for found in _newest_first(store, last):
        if found.key > last:
            return
        if match := _KEY.fullmatch(found.key):
            written = datetime.fromtimestamp((_LAST - int(match[1])) / 1000, UTC)
            about = match[2].replace(",", "/") + ".json" if match[2] else _about(store, found.key)
            yield Mark(found.key, about, written, found.modified)


def removable(store: Store, *, now: datetime | None = None) -> list[str]:
    """Keys of marks that nobody needs any more: older than `KEEP` by both clocks, and not the newest there is."""
    limit = (now or datetime.now(UTC)) - KEEP
    marks = list(since(store, None))
    newest = newest_of(marks)
    return [each.key for each in marks if max(each.written, each.modified) < limit and each != newest]


def newest_of(marks: list[Mark]) -> Mark | None:
    """The last one that was stored, by the store's clock."""
    return max(marks, key=lambda each: (each.modified, each.written), default=None)


def _newest_first(store: Store, last: str) -> Iterator[Object]:
    if store.ordered:
        yield from store.objects(PREFIX)
        return
    for hour in sorted(store.list_directories(PREFIX)):  # a folder for each hour, so that few are looked into
        if f"{PREFIX}/{hour}" > last:
            return
        yield from sorted(store.objects(f"{PREFIX}/{hour}"), key=lambda found: found.key)


def _head(moment: datetime) -> str:
    """`<hours>/<milliseconds>`, both counted down, of equal length for every moment."""
    milliseconds = int(moment.timestamp() * 1000)
    return f"{_LAST_HOUR - milliseconds // _HOUR:07d}/{_LAST - milliseconds:013d}"


def _about(store: Store, key: str) -> str:
    document = store.get_json(key)
    if not (isinstance(document, dict) and isinstance(document.get("about"), str)):
        raise IntegrityError(f"{key} in {store.url} is not a mark of a change", remedy=RESTORE)
    return str(document["about"])
