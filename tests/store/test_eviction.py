"""A bounded cache: what was used longest ago goes, what is used stays, what the killed left is removed."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelyard.errors import StoreError
from modelyard.store import Cache, Memory, Store
from modelyard.store.eviction import RECENT_S
from modelyard.store.locks import locked

SIZE = 1000
OLD = RECENT_S + 60
DAY = 24 * 3600


@dataclass(frozen=True)
class Stored:
    path: str
    key: str
    size: int
    sha256: str


def put(store: Store, *letters: str) -> list[Stored]:
    """Files of 1,000 bytes."""
    for letter in letters:
        store.put(letter, letter.encode() * SIZE)
    return [Stored(x, x, SIZE, hashlib.sha256(x.encode() * SIZE).hexdigest()) for x in letters]


def pull(folder: Path, store: Store, name: str, *letters: str, limit: int | None = 3 * SIZE) -> Path:
    """As a process does that ends then: its leases end with it."""
    cache = Cache(folder, limit=limit)
    tree = cache.tree(store, name, put(store, *letters))
    for descriptor in cache._leases._held.values():
        os.close(descriptor)
    return tree


def age(folder: Path, name: str, seconds: float = OLD) -> None:
    """As if the tree had been used so long ago."""
    then = time.time() - seconds
    os.utime(folder / "leases" / name, (then, then))


def trees(folder: Path) -> set[str]:
    return {path.name for path in (folder / "trees").iterdir()}


def blobs(folder: Path) -> int:
    return sum(path.is_file() for path in (folder / "blobs").rglob("*"))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store = Memory()
    for name, seconds in (("a", OLD), ("b", OLD + 20), ("c", OLD + 10)):
        pull(tmp_path, store, name, name)
        age(tmp_path, name, seconds)
    pull(tmp_path, store, "d", "d")
    assert trees(tmp_path) == {"a", "c", "d"}
    assert blobs(tmp_path) == 3
    age(tmp_path, "c", OLD + 10)
    pull(tmp_path, store, "e", "e", "f")
    assert trees(tmp_path) == {"d", "e"}
    assert blobs(tmp_path) == 3


def test_using_a_tree_again_makes_it_new(tmp_path: Path) -> None:
    store = Memory()
    for name, seconds in (("a", OLD + 10), ("b", OLD)):
        pull(tmp_path, store, name, name)
        age(tmp_path, name, seconds)
    pull(tmp_path, store, "a", "a")
    pull(tmp_path, store, "c", "c", "d")
    assert trees(tmp_path) == {"a", "c"}


def test_what_versions_share_stays_with_the_last_of_them(tmp_path: Path) -> None:
    store = Memory()
    pull(tmp_path, store, "a", "x", "y")
    pull(tmp_path, store, "b", "x", "z")
    age(tmp_path, "a")
    shared = (tmp_path / "trees/b/x").stat().st_ino
    pull(tmp_path, store, "c", "w")
    assert trees(tmp_path) == {"b", "c"}
    assert (tmp_path / "trees/b/x").stat().st_ino == shared
    assert blobs(tmp_path) == 3


def test_what_was_used_a_moment_ago_stays(tmp_path: Path) -> None:
    store = Memory()
    for name in ("a", "b", "c", "d"):
        pull(tmp_path, store, name, name, limit=SIZE)
    assert trees(tmp_path) == {"a", "b", "c", "d"}


def test_without_a_limit_everything_stays(tmp_path: Path) -> None:
    store = Memory()
    for name in ("a", "b", "c"):
        pull(tmp_path, store, name, name, limit=None)
        age(tmp_path, name)
    assert trees(tmp_path) == {"a", "b", "c"}


def test_what_this_process_uses_stays(tmp_path: Path) -> None:
    store = Memory()
    tree = Cache(tmp_path, limit=SIZE).tree(store, "a", put(store, "a"))  # the cache itself is gone
    age(tmp_path, "a")
    pull(tmp_path, store, "b", "b", limit=SIZE)
    assert (tree / "a").read_bytes() == b"a" * SIZE


USER = """
import sys
from dataclasses import make_dataclass
from pathlib import Path
from modelyard.store import Cache, Memory

