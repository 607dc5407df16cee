"""The file of the index: damaged, in the way of others, shared by threads and processes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.repository.index import Index
from modelyard.store import LocalDisk, Memory, Store

from .catalogs import commit, record, refs


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


def test_threads_share_an_index(store: Store, tmp_path: Path) -> None:
    index = Index(store, tmp_path / "index")
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
