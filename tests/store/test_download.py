"""Downloads: what an interrupted process left is continued, one process downloads for all, nobody waits for ever."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from modelyard.errors import IntegrityError, StoreError
from modelyard.store import Cache, LocalDisk, Memory, Store
from modelyard.store.objects import CHUNK, Buffer
from modelyard.store.parallel import Stop
from modelyard.store.reading import Reader

SIZE = 3 * CHUNK + 5
DATA = os.urandom(SIZE)


@dataclass(frozen=True)
class Stored:
    path: str
    key: str
    size: int
    sha256: str


FILE = Stored("weights.bin", "m/weights.bin", SIZE, hashlib.sha256(DATA).hexdigest())


class Given(Store):
    """A store in memory that keeps what it was asked for, and fails beyond the first `steps` chunks."""

    def __init__(self, *, steps: int = 1_000_000) -> None:
        super().__init__(MemoryStore(), "memory://")
        self.put(FILE.key, DATA)
        self.given: list[tuple[int, int]] = []
        self._steps = steps

    def read(self, key: str, start: int, length: int, *, size: int) -> Iterator[Buffer]:
        self.given.append((start, length))
        for piece in super().read(key, start, length, size=size):
            left = max(0, self._steps * CHUNK - start)
            yield memoryview(piece)[:left]
            if len(piece) > left:
                raise StoreError("the network is gone")
            start += len(piece)


def partial(cache: Path) -> Path:
    return cache / "partial" / FILE.sha256


def read(tree: Path) -> bytes:
    return (tree / FILE.path).read_bytes()


@pytest.mark.parametrize("size", [0, 1, CHUNK, 3 * CHUNK + 3])
@pytest.mark.parametrize("start", [0, CHUNK + 1])
def test_objects_are_read_in_order(size: int, start: int, store: Store) -> None:
    data = os.urandom(1024) * (size // 1024) + os.urandom(size % 1024)
    store.put("k", data)
    with Reader(store, Stop()) as reader:
        assert b"".join(bytes(chunk) for chunk in reader.chunks("k", size, min(start, size))) == data[start:]


@pytest.fixture
def slow_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request at a time is never quick enough."""
    monkeypatch.setattr("modelyard.store.reading._QUICK", 1e18)


def test_a_slow_network_is_asked_for_many_stretches_at_once(store: Store, slow_network: None) -> None:
    data = os.urandom(4 * CHUNK + 3)
    store.put("k", data)
    with Reader(store, Stop()) as reader:
        assert b"".join(bytes(chunk) for chunk in reader.chunks("k", len(data), 1)) == data[1:]


def test_many_objects_are_read_at_once_with_few_buffers(slow_network: None) -> None:
    store, data = Memory(), os.urandom(3 * CHUNK)
    store.put("k", data)
    with Reader(store, Stop()) as reader, ThreadPoolExecutor(20) as pool:

        def digest(_: int) -> str:
            sha = hashlib.sha256()
            for chunk in reader.chunks("k", len(data)):
                sha.update(chunk)
            return sha.hexdigest()

        assert set(pool.map(digest, range(20))) == {hashlib.sha256(data).hexdigest()}


def test_a_reader_that_is_left_early_gives_its_buffers_back(slow_network: None) -> None:
    store = Memory()
    store.put("k", bytes(4 * CHUNK))
    with Reader(store, Stop()) as reader:
        for _ in range(20):
            chunks = reader.chunks("k", 4 * CHUNK)
            while len(next(chunks)) < CHUNK:
                continue
            chunks.close()
        assert sum(len(chunk) for chunk in reader.chunks("k", 4 * CHUNK)) == 4 * CHUNK


def test_a_broken_download_goes_on_where_it_ended(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the network is gone"):
        Cache(tmp_path).tree(Given(steps=2), "d", [FILE])
    assert partial(tmp_path).read_bytes() == DATA[: 2 * CHUNK]
    assert list((tmp_path / "trees").iterdir()) == []
    store, done = Given(), list[int]()

    tree = Cache(tmp_path).tree(store, "d", [FILE], progress=done.append)

    assert read(tree) == DATA
    assert sorted(store.given) == [(2 * CHUNK, CHUNK), (3 * CHUNK, 5)]
    assert sum(done) == SIZE
    assert not partial(tmp_path).exists()


@pytest.mark.parametrize("left", [b"x" * 1000, DATA[:CHUNK] + bytes(CHUNK), DATA + b"more", bytes(SIZE)])
def test_a_beginning_that_does_not_fit_is_not_continued(left: bytes, tmp_path: Path) -> None:
    partial(tmp_path).parent.mkdir(parents=True)
    partial(tmp_path).write_bytes(left)
    done: list[int] = []
    assert read(Cache(tmp_path).tree(Given(), "d", [FILE], progress=done.append)) == DATA
    assert sum(done) == SIZE


def test_what_the_store_damaged_leaves_nothing(tmp_path: Path) -> None:
    store = Given()
    store.put(FILE.key, bytes(SIZE))
    partial(tmp_path).parent.mkdir(parents=True)
    partial(tmp_path).write_bytes(DATA[:CHUNK])
    with pytest.raises(IntegrityError, match=r"weights\.bin is damaged in the store"):
        Cache(tmp_path).tree(store, "d", [FILE])
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "leases"] == [
        tmp_path / "evict.lock"
    ]


