"""Sending: every byte once, none that the store has, in bounded memory."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from obstore.store import MemoryStore

from modelyard.errors import IntegrityError, InvalidInput, StoreError
from modelyard.store import Memory, Store, open_store
from modelyard.store.files import File, LocalFile, scan
from modelyard.store.objects import CHUNK, ObjectFile
from modelyard.store.transfer import Sent, part_size, send

from .sink import sink

MIB = 1024 * 1024


class Counted(Store):
    """A store in memory that counts what is sent to it and what it copies."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), "memory://")
        self.sent: dict[str, int] = {}
        self.copied: list[tuple[str, str]] = []

    def put(self, key: str, data: bytes | Iterable[bytes], **options: Any) -> None:
        whole = data if isinstance(data, bytes) else b"".join(data)
        self.sent[key] = len(whole)
        super().put(key, whole)

    def copy(self, source: str, destination: str) -> None:
        super().copy(source, destination)
        self.copied.append((source, destination))


@dataclass(frozen=True)
class Remote:
    """A file far away, whose source says (or does not say) what it is; it may not be read more than once."""

    path: str
    data: bytes
    sha256: str | None = None
    readable: bool = True

    @property
    def size(self) -> int:
        return len(self.data)

    def open(self) -> io.BufferedReader:
        raise AssertionError("sending never reads a file for inspection")

    def chunks(self) -> Iterator[bytes]:
        assert self.readable
        for start in range(0, len(self.data), 1_000_003):
            yield self.data[start : start + 1_000_003]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(os.urandom(2 * CHUNK + 7))
    (folder / "deep/config.json").write_bytes(b"{}")
    (folder / "empty").touch()
    return folder


def known(sent: Iterable[Sent]) -> dict[tuple[int, str], str]:
    return {(each.size, each.sha256): each.key for each in sent}


def test_files_arrive_as_they_are(store: Store, model: Path) -> None:
    done: list[int] = []
    heard: list[Sent] = []
    files = scan(model)

    sent = send(store, files, "models/m", progress=done.append, on_sent=heard.append)

    assert [each.path for each in sent] == [file.path for file in files]
    assert sorted(heard, key=lambda each: each.path) == sent
    assert sum(done) == sum(file.size for file in files)
    for each in sent:
        data = (model / each.path).read_bytes()
        assert each == Sent(each.path, f"models/m/{each.path}", len(data), sha(data))
        assert store.get(each.key) == data


def test_what_an_earlier_version_has_is_copied_inside_the_store(model: Path) -> None:
    store = Counted()
    before = send(store, scan(model), "models/m/v1")
    (model / "deep/config.json").write_bytes(b"[]")  # the same size, another content
    store.sent.clear()
    done: list[int] = []

    after = send(store, scan(model), "models/m/v2", known=known(before), progress=done.append)

    assert store.sent == {"models/m/v2/deep/config.json": 2}
    assert sorted(source for source, _ in store.copied) == ["models/m/v1/empty", "models/m/v1/weights.bin"]
    assert sum(done) == sum(each.size for each in after)
    for each in after:
        assert each.key.startswith("models/m/v2/")
        assert store.get(each.key) == (model / each.path).read_bytes()


def test_every_kind_of_store_copies(store: Store, model: Path) -> None:
    before = send(store, scan(model), "v1")
    after = send(
        store, [Remote(e.path, b"x" * e.size, e.sha256, readable=False) for e in before], "v2", known=known(before)
    )
    assert [store.get(each.key) for each in after] == [(model / each.path).read_bytes() for each in after]


def test_a_remote_file_whose_content_is_known_is_not_read(model: Path) -> None:
    store = Counted()
    data = b"weights" * 1000
    store.put("old", data)
    file = Remote("weights.bin", data, sha(data), readable=False)
    assert send(store, [file], "new", known={(len(data), sha(data)): "old"}) == [
        Sent("weights.bin", "new/weights.bin", len(data), sha(data))
    ]
    assert store.get("new/weights.bin") == data


def test_a_remote_file_of_unknown_content_is_read_once() -> None:
    store, data = Counted(), b"weights" * 1000
    store.put("old", data)
    send(store, [Remote("weights.bin", data)], "new", known={(len(data), sha(data)): "old"})
    assert store.sent["new/weights.bin"] == len(data)


