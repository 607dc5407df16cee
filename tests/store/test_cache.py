"""The local cache: what was verified is what lies there, whoever fills, damages or mends it at the same time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelyard.errors import IntegrityError, StoreError
from modelyard.store import Cache, LocalDisk, Memory, Store

Requests = list[tuple[str, str]]


@dataclass(frozen=True)
class Stored:
    path: str
    key: str
    size: int
    sha256: str


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def fill(store: Store) -> list[Stored]:
    contents = {"a.bin": b"a" * 100_000, "deep/b.bin": b"b" * 10, "empty": b"", "same.bin": b"b" * 10}
    files = [Stored(path, f"m/{path}", len(data), hashlib.sha256(data).hexdigest()) for path, data in contents.items()]
    for file in files:
        store.put(file.key, contents[file.path])
    return files


def content(tree: Path) -> dict[str, bytes]:
    return {p.relative_to(tree).as_posix(): p.read_bytes() for p in tree.rglob("*") if p.is_file()}


def everything(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def damage(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"damaged")


def test_a_tree_holds_the_registered_files(store: Store, cache: Cache) -> None:
    files = fill(store)
    tree = cache.tree(store, "d", files)
    assert {file.path: hashlib.sha256(content(tree)[file.path]).hexdigest() for file in files} == {
        file.path: file.sha256 for file in files
    }
    assert set(content(tree)) == {file.path for file in files}
    assert not any(path.stat().st_mode & 0o222 for path in everything(tree))


def test_the_second_time_asks_the_store_nothing(cache: Cache, requests: Requests) -> None:
    store = Memory()
    files = fill(store)
    requests.clear()
    moved: list[int] = []
    first = cache.tree(store, "d", files, progress=moved.append)
    assert sorted(key for _, key in requests) == ["m/a.bin", "m/deep/b.bin", "m/empty"]
    assert sum(moved) == 100_010
    requests.clear()
    assert cache.tree(store, "d", files) == first
    assert cache.tree(store, "d", files, recheck=True) == first
    assert requests == []


def test_versions_share_what_they_have_in_common(cache: Cache, requests: Requests) -> None:
    store = Memory()
    files = fill(store)
    cache.tree(store, "d", files)
    requests.clear()
    other = cache.tree(store, "e", files[:2])
    assert set(content(other)) == {"a.bin", "deep/b.bin"}
    assert requests == []


@pytest.mark.parametrize("stored", [b"a" * 99_999 + b"b", b"a" * 99_999, b"a" * 100_001, b""])
def test_damaged_objects_are_refused_and_named(stored: bytes, cache: Cache, tmp_path: Path) -> None:
    store = Memory()
    files = fill(store)
    store.put("m/a.bin", stored)
    with pytest.raises(IntegrityError, match=r"a\.bin is damaged in the store: m/a\.bin in memory://"):
        cache.tree(store, "d", files)
    assert all(path.stat().st_size != len(stored) or not stored for path in everything(tmp_path / "cache"))
    assert list((tmp_path / "cache").glob("trees/*")) == []
    assert [path for path in everything(tmp_path / "cache") if path.name.startswith(".")] == []
    store.put("m/a.bin", b"a" * 100_000)
    assert content(cache.tree(store, "d", files))["a.bin"] == b"a" * 100_000


def test_missing_objects_are_named(cache: Cache) -> None:
    store = Memory()
    files = fill(store)
    store.delete(["m/a.bin"])
    with pytest.raises(IntegrityError, match=r"a\.bin is missing in the store"):
        cache.tree(store, "d", files)


def test_what_is_damaged_in_the_cache_is_found_and_mended(cache: Cache, requests: Requests) -> None:
    store = Memory()
    files = fill(store)
    tree = cache.tree(store, "d", files)
    assert cache.verify("d", files) == []
    damage(tree / "a.bin")
    (tree / "empty").unlink()
    (tree / "same.bin").unlink()
    (tree / "same.bin").write_bytes(b"replaced")
    assert [file.path for file in cache.verify("d", files)] == ["a.bin", "empty", "same.bin"]
    requests.clear()
    cache.tree(store, "d", files, recheck=True)
    assert requests == [("read", "m/a.bin")]
    assert cache.verify("d", files) == []
    assert content(tree)["a.bin"] == b"a" * 100_000
    assert list(tree.parent.glob(".*")) == []


def test_a_disturbed_seal_is_enough_to_look_again(cache: Cache, requests: Requests) -> None:
    store = Memory()
    files = fill(store)
    tree = cache.tree(store, "d", files)
    damage(tree / "a.bin")
    (tree / "empty").chmod(0o644)
    requests.clear()
    assert content(cache.tree(store, "d", files))["a.bin"] == b"a" * 100_000
    assert requests == [("read", "m/a.bin")]
    assert not any(path.stat().st_mode & 0o222 for path in everything(tree))


def test_a_touched_file_is_sealed_again(cache: Cache, requests: Requests) -> None:
    store = Memory()
    files = fill(store)
    tree = cache.tree(store, "d", files)
    before = (tree / "a.bin").stat()
    (tree / "a.bin").touch()
    requests.clear()
    cache.tree(store, "d", files)
    assert requests == []
    assert (tree / "a.bin").stat().st_mtime == before.st_mtime
    assert (tree / "a.bin").stat().st_ino == before.st_ino


def test_a_seal_holds_for_one_content_only(cache: Cache) -> None:
    store = Memory()
    store.put("x", b"x" * 10)
    store.put("y", b"y" * 10)
    files = [Stored(name, name, 10, hashlib.sha256(name.encode() * 10).hexdigest()) for name in ("x", "y")]
    tree = cache.tree(store, "d", files)
    (tree / "x").rename(tree / "z")
    (tree / "y").rename(tree / "x")
    (tree / "z").rename(tree / "y")
    assert content(cache.tree(store, "d", files)) == {"x": b"x" * 10, "y": b"y" * 10}


def rot(path: Path) -> None:
    """Other bytes behind an intact seal, as a failing disk leaves them."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"r" * before.st_size)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    path.chmod(0o444)