HOLDER = """
import sys
from dataclasses import make_dataclass
from pathlib import Path
from modelyard.store import Cache, LocalDisk, Store, download, reading
from modelyard.store.objects import CHUNK

read = Store.read

def slow(self, key, start, length, *, size):
    if start >= 2 * CHUNK:
        sys.stdin.read()  # until the test lets go
    return read(self, key, start, length, size=size)

Store.read = slow
reading._LONGEST = CHUNK
download.clone = lambda *_: False
store, cache, sha256, size = sys.argv[1:]
File = make_dataclass("File", ["path", "key", "size", "sha256"])
Cache(Path(cache)).tree(LocalDisk(store), "d", [File("weights.bin", "m/weights.bin", int(size), sha256)])
"""


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    disk = LocalDisk(tmp_path / "store")
    disk.put(FILE.key, DATA)
    return disk


@pytest.fixture
def holder(disk: Store, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has downloaded two thirds and holds the lock; it goes on when its input is closed."""
    arguments = [str(tmp_path / "store"), str(tmp_path / "cache"), FILE.sha256, str(SIZE)]
    process = subprocess.Popen([sys.executable, "-c", HOLDER, *arguments], stdin=subprocess.PIPE)
    try:
        here = partial(tmp_path / "cache")
        until(lambda: here.exists() and here.stat().st_size == 2 * CHUNK)
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_killed_process_has_is_continued(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    store = Given()
    assert read(Cache(tmp_path / "cache").tree(store, "d", [FILE])) == DATA
    assert sorted(store.given) == [(2 * CHUNK, CHUNK), (3 * CHUNK, 5)]


@pytest.mark.parametrize("end", ["finishes", "is killed"])
def test_others_wait_for_the_one_that_downloads(end: str, holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    store, done, waiting = Given(), list[int](), threading.Event()

    def watch(count: int) -> None:
        done.append(count)
        waiting.set()

    with ThreadPoolExecutor(1) as pool:
        pulled = pool.submit(Cache(tmp_path / "cache").tree, store, "d", [FILE], progress=watch)
        assert waiting.wait(60)
        assert store.given == []
        if end == "finishes":
            holder.communicate()
        else:
            holder.kill()
        assert read(pulled.result()) == DATA
    assert sum(done) == SIZE
    assert sum(length for _, length in store.given) == (0 if end == "finishes" else CHUNK + 5)


@pytest.mark.parametrize("stopped", [False, True])
def test_nobody_waits_for_ever(stopped: bool, holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    if stopped:
        holder.send_signal(signal.SIGSTOP)
    done: list[int] = []
    tree = Cache(tmp_path / "cache", patience_s=0.1).tree(Given(), "e", [FILE], progress=done.append)
    assert read(tree) == DATA
    assert sum(done) == SIZE
    assert [path.name for path in (tmp_path / "cache/partial").iterdir()] == [FILE.sha256]
    holder.send_signal(signal.SIGCONT)
    holder.communicate()
    assert holder.returncode == 0
    assert read(tmp_path / "cache/trees/d") == DATA


def test_one_of_many_downloads(disk: Store, tmp_path: Path) -> None:
    store = Given()
    caches = [Cache(tmp_path / "cache") for _ in range(6)]
    with ThreadPoolExecutor(len(caches)) as pool:
        trees = set(pool.map(lambda cache: cache.tree(store, "d", [FILE]), caches))
    assert [read(tree) for tree in trees] == [DATA]
    assert sum(length for _, length in store.given) == SIZE


def test_a_file_system_that_shares_blocks_is_used(
    disk: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: list[tuple[str, str]]
) -> None:
    """What was cloned is verified all the same."""

    def ioctl(descriptor: int, request: int, source: int) -> int:
        assert request == 0x40049409
        os.write(descriptor, os.pread(source, SIZE + 1, 0))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert read(Cache(tmp_path / "cache").tree(disk, "d", [FILE])) == DATA
    assert requests == []
    disk.put(FILE.key, bytes(SIZE))
    with pytest.raises(IntegrityError, match=r"weights\.bin is damaged in the store"):
        Cache(tmp_path / "other").tree(disk, "d", [FILE])
