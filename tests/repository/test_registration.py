"""Registering under everything that can go wrong: repeated, raced, answers lost, bytes flipped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelyard.errors import AlreadyExists, Conflict, IntegrityError, InvalidInput, ModelyardError, StoreError
from modelyard.refs import Version
from modelyard.repository import Inspection, ModelRepository, ModelVersion
from modelyard.repository.attempts import GRACE, Attempt
from modelyard.repository.catalog import Catalog
from modelyard.repository.registration import Registration, draft
from modelyard.store import Cache, Memory, Store
from modelyard.store.files import scan
from modelyard.store.objects import ObjectFile
from modelyard.store.transfer import send

Open = Callable[..., ModelRepository]
Requests = list[tuple[str, str]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return folder_with(tmp_path / "model", b"weights" * 1000)


def folder_with(folder: Path, weights: bytes) -> Path:
    folder.mkdir()
    (folder / "weights.bin").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    return folder


def keys(store: Store, prefix: str) -> list[str]:
    return sorted(found.key for found in store.objects(prefix))


def expected_keys(version: ModelVersion) -> list[str]:
    """All that may lie below models/ when one version is registered and nothing else is left."""
    return sorted([file.key for file in version.files] + [f"models/{version.name}/{version.version}/metadata.json"])


def stored(store: Store, version: ModelVersion, path: str = "weights.bin") -> bytes:
    return store.get(next(file.key for file in version.files if file.path == path))


# Again.


def test_registering_the_same_again_sends_nothing(repository: ModelRepository, model: Path, requests: Requests) -> None:
    first = repository.register_model("digits", "1.0.0", model, {"accuracy": (0.9, 1)})
    requests.clear()
    assert repository.register_model("digits", "v1.0.0", model, {"accuracy": (0.9, 1)}) == first
    assert {operation for operation, _ in requests} <= {"get", "objects", "list_directories"}
    read = [operation for operation, _ in requests if operation == "get"]
    assert len(read) == 4  # the catalog's entry, the manifest, metadata.json, the evidence of the scan
    assert len(requests) - len(read) <= 3  # the lists of journals


def test_what_a_killed_writer_did_not_finish_is_finished(small: ModelRepository, model: Path) -> None:
    first = small.register_model("digits", "1.0.0", model, {"a": 1})
    key = "models/digits/v1.0.0/metadata.json"
    small.storage.delete([key])
    small.register_model("digits", "1.0.0", model, {"a": 1})
    assert small.storage.get_json(key) == {"a": 1}
    small.storage.delete([key])
    assert small.verify(first) == []
    assert small.storage.get_json(key) == {"a": 1}


@pytest.fixture
def small(open_repository: Open) -> ModelRepository:
    return open_repository(Memory())


@pytest.mark.parametrize("change", ["content", "metadata", "more", "fewer", "renamed"])
def test_something_else_is_refused_and_changes_nothing(change: str, repository: ModelRepository, model: Path) -> None:
    first = repository.register_model("digits", "1.0.0", model, {"a": 1})
    before = keys(repository.storage, "")
    match change:
        case "content":
            (model / "weights.bin").write_bytes(b"weighty" * 1000)
        case "more":
            (model / "more.bin").touch()
        case "fewer":
            (model / "config.json").unlink()
        case "renamed":
            (model / "config.json").rename(model / "configuration.json")
    what = "metadata" if change == "metadata" else "content"
    with pytest.raises(AlreadyExists, match=rf"digits:v1\.0\.0 exists with other {what} \({first.digest.short}\)"):
        repository.register_model("digits", "1.0.0", model, {"a": 2 if change == "metadata" else 1})
    assert keys(repository.storage, "") == before
    assert repository.verify(first) == []
    assert repository.resolve("digits") == first


def test_a_file_that_vanishes_meanwhile_leaves_nothing(small: ModelRepository, model: Path) -> None:
    files = scan(model)
    (model / "weights.bin").unlink()
    new = draft("digits", Version(1, 0, 0), Inspection(), by="me", metadata={}, lineage={}, trusted_pickle=None)
    with pytest.raises(InvalidInput, match="can't be read: No such file or directory"):
        Registration(small.storage, Catalog(small.storage, by="me"), new).commit(files)
    assert keys(small.storage, "models") == keys(small.storage, "uploads") == keys(small.storage, "versions") == []


def test_progress_counts_every_byte(small: ModelRepository, model: Path) -> None:
    (model / "weights.bin").write_bytes(os.urandom(17 * 1024 * 1024))
    moved: list[int] = []
    registered = small.register_model("digits", "1.0.0", model, progress=moved.append)
    assert sum(moved) == registered.size
    assert len(moved) == 4


# At once.


def at_the_manifest(store: Store, writers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all writers get as far as the manifest's creation before any of them goes on."""
    create, barrier = store.create, threading.Barrier(writers)

    def waiting(key: str, data: bytes) -> bool:
        if key.startswith("versions/"):
            barrier.wait(timeout=60)
        return create(key, data)

    monkeypatch.setattr(store, "create", waiting)


