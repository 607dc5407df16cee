"""The index: up to date with a bucket that others write to, die in, and exchange; never trusted over it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import IntegrityError, InvalidInput, StoreError
from modelyard.refs import Version
from modelyard.repository import Deployment, Environment, ModelRepository, Pin, changes
from modelyard.repository.index import Index, rows, search
from modelyard.repository.index.file import IndexFile, Rebuilt
from modelyard.repository.index.sync import Sync
from modelyard.repository.manifest import content_digest
from modelyard.store import LocalDisk, Memory, Store
from modelyard.store.transfer import no_progress

from .catalogs import commit, key_of, record, refs, version

Requests = list[tuple[str, str]]

DAY = timedelta(days=1)


@pytest.fixture
def index(store: Store, tmp_path: Path) -> Index:
    return Index(store, tmp_path / "index")


def test_what_others_register_is_seen(store: Store, index: Index) -> None:
    assert index.names() == [] and refs(index) == []
    for name, number in (("b", "v1.10.0"), ("b", "v1.9.0"), ("b", "v2.0.0-rc.1"), ("ns/A", "v1.0.0")):
        commit(store, name, number)

    assert index.names() == ["b", "ns/A"]
    assert refs(index) == ["b:v1.9.0", "b:v1.10.0", "b:v2.0.0-rc.1", "ns/A:v1.0.0"]
    assert refs(index, latest=True) == ["b:v1.10.0", "ns/A:v1.0.0"]
    assert refs(index, name="ns/A") == ["ns/A:v1.0.0"]


def test_what_was_there_before_there_were_marks_is_seen(store: Store, index: Index) -> None:
    old = version("old", "v1.0.0")
    store.put(key_of(old), old.to_json())
    assert index.names() == ["old"]
    commit(store, "new", "v1.0.0")
    assert index.names() == ["new", "old"]


def test_without_news_a_look_is_one_list(store: Store, index: Index, requests: Requests) -> None:
    commit(store, "a", "v1.0.0")
    index.refresh()
    requests.clear()

    index.refresh()

    assert [operation for operation, _ in requests] == (
        ["objects"] if store.ordered else ["list_directories", "objects"]
    )


def test_news_cost_one_more_get_each(store: Store, index: Index, requests: Requests) -> None:
    commit(store, "a", "v1.0.0")
    index.refresh()
    news = [key_of(commit(store, "a", "v1.1.0")), key_of(commit(store, "b", "v1.0.0"))]
    requests.clear()

    index.refresh()

    assert sorted(key for operation, key in requests if operation == "get") == sorted(news)


def test_tags_yanked_deleted_and_void_versions(store: Store, index: Index) -> None:
    made = {number: commit(store, "M", number) for number in ("v1.0.0", "v1.1.0", "v1.2.0", "v1.3.0")}
    assert refs(index, latest=True) == ["M:v1.3.0"]

    record(store, "M", tags={"good": f"v1.0.0@{made['v1.0.0'].digest}"}, deleted={"v1.3.0": "wrong"})
    assert refs(index) == ["M:v1.0.0", "M:v1.1.0", "M:v1.2.0"]
    assert refs(index, "tag=good") == ["M:v1.0.0"]
    assert refs(index, "tag=latest") == ["M:v1.2.0"]
    assert refs(index, "tag!=latest") == ["M:v1.0.0", "M:v1.1.0"]

    record(store, "M", yanked={"v1.2.0": "biased"}, void={made["v1.1.0"].attempt: "v1.1.0"})
    (found,) = index.search()
    assert (str(found.version), found.tags, found.yanked) == ("v1.0.0", ("good", "latest"), False)
    assert [(str(each.version), each.yanked) for each in index.search(yanked=True)] == [
        ("v1.0.0", False),
        ("v1.2.0", True),
    ]

    record(store, "M", tags={}, yanked={}, deleted=dict.fromkeys(made, "all"))
    assert index.names() == []


def test_the_repository_s_own_verbs(repository: ModelRepository, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"weights")
    for number in ("1.0.0", "1.1.0", "1.2.0"):
        repository.register_model("m", number, tmp_path / "model", {"metrics": {"f1": 0.5}})
    repository.tag("m", "good", "1.0.0")
    repository.yank("m", "1.1.0", reason="biased")
    repository.delete("m", "1.2.0", reason="wrong")

    found = Index(repository.storage, tmp_path / "index").search(["metrics.f1=0.5"], yanked=True, details=True)

    assert [(str(each.version), each.tags, each.yanked) for each in found] == [
        ("v1.0.0", ("good", "latest"), False),
        ("v1.1.0", (), True),
    ]
    assert found[0].metadata == {"metrics": {"f1": 0.5}} and found[0].model == {}


def test_what_serves_is_a_tag(store: Store, index: Index) -> None:
    new = commit(store, "m", "v1.0.0")
    commit(store, "m", "v1.1.0")
    serving = Deployment(serving=Pin(new.version, new.digest))
    Environment(store, "production").update("m", lambda _: serving, by="me", why="")

    assert refs(index, "tag=production") == ["m:v1.0.0"]
    assert index.search()[0].tags == ("production",)


def test_a_killed_writer_s_mark_is_waited_for(store: Store, index: Index, tmp_path: Path) -> None:
    late, lost = version("late", "v1.0.0"), version("lost", "v1.0.0")
    for new in (late, lost):
        changes.mark(store, key_of(new))
    assert index.names() == []
    commit(store, "other", "v1.0.0")
    assert index.names() == ["other"]

    store.put(key_of(late), late.to_json())

    assert index.names() == ["late", "other"]


def test_a_mark_is_not_waited_for_for_ever(store: Store, tmp_path: Path, requests: Requests) -> None:
    sync = Sync(store, IndexFile(tmp_path / "index"))
    begin = datetime.now(UTC)
    sync.run(progress=no_progress, now=begin)
    changes.mark(store, "versions/lost/v1.0.0.json", now=begin - timedelta(hours=1))
    sync.run(progress=no_progress, now=begin)
    commit(store, "other", "v1.0.0")
    later = begin + DAY - timedelta(seconds=1)
    sync.run(progress=no_progress, now=later)
    assert ("get", "versions/lost/v1.0.0.json") in requests

    sync.run(progress=no_progress, now=begin + DAY)  # in full, and for the last time
    requests.clear()
    sync.run(progress=no_progress, now=begin + DAY + timedelta(minutes=1))
    lost = [key for operation, key in requests if operation == "get" and "lost" in key]
    assert lost in ([], ["versions/lost/v1.0.0.json"]), "at most once, while its mark is among the newest"


def test_marks_may_name_anything(store: Store, index: Index) -> None:
    commit(store, "m", "v1.0.0")
    for about in (
        "versions/../x/v1.json",
        "x,y",
        "catalog/m/none.json",
        "versions/v1.json",
        "//",
        "versions/a/b/c/v1.0.0.json",
    ):
        changes.mark(store, about)
    assert index.names() == ["m"]


@pytest.mark.parametrize("minutes", [-15, -5, 5, 15])
def test_clocks_that_differ(store: Store, index: Index, minutes: int) -> None:
    now = datetime.now(UTC)
    ahead = version("ahead", "v1.0.0")
    changes.mark(store, key_of(ahead), now=now + timedelta(minutes=15))
    store.put(key_of(ahead), ahead.to_json())
    assert index.names() == ["ahead"]

    behind = version("behind", "v1.0.0")
    changes.mark(store, key_of(behind), now=now + timedelta(minutes=minutes))
    store.put(key_of(behind), behind.to_json())

    assert index.names() == ["ahead", "behind"]


def test_once_a_day_everything_is_listed(store: Store, tmp_path: Path) -> None:
    """What other tools put there or take away is noticed, and a wrong clock heals."""
    file = IndexFile(tmp_path / "index")
    now = datetime.now(UTC)

    def names(when: datetime) -> list[str]:
        Sync(store, file).run(progress=no_progress, now=when)
        return file.read(search.names)

    commit(store, "a", "v1.0.0")
    gone, copied = commit(store, "gone", "v1.0.0"), version("copied", "v1.0.0")
    assert names(now) == ["a", "gone"]
    store.put(key_of(copied), copied.to_json())
    store.delete([key_of(gone)])

    assert names(now + DAY - timedelta(seconds=1)) == ["a", "gone"]
    assert names(now + DAY) == ["a", "copied"]
    store.delete([key_of(copied)])
    assert names(now) == ["a"], "the clock went back"


@pytest.mark.parametrize("marked", [True, False])
def test_another_store_under_the_same_address(marked: bool, tmp_path: Path) -> None:
    first, second, folder = LocalDisk(tmp_path / "first"), LocalDisk(tmp_path / "second"), tmp_path / "index"
    commit(first, "m", "v1.0.0", f1=0.1)
    commit(first, "old", "v1.0.0")
    record(first, "m", tags={})
    index = Index(first, folder)
    assert refs(index, "f1=0.1") == ["m:v1.0.0"]
    if marked:
        commit(second, "m", "v1.0.0", f1=0.2)

    exchanged = Index(second, folder)

    assert exchanged.names() == (["m"] if marked else [])
    assert refs(exchanged, "f1=0.1") == []
    assert refs(exchanged, "f1=0.2") == (["m:v1.0.0"] if marked else [])
    assert refs(Index(first, folder), "f1=0.1") == ["m:v1.0.0"], "and back again"


def test_a_manifest_is_read_once(store: Store, index: Index, requests: Requests) -> None:
    new = commit(store, "m", "v1.0.0")
    entry = record(store, "m", tags={"good": f"v1.0.0@{new.digest}"})
    assert index.manifest("m", new.version, entry) == new
    requests.clear()

    assert index.manifest("m", new.version, entry) == new
    assert requests == []
    assert index.manifest("m", Version.parse("v9.0.0"), entry) is None
    assert requests == [("get", "versions/m/v9.0.0.json")]


def test_a_journal_that_went_on_is_looked_at_once(store: Store, index: Index, requests: Requests) -> None:
    new = commit(store, "m", "v1.0.0")
    index.manifest("m", new.version, record(store, "m", tags={"a": "v1.0.0@x"}))
    later = record(store, "m", tags={"b": "v1.0.0@x"})
    requests.clear()

    for _ in range(2):
        assert index.manifest("m", new.version, later) == new
    assert [operation for operation, _ in requests] == ["get"]
    assert refs(index, "tag=b") == ["m:v1.0.0"]


@pytest.mark.parametrize("entries", [1, 3])
def test_a_manifest_of_another_store_is_not_given(entries: int, tmp_path: Path) -> None:
    """Removed and made anew under the same path, with a journal as long, or longer."""
    first, second, folder = LocalDisk(tmp_path / "first"), LocalDisk(tmp_path / "second"), tmp_path / "index"
    old = commit(first, "m", "v1.0.0", f1=0.1)
    assert Index(first, folder).manifest("m", old.version, record(first, "m", tags={})) == old
    for number in range(entries):
        entry = record(second, "m", tags={}, number=number)

    index = Index(second, folder)
    assert index.manifest("m", old.version, entry) is None
    new = commit(second, "m", "v1.0.0", f1=0.22)
    assert index.manifest("m", old.version, entry) == new


def test_objects_that_can_t_be_read_are_named_and_tried_again(store: Store, index: Index) -> None:
    new = commit(store, "m", "v1.0.0")
    store.put("versions/n/v1.0.0.json", b"{")
    store.put(f"catalog/m/{10**12 - 2:012d}.json", b"[]")

    assert index.names() == ["m"]
    assert list(index.problems()) == [f"catalog/m/{10**12 - 2:012d}.json", "versions/n/v1.0.0.json"]
    assert "can't be read" in index.problems()["versions/n/v1.0.0.json"]

    store.delete([f"catalog/m/{10**12 - 2:012d}.json"])
    mended = replace(new, name="n", files=(), digest=content_digest(()))
    store.put("versions/n/v1.0.0.json", mended.to_json())
    assert index.names() == ["m", "n"] and index.problems() == {}


def test_a_store_that_is_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Memory()
    index = Index(store, None)
    commit(store, "m", "v1.0.0")
    assert index.names() == ["m"]

    def fail(*_: object) -> Any:
        raise StoreError("away")

    monkeypatch.setattr(Store, "objects", fail)
    with pytest.raises(StoreError, match="away"):
        index.names()


def test_progress_counts_what_is_read(store: Store, index: Index) -> None:
    for number in range(3):
        commit(store, "m", f"v1.{number}.0")
    counts: list[int] = []
    index.refresh(progress=counts.append)
    assert sum(counts) == 3


def test_what_is_not_understood_costs_no_request(store: Store, index: Index, requests: Requests) -> None:
    with pytest.raises(InvalidInput, match="task=text-classification"):
        index.search(["f1"])
    with pytest.raises(InvalidInput, match="can't sort"):
        index.search(sort="-")
    assert requests == []


def test_a_record_that_can_t_be_read_is_said_by_manifest(store: Store, index: Index) -> None:
    new = commit(store, "m", "v1.0.0")
    entry = record(store, "m", tags=5)
    with pytest.raises(IntegrityError, match="catalog/m can't be read"):
        index.manifest("m", new.version, entry)


def test_an_interrupted_sync_is_completed_by_the_next(store: Store, index: Index, tmp_path: Path) -> None:
    for number in range(3):
        commit(store, "m", f"v1.{number}.0")
    record(store, "m", deleted={"v1.0.0": "wrong"})

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.refresh(progress=interrupt)

    assert refs(index) == ["m:v1.1.0", "m:v1.2.0"]


def test_who_finds_that_another_began_anew_begins_again(store: Store, tmp_path: Path) -> None:
    file, other = IndexFile(tmp_path / "index"), IndexFile(tmp_path / "index")
    commit(store, "m", "v1.0.0")

    def begin_anew(_: int) -> None:
        other.write(rows.clear)

    with pytest.raises(Rebuilt):
        Sync(store, file).run(progress=begin_anew)
    assert file.read(rows.position_of).full_at is None

    Sync(store, file).run(progress=no_progress)

    assert file.read(search.names) == other.read(search.names) == ["m"]