def test_damage_behind_a_seal_is_found_by_hashing(cache: Cache, requests: Requests) -> None:
    store = Memory()
    files = fill(store)
    tree = cache.tree(store, "d", files)
    rot(tree / "a.bin")
    requests.clear()
    assert content(cache.tree(store, "d", files, recheck=True))["a.bin"] == b"a" * 100_000
    assert requests == [("read", "m/a.bin")]


def test_a_folder_in_the_way_is_replaced_by_what_was_registered(cache: Cache, tmp_path: Path) -> None:
    store = Memory()
    files = fill(store)
    tree = cache.tree(store, "d", files)
    (tree / "deep").rename(tmp_path / "elsewhere")
    (tree / "deep").symlink_to(tmp_path / "elsewhere")
    cache.tree(store, "d", files)
    assert not (tree / "deep").is_symlink()
    assert (tree / "deep/b.bin").read_bytes() == b"b" * 10


def test_copies_are_the_callers_own(cache: Cache, tmp_path: Path, requests: Requests) -> None:
    store = Memory()
    files = fill(store)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        cache.copy(store, "d", files, tmp_path / name)
        assert content(tmp_path / name) == content(cache.tree(store, "d", files))
        (tmp_path / name / "a.bin").write_bytes(b"mine")
    requests.clear()
    assert cache.verify("d", files) == []
    assert requests == []


def test_damage_behind_a_seal_is_not_copied(cache: Cache, tmp_path: Path) -> None:
    store = Memory()
    files = fill(store)
    rot(cache.tree(store, "d", files) / "a.bin")
    cache.copy(store, "d", files, tmp_path / "mine")
    assert content(tmp_path / "mine")["a.bin"] == b"a" * 100_000
    assert cache.verify("d", files) == []


def test_damage_is_not_handed_on_to_a_new_tree(cache: Cache) -> None:
    store = Memory()
    files = fill(store)
    damage(cache.tree(store, "d", files) / "a.bin")
    assert content(cache.tree(store, "e", files, recheck=True))["a.bin"] == b"a" * 100_000