folder, sha256 = sys.argv[1:]
store = Memory()
store.put("a", b"a" * 1000)
File = make_dataclass("File", ["path", "key", "size", "sha256"])
tree = Cache(Path(folder)).tree(store, "a", [File("a", "a", 1000, sha256)])
print(tree, flush=True)
sys.stdin.read()
"""


def test_what_another_process_uses_stays_until_it_is_killed(tmp_path: Path) -> None:
    store = Memory()
    sha256 = put(store, "a")[0].sha256
    command = [sys.executable, "-c", USER, str(tmp_path), sha256]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        try:
            assert user.stdout is not None
            tree = Path(user.stdout.readline().strip())
            age(tmp_path, "a")
            pull(tmp_path, store, "b", "b", limit=SIZE)
            assert (tree / "a").read_bytes() == b"a" * SIZE
        finally:
            user.kill()
    pull(tmp_path, store, "c", "c", limit=SIZE)
    assert not tree.exists()


def test_a_version_larger_than_the_limit_works_with_one_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Memory()
    cache = Cache(tmp_path, limit=SIZE)
    with caplog.at_level(logging.WARNING):
        for name in ("one", "two"):
            letters = f"{name}abc"
            tree = cache.tree(store, name, put(store, *letters))
            assert {path.name for path in tree.iterdir()} == set(letters)
    assert len(caplog.records) == 1
    assert "cache_limit" in caplog.text


def test_leftovers_of_the_killed_are_removed(tmp_path: Path) -> None:
    store = Memory()
    pull(tmp_path, store, "a", "a")
    half = tmp_path / "building/half"
    (half / "deep").mkdir(parents=True)
    (half / "deep/file").touch()
    held = tmp_path / "building/held"
    held.mkdir()
    leftovers = {".private": OLD, "resumable": OLD, "forgotten": 2 * DAY}
    for name, seconds in leftovers.items():
        (tmp_path / "partial" / name).touch()
        os.utime(tmp_path / "partial" / name, (time.time() - seconds,) * 2)
    (tmp_path / "leases/gone").touch()
    for path in (half, held, tmp_path / "leases/gone"):
        os.utime(path, (time.time() - OLD,) * 2)

    with locked(held) as mine:
        assert mine
        pull(tmp_path, store, "b", "b", limit=None)

    assert [path.name for path in (tmp_path / "building").iterdir()] == ["held"]
    assert [path.name for path in (tmp_path / "partial").iterdir()] == ["resumable"]
    assert {path.name for path in (tmp_path / "leases").iterdir()} == {"a", "b"}


def test_contents_without_a_tree_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their process was killed between the download and the tree."""
    store = Memory()
    pull(tmp_path, store, "a", "a", "b")
    for name in ("a", "b"):
        (tmp_path / "trees/a" / name).unlink()
    pull(tmp_path, store, "c", "c", limit=2 * SIZE)
    assert blobs(tmp_path) == 3
    monkeypatch.setattr("modelyard.store.eviction.RECENT_S", 0)
    pull(tmp_path, store, "d", "d", limit=2 * SIZE)
    assert blobs(tmp_path) == 2


def test_a_cache_that_somebody_sits_on_is_one_line(tmp_path: Path) -> None:
    store = Memory()
    (tmp_path / "leases").mkdir()
    with locked(tmp_path / "leases/a"), pytest.raises(StoreError, match="another process holds its locks") as failed:
        Cache(tmp_path, patience_s=0.05).tree(store, "a", put(store, "a"))
    assert "\n" not in str(failed.value)


SHRINK = """
import random, sys
from dataclasses import make_dataclass
from hashlib import sha256
from pathlib import Path
from modelyard.store import Cache, Memory, eviction

eviction.RECENT_S = 0  # everything that no process uses may go at any moment
File = make_dataclass("File", ["path", "key", "size", "sha256"])
store, draw = Memory(), random.Random(sys.argv[2])
data = {name: name.encode() * 1000 for name in "abcdefgh"}
for name, content in data.items():
    store.put(name, content)
print("ready", flush=True)
for _ in range(30):
    names = draw.sample(sorted(data), 3)
    files = [File(name, name, 1000, sha256(data[name]).hexdigest()) for name in names]
    tree = Cache(Path(sys.argv[1]), limit=4000).tree(store, "-".join(sorted(names)), files)
    for name in names:
        assert (tree / name).read_bytes() == data[name]
"""


def test_processes_that_fill_shrink_and_are_killed_harm_nobody(tmp_path: Path) -> None:
    def start(seed: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SHRINK, str(tmp_path), str(seed)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    users = [start(seed) for seed in range(5)]
    for victim in users[:2]:
        assert victim.stdout is not None
        victim.stdout.readline()
        victim.kill()
        victim.communicate()
    for user in users[2:]:
        assert user.communicate(timeout=120)[1] == ""
        assert user.returncode == 0
