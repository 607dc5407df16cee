"""What every store promises, asked of each kind: memory, a folder, S3, Azure."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from modelyard.errors import IntegrityError, InvalidInput, NotFound
from modelyard.store import Journal, Store

BIG = 20 * 1024 * 1024 + 7


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


def keys(store: Store, prefix: str = "") -> list[str]:
    return sorted(found.key for found in store.objects(prefix))


def test_only_the_first_creation_counts(store: Store) -> None:
    assert store.create("a/b.json", b"first")
    assert not store.create("a/b.json", b"second")
    assert store.get("a/b.json") == b"first"


def test_of_racing_creations_one_wins(store: Store) -> None:
    # SeaweedFS lets a writer that met another one wait for a whole second.
    writers, rounds = (8, 2) if store.url.startswith("s3:") else (16, 10)
    barrier = threading.Barrier(writers)

    def write(key: str, writer: int) -> bool:
        barrier.wait()
        return store.create(key, b"%d" % writer)

    with ThreadPoolExecutor(writers) as pool:
        for round_ in range(rounds):
            key = f"race/{round_}"
            won = list(pool.map(write, [key] * writers, range(writers)))
            assert won.count(True) == 1
            assert store.get(key) == b"%d" % won.index(True)


def test_sizes(store: Store) -> None:
    store.put("a/b", b"four")
    assert store.size("a/b") == 4
    for key in ("a", "c"):
        with pytest.raises(NotFound, match=f"{key} is not in"):
            store.size(key)


def test_put_replaces(store: Store) -> None:
    store.put("a", b"old")
    store.put("a", b"new")
    assert store.get("a") == b"new"


@pytest.mark.parametrize("size", [0, 1, 8 * 1024 * 1024, BIG])
def test_streams_arrive_whole(store: Store, size: int) -> None:
    data = os.urandom(size)
    store.put("whole", data)
    store.put("parts", (data[start : start + 1_000_003] for start in range(0, size, 1_000_003)))
    for key in ("whole", "parts"):
        assert hashlib.sha256(b"".join(store.stream(key))).digest() == hashlib.sha256(data).digest()
        assert len(store.get(key)) == size


def test_a_stretch_of_a_stream(store: Store) -> None:
    data = bytes(range(256)) * 40_000
    store.put("a", data)
    for start, length in ((0, 1), (5, 9_000_000), (len(data) - 3, 3), (len(data) - 3, 100)):
        assert b"".join(store.stream("a", start, length)) == data[start : start + length]
    with pytest.raises(NotFound):
        next(store.stream("b", 1, 2))


def test_a_stream_that_breaks_leaves_nothing(store: Store) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * BIG
        raise InvalidInput("the disk is gone")

    with pytest.raises(InvalidInput, match="the disk is gone"):
        store.put("broken", broken())
    assert keys(store) == []


def test_objects_are_those_below_a_folder(store: Store) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "c"):
        store.put(key, b"12345")
    assert keys(store, "a") == keys(store, "a/") == ["a/1", "a/b/2"]
    assert keys(store) == ["a/1", "a/b/2", "ab/3", "c"]
    assert keys(store, "nothing/here") == []
    assert {found.size for found in store.objects("")} == {5}


def test_names_are_those_directly_in_a_folder(store: Store) -> None:
    for key in ("a/2", "a/1", "a/b/3", "ab/4"):
        store.put(key, b"")
    names = list(store.names("a"))
    assert sorted(names) == ["1", "2"]
    assert not store.ordered or names == sorted(names)
    assert list(store.names("nothing/here")) == []


def test_ordered_means_ordered(store: Store) -> None:
    for number in range(30):
        store.put(f"n/{29 - number:02}", b"")
    listed = [found.key for found in store.objects("n")]
    assert not store.ordered or listed == sorted(listed)
    assert sorted(listed) == [f"n/{number:02}" for number in range(30)]


def test_long_listings_are_complete(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.put(f"many/{number:04}", b""), range(1200)))
    assert keys(store, "many") == [f"many/{number:04}" for number in range(1200)]


@pytest.mark.parametrize(("start", "length"), [(0, 1), (3, 4), (0, 10), (9, 1), (8, 100)])
def test_a_range_is_a_part_of_an_object(store: Store, start: int, length: int) -> None:
    store.put("a/b", b"0123456789")
    assert store.get_range("a/b", start, length) == b"0123456789"[start : start + length]


def test_ranges_of_a_big_object_are_exact(store: Store) -> None:
    data = os.urandom(BIG)
    store.put("big", (data[start : start + 1_000_003] for start in range(0, BIG, 1_000_003)))
    for start in (0, 8 * 1024 * 1024 - 1, BIG - 10):
        assert store.get_range("big", start, 1024) == data[start : start + 1024]


def test_a_copy_is_an_object_of_its_own(store: Store) -> None:
    store.put("a/ü b", b"first")
    store.copy("a/ü b", "b/copy")
    store.put("a/ü b", b"second")
    assert (store.get("b/copy"), store.get("a/ü b")) == (b"first", b"second")
    store.copy("a/ü b", "b/copy")
    assert store.get("b/copy") == b"second"


def test_a_big_copy_is_whole(store: Store) -> None:
    data = os.urandom(BIG)
    store.put("big", (data[start : start + 1_000_003] for start in range(0, BIG, 1_000_003)))
    store.copy("big", "copy")
    assert store.get("copy") == data


def test_a_presigned_address_gives_the_object_to_anybody(store: Store) -> None:
    store.put("a/b.bin", b"0123456789")
    address = store.presign("a/b.bin", expires=timedelta(minutes=1))
    if not store.url.startswith(("s3:", "az:")):
        assert address is None
        return
    assert address is not None
    assert httpx.get(address).content == b"0123456789"
    part = httpx.get(address, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert httpx.get(address.replace("a/b.bin", "a/c.bin")).status_code in (403, 404)


@pytest.mark.parametrize("key", ["a/ü b.bin", "a#b", "50%", "a=b&c", "[x]+y"])
def test_an_address_that_is_given_is_right(store: Store, key: str) -> None:
    store.put(key, b"0123456789")
    address = store.presign(key, expires=timedelta(minutes=1))
    assert address is not None or not store.url.startswith("s3:")
    assert address is None or httpx.get(address).content == b"0123456789"


def test_an_object_may_come_back(store: Store) -> None:
    assert store.create("a", b"first")
    store.delete(["a"])
    with pytest.raises(NotFound):
        store.get("a")
    assert store.create("a", b"second")
    assert store.get("a") == b"second"


def test_delete_takes_what_is_there(store: Store) -> None:
    store.put("a/1", b"")
    store.put("a/2", b"")
    store.delete(["a/1", "a/missing", "b/missing"])
    assert keys(store) == ["a/2"]


def test_folders_are_listed_by_name(store: Store) -> None:
    for key in ("m/b/1", "m/a/x/2", "m/file", "n/c"):
        store.put(key, b"")
    assert store.list_directories("m") == store.list_directories("m/") == ["a", "b"]
    assert store.list_directories("") == ["m", "n"]
    assert store.list_directories("nothing") == []


def test_folders_go_up_and_come_down(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "a.bin").write_bytes(os.urandom(9_000_000))
    (source / "deep/er/empty").touch()
    store.upload(source, "models/m/v1/")
    assert keys(store) == ["models/m/v1/a.bin", "models/m/v1/deep/er/empty"]
    down = store.download("models/m/v1/", tmp_path / "down")
    assert down == tmp_path / "down"
    assert (down / "a.bin").read_bytes() == (source / "a.bin").read_bytes()
    assert (down / "deep/er/empty").read_bytes() == b""


def test_one_file_goes_up_under_its_name(store: Store, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"weights")
    store.upload(str(tmp_path / "m.onnx"), "models/one")
    assert store.get("models/one/m.onnx") == b"weights"


def test_json_survives(store: Store) -> None:
    document = {"a": [1, 2.5, None, True], "ü": {"nested": "“text”"}, "big": 2**70}
    store.put_json(document, "config.json")
    assert store.get_json("config.json") == document


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), "\ud800"])
def test_what_json_cannot_hold_is_refused(store: Store, value: object) -> None:
    with pytest.raises(InvalidInput, match=r"x\.json can't be written as JSON"):
        store.put_json({"value": value}, "x.json")
    assert keys(store) == []


def test_an_object_that_is_not_json_is_named(store: Store) -> None:
    store.put("x.json", b"{")
    with pytest.raises(IntegrityError, match=r"x\.json in .* is not JSON"):
        store.get_json("x.json")


def test_what_is_missing_is_named(store: Store) -> None:
    with pytest.raises(NotFound, match="no/such is not in"):
        store.get("no/such")
    with pytest.raises(NotFound, match="no/such is not in"):
        list(store.stream("no/such"))
    with pytest.raises(NotFound, match="no/such is not in"):
        store.get_range("no/such", 0, 1)
    with pytest.raises(NotFound, match="no/such is not in"):
        store.copy("no/such", "b")
    with pytest.raises(NotFound, match=r"no/such\.json"):
        store.get_json("no/such.json")
    with pytest.raises(NotFound, match="nothing is stored below 'no/such'"):
        store.download("no/such")


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../../b", "a/./b", "a\\b", "a\nb", "a\x00b"])
def test_keys_that_leave_their_folder_are_refused(store: Store, key: str) -> None:
    refused = pytest.raises(InvalidInput, match="is not a path inside the store")
    with refused:
        store.get(key)
    with refused:
        list(store.stream(key))
    with refused:
        store.put(key, b"")
    with refused:
        store.create(key, b"")
    with refused:
        store.delete([key])
    with refused:
        store.get_range(key, 0, 1)
    with refused:
        store.copy(key, "a")
    with refused:
        store.copy("a", key)
    with refused:
        store.presign(key, expires=timedelta(minutes=1)) or store.get(key)


@pytest.mark.parametrize("key", ["we ird ü+@~%20.txt", "%.x", "a#1/b", "[x]{y}^`", "…/日本語", "a=b&c"])
def test_unusual_keys_survive(store: Store, key: str) -> None:
    assert store.create(f"odd/{key}", b"1")
    assert not store.create(f"odd/{key}", b"2")
    assert keys(store) == [f"odd/{key}"]
    assert store.get(f"odd/{key}") == b"1"


def test_a_journal_counts_and_keeps_everything(store: Store) -> None:
    journal = Journal(store, "catalog/m")
    assert journal.read() is None
    assert journal.history() == []
    for number in range(12):
        journal.update(lambda state: state | {f"k{len(state)}": len(state)}, by="me", why=f"change {number}")
    entries = journal.history()
    assert [entry.number for entry in entries] == list(range(1, 13))
    assert entries[-1] == journal.read()
    assert entries[-1].state == {f"k{n}": n for n in range(12)}


def test_racing_changes_of_a_journal_are_all_kept(store: Store) -> None:
    journal = Journal(store, "counter")

    def add(writer: int) -> None:
        for _ in range(4):
            journal.update(lambda state: {"sum": state.get("sum", 0) + 1}, by=str(writer), why="add")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    entries = journal.history()
    assert [(entry.number, entry.state["sum"]) for entry in entries] == [(n, n) for n in range(1, 33)]