@pytest.mark.parametrize("gone", ["deleted", "too large to copy"])
def test_what_can_not_be_copied_is_sent(gone: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Counted()
    before = send(store, scan(model), "v1")
    if gone == "deleted":
        store.delete([each.key for each in before])
    else:

        def refuse(self: Store, source: str, destination: str) -> None:
            raise StoreError("the specified copy source is larger than the maximum allowable size")

        monkeypatch.setattr(Counted, "copy", refuse)
    after = send(store, scan(model), "v2", known=known(before))
    assert [store.get(each.key) for each in after] == [(model / each.path).read_bytes() for each in after]


@pytest.mark.parametrize("shared_store", ["s3"], indirect=True)
@pytest.mark.parametrize("known", [True, False])
def test_what_lies_in_the_same_bucket_is_copied_there_and_hashed(
    known: bool, shared_store: Store, model: Path, requests: list[tuple[str, str]]
) -> None:
    beside = open_store(f"{shared_store.url}-beside")
    before = send(beside, scan(model), "there")
    files = [ObjectFile(beside, each.key, each.path, each.size, each.sha256 if known else None) for each in before]
    requests.clear()
    after = send(shared_store, files, "here")
    assert [(each.path, each.sha256) for each in after] == [(each.path, each.sha256) for each in before]
    assert [operation for operation, _ in requests if operation == "put"] == []
    for each in after:
        assert shared_store.get(each.key) == (model / each.path).read_bytes()


@pytest.mark.parametrize("shared_store", ["s3"], indirect=True)
def test_a_copy_that_is_not_what_was_registered_is_refused(shared_store: Store) -> None:
    beside = open_store(f"{shared_store.url}-beside")
    beside.put("weights.bin", b"other weights")
    with pytest.raises(IntegrityError, match=r"weights\.bin is not what its source says it is"):
        send(shared_store, [ObjectFile(beside, "weights.bin", "weights.bin", 13, sha(b"some weights"))], "here")


def test_stores_elsewhere_are_not_copied_from(shared_store: Store) -> None:
    other = Memory()
    other.put("a", b"1")
    assert not shared_store.copy_from(other, "a", "b")
    assert not other.copy_from(Memory(), "a", "b")


def test_a_source_that_lies_is_refused(model: Path) -> None:
    with pytest.raises(IntegrityError, match=r"weights\.bin is not what its source says it is"):
        send(Memory(), [Remote("weights.bin", b"bad", sha(b"good"))], "m")


@pytest.mark.parametrize("size", [10, 3 * CHUNK])
def test_a_file_that_grows_is_refused(size: int, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * size)
    with pytest.raises(InvalidInput, match="log changed while it was read"):
        send(Memory(), [LocalFile(tmp_path / "log", "log", size - 1)], "m")


def test_one_failure_ends_all(tmp_path: Path) -> None:
    """Whoever is under way stops at the next chunk, and nothing half is left."""

    class Endless(Remote):
        def chunks(self) -> Iterator[bytes]:
            while True:
                yield bytes(MIB)

    files: list[File] = [Endless("endless", bytes(3 * CHUNK)), LocalFile(tmp_path / "gone", "gone", 1)]
    store = Memory()
    with pytest.raises(InvalidInput, match="gone can't be read"):
        send(store, files, "m")
    assert list(store.objects("")) == []


def test_who_listens_may_end_it(model: Path) -> None:
    def refuse(sent: Sent) -> None:
        raise InvalidInput("enough")

    with pytest.raises(InvalidInput, match="enough"):
        send(Memory(), scan(model), "m", on_sent=refuse)


@pytest.mark.parametrize("size", [0, 1, 5 << 30, 80 << 30, 5 << 40])
def test_no_file_has_more_parts_than_s3_takes(size: int) -> None:
    assert part_size(size) >= CHUNK
    assert -(-size // part_size(size)) <= 10_000
    assert part_size(5 << 40) < 5 << 30


PUSH = """
import sys
from pathlib import Path
from modelyard.store import S3
from modelyard.store.files import scan
from modelyard.store.transfer import send

send(S3("yard", endpoint_url=sys.argv[2]), scan(Path(sys.argv[1])), "models/m")
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize("sizes", [[1024], [128] * 6 + [8] * 16])
def test_memory_is_bounded(sizes: list[int], tmp_path: Path) -> None:
    """In MiB; the largest parts are as many as ever wait for a slow store."""
    for number, size in enumerate(sizes):
        with (tmp_path / f"{number}.bin").open("wb") as sparse:
            sparse.truncate(size * MIB)
    environ = os.environ | {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    with sink() as server:
        command = [sys.executable, "-c", PUSH, str(tmp_path), server.url]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert server.taken == sum(sizes) * MIB
        assert server.largest == CHUNK
    assert int(done.stdout.split()[1]) < 300 * 1024
