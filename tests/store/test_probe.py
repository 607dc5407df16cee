"""What a store must do, asked of stores that do it and of such that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from obstore.store import MemoryStore

from modelyard.errors import StoreError
from modelyard.store import Memory, Object, Store
from modelyard.store.probe import probe


def test_what_every_store_does(any_store: Store) -> None:
    store = any_store
    found = {finding.check: finding for finding in probe(store)}
    signs = store.url.startswith(("s3:", "az:"))
    assert {check: finding.state for check, finding in found.items()} == {
        "create-if-absent": "ok",
        "listing": "ok",
        "server-side copy": "ok",
        "range reads": "ok",
        "presigned URLs": "ok" if signs else "not applicable",
    }
    assert ("in order" in found["listing"].detail) == store.ordered
    assert list(store.objects("")) == []


class Overwrites(Store):
    """Knows no create-if-absent and does not say so."""

    def create(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True


class Ignores(Store):
    """Says that it refused, and wrote all the same."""

    def create(self, key: str, data: bytes) -> bool:
        was_there = key in [found.key for found in self.objects("")]
        self.put(key, data)
        return not was_there


class Shuffles(Store):
    def objects(self, prefix: str) -> Iterator[Object]:
        return iter(sorted(super().objects(prefix), key=lambda found: found.key, reverse=True))


class Forgets(Store):
    """Lists what was written a while ago, not what was written just now."""

    def objects(self, prefix: str) -> Iterator[Object]:
        return iter([])


class Swaps(Store):
    def copy(self, source: str, destination: str) -> None:
        self.put(destination, b"something else")


class NoRanges(Store):
    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get(key)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Overwrites, "has no create-if-absent"),
        (Ignores, "overwrote an object it should have kept"),
        (Shuffles, "does not list what was just written, in order"),
        (Forgets, "does not list what was just written, in order"),
        (Swaps, "copies an object into another one"),
        (NoRanges, "does not give ranges"),
    ],
)
def test_a_store_that_lacks_what_all_rely_on_is_refused(kind: Callable[..., Store], said: str) -> None:
    store = kind(MemoryStore(), "memory://")
    with pytest.raises(StoreError, match=rf"memory:// {said}.*; use "):
        probe(store)
    assert list(Store.objects(store, "")) == []


class NoCopy(Store):
    def copy(self, source: str, destination: str) -> None:
        raise StoreError("no copies here")

    def presign(self, key: str, *, expires: timedelta) -> str | None:
        return "http://127.0.0.1:1/?X-Amz-Signature=secret"


def test_what_is_only_handy_may_be_lacking() -> None:
    found = {finding.check: finding for finding in probe(NoCopy(MemoryStore(), "memory://"))}
    assert (found["server-side copy"].state, found["server-side copy"].detail) == ("lacking", "no copies here")
    assert found["presigned URLs"].state == "lacking"
    assert str(found["presigned URLs"]) == "the address does not answer (ConnectError)"


def test_a_probe_of_memory_leaves_nothing() -> None:
    store = Memory()
    probe(store)
    assert list(store.objects("")) == []
