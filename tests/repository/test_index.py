"""The index: up to date with a bucket that others write to, die in, and exchange; never trusted over it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import IntegrityError, InvalidInput, StoreError
from modelyard.refs import Version
from modelyard.repository import Deployment, Environment, ModelInfo, ModelRepository, ModelVersion, Pin, changes
from modelyard.repository.index import Index, search
from modelyard.repository.index.file import IndexFile
from modelyard.repository.index.sync import Sync
from modelyard.repository.manifest import Artifact, content_digest
from modelyard.store import Entry, Journal, LocalDisk, Memory, Store
from modelyard.store.transfer import no_progress

Requests = list[tuple[str, str]]

DAY = timedelta(days=1)


@pytest.fixture
def index(store: Store, tmp_path: Path) -> Index:
    return Index(store, tmp_path / "index")


def version(name: str, number: str, *, info: ModelInfo | None = None, **metadata: Any) -> ModelVersion:
    created = datetime(2026, 11, 24, tzinfo=UTC)
    new = ModelVersion(
        id=f"{abs(hash((name, number, str(metadata)))) % 16**16:016x}",
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


def test_memory_is_indexed_in_memory(tmp_path: Path) -> None:
    one, other = Memory(), Memory()
    commit(one, "a", "v1.0.0")
    assert Index(one, tmp_path / "index").names() == ["a"]
    assert Index(other, tmp_path / "index").names() == []
    assert not (tmp_path / "index").exists()


def test_a_folder_that_can_t_be_written_is_done_without(tmp_path: Path) -> None:
    store = LocalDisk(tmp_path / "store")
    commit(store, "a", "v1.0.0")
    (tmp_path / "file").write_bytes(b"")
    assert Index(store, tmp_path / "file" / "index").names() == ["a"]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "not a database": lambda path: path.write_bytes(b"nonsense" * 1000),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "overwritten inside": lambda path: path.write_bytes(path.read_bytes()[:5000] + b"\xff" * 60000),
    "other tables": lambda path: _execute(path, "DROP TABLE facts"),
    "a damaged manifest": lambda path: _execute(path, "UPDATE manifests SET data = x'00'"),
}


def _execute(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_made_anew(damage: Callable[[Path], object], tmp_path: Path) -> None:
    store, folder = LocalDisk(tmp_path / "store"), tmp_path / "index"
    new = commit(store, "m", "v1.0.0", f1=0.5)
    entry = record(store, "m", tags={})
    before = Index(store, folder)
    assert refs(before, "f1=0.5") == ["m:v1.0.0"]
    del before  # closes the file, which then is complete
    (path,) = folder.glob("*.sqlite")
    damage(path)

    index = Index(store, folder)

    assert index.manifest("m", new.version, entry) == new
    assert index.search(["f1=0.5"], details=True)[0].metadata == {"f1": 0.5}
    assert index.names() == ["m"]
    assert len(list(folder.glob("*.sqlite"))) == 1


def test_damage_while_it_is_open(tmp_path: Path) -> None:
    store, folder = LocalDisk(tmp_path / "store"), tmp_path / "index"
    commit(store, "m", "v1.0.0")
    index, other = Index(store, folder), Index(store, folder)
    assert index.names() == other.names() == ["m"]
    _execute(next(folder.glob("*.sqlite")), "DROP TABLE versions")

    commit(store, "n", "v1.0.0")

    assert index.names() == ["m", "n"]
    assert other.names() == ["m", "n"]


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


def test_threads_share_an_index(store: Store, index: Index) -> None:
    for number in range(5):
        commit(store, "m", f"v1.{number}.0")
    seen: list[list[str]] = []
    threads = [threading.Thread(target=lambda: seen.append(index.names())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [["m"]] * 8


READER = """
import json, sys
from pathlib import Path
from modelyard.repository.index import Index, search
from modelyard.store import open_store
index = Index(open_store(sys.argv[1]), Path(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps([f"{each.name}:{each.version}" for each in index.search(["f1>=0"])]), flush=True)
"""


def test_processes_share_an_index_while_others_write(shared_store: Store, tmp_path: Path) -> None:
    expected = [f"m-{number}:v1.{minor}.0" for number in range(4) for minor in range(10)]
    for number in range(2):
        for minor in range(10):
            commit(shared_store, f"m-{number}", f"v1.{minor}.0", f1=0.5)
    command = [sys.executable, "-c", READER, shared_store.url, str(tmp_path / "index")]
    readers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        for reader in readers:
            assert reader.stdout and reader.stdout.readline() == "ready\n"
        for step in (slice(0, 20), slice(20, 30), slice(30, 40)):
            for reference in expected[step] if step.start else ():
                commit(shared_store, *reference.split(":"), f1=0.5)
            for reader in readers:
                assert reader.stdin
                reader.stdin.write("\n")
                reader.stdin.flush()
            for reader in readers:
                assert reader.stdout
                assert json.loads(reader.stdout.readline()) == expected[: step.stop]
    finally:
        for reader in readers:
            reader.communicate()


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
