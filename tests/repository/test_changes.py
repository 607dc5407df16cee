"""Change marks: what was announced is found again, newest first, whatever the clocks of the writers say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import IntegrityError
from modelyard.repository import changes
from modelyard.store import Journal, Memory, Store

Requests = list[tuple[str, str]]

NOW = datetime.now(UTC)
MINUTE = timedelta(minutes=1)

moments = st.datetimes(datetime(2026, 1, 1), datetime(2080, 1, 1), timezones=st.just(UTC))


def about(store: Store, oldest: datetime | None = None) -> list[str]:
    return [mark.about for mark in changes.since(store, oldest)]


def test_the_newest_comes_first(store: Store) -> None:
    assert about(store) == []
    for hours, key in (
        (3, "versions/a/v1.0.0.json"),
        (0, "versions/ns/B_c/v1.0.0-rc.1.json"),
        (30, "catalog/a/9.json"),
    ):
        changes.mark(store, key, now=NOW - timedelta(hours=hours))

    assert about(store) == ["versions/ns/B_c/v1.0.0-rc.1.json", "versions/a/v1.0.0.json", "catalog/a/9.json"]
    assert about(store, NOW - timedelta(hours=3)) == ["versions/ns/B_c/v1.0.0-rc.1.json", "versions/a/v1.0.0.json"]
    assert about(store, NOW + MINUTE) == []


def test_a_look_is_one_list_on_an_ordered_store_and_reads_only_young_folders_elsewhere(
    store: Store, requests: Requests
) -> None:
    for hours in range(5):
        changes.mark(store, f"versions/a/v{hours}.0.0.json", now=NOW - timedelta(hours=hours))
    requests.clear()

    assert about(store, NOW - MINUTE) == ["versions/a/v0.0.0.json"]
    assert [operation for operation, _ in requests] == (
        ["objects"] if store.ordered else ["list_directories", "objects"]
    )


def test_the_longest_names_are_marked_too(store: Store) -> None:
    key = f"versions/{'n' * 96}/{'m' * 96}/v1.0.0-{'r' * 60}.json"
    changes.mark(store, key)
    assert about(store) == [key]


def test_other_objects_are_no_marks(store: Store) -> None:
    store.put("changes/note.txt", b"x")
    store.put("changes/1234567/note.txt", b"x")
    assert about(store) == []


def test_a_mark_that_holds_something_else_is_named() -> None:
    store = Memory()
    changes.mark(store, "a,b")
    (mark,) = changes.since(store, None)
    store.put(mark.key, b"[]")
    with pytest.raises(IntegrityError, match=mark.key):
        list(changes.since(store, None))


@given(st.lists(moments, min_size=1, max_size=8), moments)
def test_keys_sort_as_times_do(written: list[datetime], oldest: datetime) -> None:
    store = Memory()
    for moment in written:
        changes.mark(store, f"versions/a/{moment.timestamp():.0f}.json", now=moment)

    found = list(changes.since(store, oldest))

    rounded = [mark.written for mark in changes.since(store, None)]
    assert rounded == sorted(rounded, reverse=True)
    milliseconds = int(oldest.timestamp() * 1000)
    assert len(found) == sum(int(moment.timestamp() * 1000) >= milliseconds for moment in written)


@given(st.integers(-15, 15), st.integers(-15, 15), st.integers(0, 10_000))
def test_what_comes_later_lies_behind_the_horizon_whatever_the_clocks(one: int, other: int, later: int) -> None:
    """The store's clock is right; each writer's is up to a quarter of an hour off."""
    seen = changes.Mark("k", "a", NOW + one * MINUTE, NOW)
    written = NOW + timedelta(seconds=later) + other * MINUTE
    assert written >= seen.horizon
    assert seen.written >= seen.horizon, "the anchor itself must be seen again"


def test_a_writer_whose_clock_is_far_behind_is_seen_again() -> None:
    mark = changes.Mark("k", "a", NOW - timedelta(days=2), NOW)
    assert mark.written >= mark.horizon


def test_old_marks_may_go_but_not_the_newest(store: Store) -> None:
    for days in (40, 31, 29):
        changes.mark(store, f"versions/a/v{days}.0.0.json", now=NOW - timedelta(days=days))
    marks = {mark.about: mark.key for mark in changes.since(store, None)}

    assert changes.removable(store, now=NOW) == [], "the store has them since a moment ago"
    later = changes.removable(store, now=NOW + timedelta(days=31))

    newest = changes.newest_of(list(changes.since(store, None)))
    assert newest and newest.about == "versions/a/v29.0.0.json"
    assert set(later) == set(marks.values()) - {newest.key}


def test_a_journal_announces_every_entry_before_it_is_there(store: Store) -> None:
    def announce(key: str) -> None:
        assert key not in [found.key for found in store.objects("catalog")]
        changes.mark(store, key)

    journal = Journal(store, "catalog/a", announce=announce)
    for number in range(3):
        journal.update(lambda state, n=number: state | {"n": n}, by="me", why="")  # type: ignore[misc]
    journal.update(lambda state: state, by="me", why="no change")

    assert sorted(about(store)) == sorted(found.key for found in store.objects("catalog"))
    assert journal.entry(2).state == {"n": 1}