def test_strangers_in_a_tree_are_removed(cache: Cache) -> None:
    store = Memory()
    files = fill(store)
    tree = cache.tree(store, "d", files)
    (tree / "deep/modeling.py").write_text("import os")
    (tree / "link").symlink_to("/etc/passwd")
    cache.tree(store, "d", files, recheck=True)
    assert sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*") if not p.is_dir()) == [
        "a.bin",
        "deep/b.bin",
        "empty",
        "same.bin",
    ]


@pytest.mark.parametrize("blocked", ["blobs", "trees"])
def test_a_cache_that_cannot_be_written_is_one_line(blocked: str, cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / blocked).touch()
    store = Memory()
    with pytest.raises(
        StoreError, match=r"the cache in .*cache can't be used: (Not a directory|File exists); make room"
    ) as failed:
        cache.tree(store, "d", fill(store))
    assert "\n" not in str(failed.value)


def test_a_blob_replaced_at_the_moment_of_linking_is_linked_again(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, failures = os.link, [FileNotFoundError()] * 3

    def busy(source: Path, target: Path) -> None:
        if failures:
            raise failures.pop()
        link(source, target)

    monkeypatch.setattr(os, "link", busy)
    store = Memory()
    files = fill(store)
    cache.tree(store, "d", files)
    assert failures == []
    assert cache.verify("d", files) == []


def test_many_threads_fill_and_mend_one_tree(tmp_path: Path) -> None:
    """Nobody who was handed a tree may ever find a file of it missing or wrong afterwards."""
    store = LocalDisk(tmp_path / "store")
    files = fill(store)
    caches = [Cache(tmp_path / "cache") for _ in range(8)]
    tree = caches[0].tree(store, "d", files)
    for _ in range(5):
        damage(tree / "a.bin")
        barrier = threading.Barrier(len(caches))

        def use(cache: Cache, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            handed = cache.tree(store, "d", files, recheck=True)
            for _ in range(5):
                assert {path: len(data) for path, data in content(handed).items()} == {f.path: f.size for f in files}

        with ThreadPoolExecutor(len(caches)) as pool:
            list(pool.map(use, caches))
    assert list(tree.parent.glob(".*")) == []


def test_many_threads_fill_an_empty_cache(tmp_path: Path) -> None:
    store = LocalDisk(tmp_path / "store")
    files = fill(store)
    for round_ in range(10):
        caches = [Cache(tmp_path / f"cache-{round_}") for _ in range(8)]
        with ThreadPoolExecutor(len(caches)) as pool:
            trees = set(pool.map(lambda cache: cache.tree(store, "d", files), caches))
        assert len(trees) == 1
        assert caches[0].verify("d", files) == []
        assert list((tmp_path / f"cache-{round_}/trees").iterdir()) == list(trees)


FILL_AT_ONCE = """
import os, sys
from pathlib import Path
from modelyard.repository import Inspection, ModelRepository
from modelyard.store import Cache, open_store

url, folder = sys.argv[1:]
start, go = os.pipe()
children = []
for _ in range(6):
    if child := os.fork():
        children.append(child)
        continue
    os.close(go)
    os.read(start, 1)  # the end of the pipe lets everybody go at once
    repository = ModelRepository(
        open_store(url), cache=Cache(Path(folder)), inspect=lambda folder: Inspection(), user="filler"
    )
    tree = repository.fetch(repository.resolve("digits"), recheck=True)
    os._exit((tree / "model.bin").read_bytes() != b"weights" * 1_000_000)
os.close(go)
sys.exit(any([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_many_processes_fill_one_cache(damaged: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = LocalDisk(tmp_path / "store")
    (tmp_path / "model.bin").write_bytes(b"weights" * 1_000_000)
    repository = request.getfixturevalue("open_repository")(store)
    registered = repository.register_model("digits", "1.0.0", tmp_path / "model.bin")
    if damaged:
        damage(repository.fetch(registered) / "model.bin")
    command = [sys.executable, "-c", FILL_AT_ONCE, store.url, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    leftovers = [path.name for path in (tmp_path / "cache").rglob(".*")]
    assert leftovers == []