def test_of_writers_with_different_content_one_wins(
    store: Store, open_repository: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [bytes([writer]) * 50_000 for writer in range(4)]
    folders = [folder_with(tmp_path / f"model-{writer}", data) for writer, data in enumerate(contents)]
    at_the_manifest(store, len(folders), monkeypatch)

    def register(folder: Path) -> ModelVersion | ModelyardError:
        try:
            return open_repository(store).register_model("digits", "1.0.0", folder)
        except ModelyardError as error:
            return error

    with ThreadPoolExecutor(len(folders)) as pool:
        outcomes = list(pool.map(register, folders))
    winners = [outcome for outcome in outcomes if isinstance(outcome, ModelVersion)]
    assert len(winners) == 1
    losers = [outcome for outcome in outcomes if isinstance(outcome, AlreadyExists)]
    assert len(losers) == 3
    assert "exists with other content" in str(losers[0])
    repository = open_repository(store)
    assert repository.resolve("digits") == winners[0]
    assert repository.verify(winners[0]) == []
    assert stored(store, winners[0]) == contents[outcomes.index(winners[0])]
    assert keys(store, "models") == expected_keys(winners[0])
    assert keys(store, "uploads") == []


def test_writers_with_the_same_content_all_succeed(
    store: Store, open_repository: Open, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_the_manifest(store, 3, monkeypatch)
    with ThreadPoolExecutor(3) as pool:
        results = list(
            pool.map(lambda _: open_repository(store).register_model("digits", "1.0.0", model, {"a": 1}), range(3))
        )
    assert results[0] == results[1] == results[2]
    assert open_repository(store).verify(results[0]) == []
    assert keys(store, "models") == expected_keys(results[0])


TWO_WRITERS = """
import os, sys
from pathlib import Path
from modelyard.errors import AlreadyExists
from modelyard.repository import Inspection, ModelRepository
from modelyard.store import Cache, open_store

url, *folders = sys.argv[1:]
arrived, arrive = os.pipe()
start, go = os.pipe()
children = []
for folder in folders:
    if child := os.fork():
        children.append(child)
        continue
    os.close(go)
    store = open_store(url)
    create = store.create

    def waiting(key, data):
        if key.startswith("versions/"):
            os.write(arrive, b"x")
            os.read(start, 1)
        return create(key, data)

    store.create = waiting
    repository = ModelRepository(store, cache=Cache(Path("unused")), inspect=lambda folder: Inspection(), user="me")
    try:
        repository.register_model("digits", "1.0.0", folder)
    except AlreadyExists:
        os._exit(7)
    os._exit(0)
for _ in folders:
    os.read(arrived, 1)
os.close(go)
print(*[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def test_of_two_processes_with_different_content_one_wins(
    shared_store: Store, open_repository: Open, tmp_path: Path
) -> None:
    folders = [folder_with(tmp_path / name, name.encode() * 10_000) for name in ("one", "two")]
    command = [sys.executable, "-c", TWO_WRITERS, shared_store.url, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    codes = done.stdout.split()
    assert sorted(codes) == ["0", "7"], done.stderr
    repository = open_repository(shared_store)
    winner = repository.resolve("digits")
    assert repository.verify(winner) == []
    assert stored(shared_store, winner) == (folders[codes.index("0")] / "weights.bin").read_bytes()
    assert keys(shared_store, "models") == expected_keys(winner)
    assert keys(shared_store, "uploads") == []


# Answers that are lost.


@pytest.mark.parametrize("answer", ["already there", "failure"])
def test_a_manifest_whose_acknowledgement_is_lost_is_ours(
    answer: str, small: ModelRepository, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, create = small.storage, small.storage.create

    def losing(key: str, data: bytes) -> bool:
        created = create(key, data)
        if key.startswith("versions/"):
            if answer == "failure":
                raise StoreError("the answer is lost")
            return False
        return created

    monkeypatch.setattr(store, "create", losing)
    registered = small.register_model("digits", "1.0.0", model)
    assert small.resolve("digits") == registered
    assert small.verify(registered) == []
    assert keys(store, "models") == expected_keys(registered)


def test_when_nobody_knows_whether_the_manifest_is_there_nothing_is_removed(
    small: ModelRepository, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store commits the manifest, loses the answer, and is gone when we ask: those files are a version now."""
    store, create, get = small.storage, small.storage.create, small.storage.get
    down = []

    def losing(key: str, data: bytes) -> bool:
        created = create(key, data)
        if key.startswith("versions/"):
            down.append(key)
            raise StoreError("the answer is lost")
        return created

    def failing(key: str) -> bytes:
        if down:
            raise StoreError("the store is down")
        return get(key)

    with monkeypatch.context() as patch:
        patch.setattr(store, "create", losing)
        patch.setattr(store, "get", failing)
        with pytest.raises(StoreError, match="the store is down"):
            small.register_model("digits", "1.0.0", model)
    found = small.resolve("digits")
    assert small.verify(found) == []
    assert small.register_model("digits", "1.0.0", model) == found


def test_a_manifest_that_could_not_be_written_can_be_tried_again(
    small: ModelRepository, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = small.storage.create

    def failing(key: str, data: bytes) -> bool:
        if key.startswith("versions/"):
            raise StoreError("no room")
        return create(key, data)

    with monkeypatch.context() as patch:
        patch.setattr(small.storage, "create", failing)
        with pytest.raises(StoreError, match="no room"):
            small.register_model("digits", "1.0.0", model)
    assert small.list_models() == []
    registered = small.register_model("digits", "1.0.0", model)
    assert small.verify(registered) == []


def test_what_an_interrupted_attempt_had_sent_is_not_sent_again(
    repository: ModelRepository, model: Path, requests: Requests
) -> None:
    store = repository.storage
    interrupted = Attempt(store, "20260101T000000-0123456789abcdef", "digits", Version(1, 0, 0), "me")
    send(store, scan(model / "weights.bin"), interrupted.prefix, on_sent=interrupted.add)
    interrupted.save()
    assert repository.list_models() == []
    requests.clear()
    registered = repository.register_model("digits", "1.0.0", model)
    sent = [key.rpartition("/")[2] for operation, key in requests if operation == "put"]
    assert "config.json" in sent
    assert "weights.bin" not in sent
    assert repository.verify(registered) == []
    assert keys(store, "models") == expected_keys(registered)
    assert keys(store, "uploads") == []


def test_a_store_that_fails_keeps_what_was_sent_for_the_next_attempt(
    small: ModelRepository, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = small.storage.put

    def failing(key: str, data: bytes) -> None:
        if key.endswith("weights.bin"):
            raise StoreError("no room")
        put(key, data)

    with monkeypatch.context() as patch:
        patch.setattr(small.storage, "put", failing)
        with pytest.raises(StoreError, match="no room"):
            small.register_model("digits", "1.0.0", model)
    assert len(keys(small.storage, "uploads")) == 1
    registered = small.register_model("digits", "1.0.0", model)
    assert small.verify(registered) == []
    assert keys(small.storage, "models") == expected_keys(registered)
    assert keys(small.storage, "uploads") == []


def test_refused_files_leave_nothing(open_repository: Open) -> None:
    """A source that gives other bytes when it is asked again: what it gave the second time is looked at too."""
    elsewhere = Memory()
    elsewhere.put("m/weights.bin", b"weights")
    inspections = iter([Inspection(), Inspection(pickles={"weights.bin": "pickle"})])
    small = open_repository(Memory(), inspect=lambda files: next(inspections))
    with pytest.raises(IntegrityError, match="the files are not what they were a moment ago"):
        small.register("m", Version(1, 0, 0), [ObjectFile(elsewhere, "m/weights.bin", "weights.bin", 7)], {})
    assert keys(small.storage, "models") == keys(small.storage, "uploads") == keys(small.storage, "versions") == []


def test_files_that_an_earlier_version_has_are_not_sent(
    repository: ModelRepository, model: Path, requests: Requests
) -> None:
    first = repository.register_model("digits", "1.0.0", model)
    (model / "config.json").write_text('{"changed": true}')
    requests.clear()
    moved: list[int] = []
    second = repository.register_model("digits", "1.1.0", model, progress=moved.append)
    put = [key for operation, key in requests if operation == "put" and key.startswith("models/")]
    assert [key.rpartition("/")[2] for key in put] == ["config.json", "metadata.json"]
    assert sum(moved) == second.size
    assert repository.verify(first) == repository.verify(second) == []
    repository.delete("digits", "v1.0.0", reason="old")
    assert repository.verify(second) == []


@pytest.mark.parametrize(("late", "gives_up"), [(timedelta(0), False), (timedelta(seconds=1), True)])
def test_a_writer_older_than_half_the_grace_period_gives_up(late: timedelta, gives_up: bool, model: Path) -> None:
    """Its files might be collected as garbage while it creates the manifest."""
    store = Memory()
    new = draft("digits", Version(1, 0, 0), Inspection(), by="me", metadata={}, lineage={}, trusted_pickle=None)
    attempt = Registration(store, Catalog(store, by="me"), new, now=lambda: new.created_at + GRACE / 2 + late)
    if gives_up:
        with pytest.raises(Conflict, match=r"uploading digits:v1\.0\.0 took too long; run it again"):
            attempt.commit(scan(model))
        assert keys(store, "models") == keys(store, "uploads") == keys(store, "versions") == []
    else:
        assert attempt.commit(scan(model)).created_at <= datetime.now(UTC)


# Bytes that flip.


def test_a_flipped_byte_is_refused_and_named(store: Store, open_repository: Open, model: Path, tmp_path: Path) -> None:
    registered = open_repository(store).register_model("digits", "1.0.0", model)
    key = next(file.key for file in registered.files if file.path == "weights.bin")
    data = bytearray(store.get(key))
    data[3456] ^= 1
    store.put(key, bytes(data))
    fresh = open_repository(store, cache=Cache(tmp_path / "other"))
    with pytest.raises(IntegrityError, match=r"weights\.bin is damaged in the store"):
        fresh.fetch(registered)
    with pytest.raises(IntegrityError, match=r"weights\.bin is damaged in the store"):
        fresh.pull(registered, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    assert [(damage.path, damage.what) for damage in fresh.verify(registered)] == [("weights.bin", "damaged")]
    store.delete([key])
    assert [(damage.path, damage.what) for damage in fresh.verify(registered)] == [("weights.bin", "missing")]


def test_a_flipped_byte_in_the_cache_is_mended(small: ModelRepository, model: Path, tmp_path: Path) -> None:
    registered = small.register_model("digits", "1.0.0", model)
    cached = small.fetch(registered) / "weights.bin"

    def damage() -> None:
        cached.chmod(0o644)
        cached.write_bytes(b"flipped" * 1000)

    damage()
    assert (small.fetch(registered, recheck=True) / "weights.bin").read_bytes() == b"weights" * 1000
    damage()
    assert (small.pull(registered, tmp_path / "pulled") / "weights.bin").read_bytes() == b"weights" * 1000


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        (7, "instance of Signature"),
        ({"inputs": [{"name": "x", "datatype": "FLOAT", "shape": [1]}]}, "inputs.0.datatype"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": "no"}]}, "inputs.0.shape"),
        ({"outputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]}, "outputs.0.shape.0"),
    ],
)
def test_a_signature_that_can_not_be_read_is_refused(
    repository: ModelRepository, tmp_path: Path, signature: object, said: str
) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    with pytest.raises(InvalidInput, match=f"the signature in the metadata can't be read: .*{said}"):
        repository.register_model("digit", "v1.0.0", tmp_path, {"signature": signature})
    assert repository.list_models() == []
