"""A process killed at any step of any change: nothing half is ever visible, and the same command then succeeds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from modelyard.errors import NotFound
from modelyard.repository import ModelRepository
from modelyard.store import LocalDisk

DYING = """
import itertools, os, signal, sys
from datetime import timedelta
from pathlib import Path
from modelyard.repository import Inspection, ModelRepository
from modelyard.repository.replication import copy
from modelyard.store import Cache, LocalDisk, Store
from modelyard.store.objects import ObjectFile
from modelyard.refs import Version

def dying(allowed):
    steps = itertools.count()

    def step():
        if next(steps) == allowed:
            os.kill(os.getpid(), signal.SIGKILL)

    def stepped(stream):
        for chunk in stream:
            step()
            yield chunk

    def watched(original):
        def operation(self, key, *data, **options):
            step()
            if data and not isinstance(data[0], (bytes, str, int)):
                data = (stepped(data[0]),)
            if original.__name__ == "delete":
                key = stepped(key)
            return original(self, key, *data, **options)
        return operation

    for name in ("create", "put", "get", "get_range", "copy", "objects", "delete"):
        setattr(Store, name, watched(getattr(Store, name)))

def opened(store):
    return ModelRepository(
        LocalDisk(store), cache=Cache(Path("unused")), inspect=lambda files: Inspection(), user="dying"
    )

def imported(repository, folder):
    source = LocalDisk(folder)
    files = [ObjectFile(source, found.key, found.key, found.size) for found in source.objects("")]
    repository.register("digits", Version(1, 0, 0), files, {"a": 1})

ACTIONS = {
    "register": lambda repository, model: repository.register_model("digits", "1.0.0", model, {"a": 1}),
    "import": imported,
    "tag": lambda repository, model: repository.tag("digits", "best", "v1.0.0"),
    "yank": lambda repository, model: repository.yank("digits", "v1.0.0", reason="wrong"),
    "delete": lambda repository, model: repository.delete("digits", "v1.0.0", reason="wrong"),
    "gc": lambda repository, model: repository.collect_garbage(grace=timedelta(0)),
    "copy": lambda repository, model: copy(repository, repository.resolve("digits"), opened(f"{model}-copied")),
}

for line in sys.stdin:
    action, model, store, allowed = line.rstrip().split("|")
    if not (child := os.fork()):
        dying(int(allowed))
        ACTIONS[action](opened(store), model)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
Open = Callable[..., ModelRepository]
Try = Callable[[str, Path, int], bool]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"weights" * 1000)
    (folder / "config.json").write_text("{}")
    (folder / "big.bin").write_bytes(os.urandom(17 * 1024 * 1024))
    return folder


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return folder


def killed_at_each_step(action: str, model: Path, prepare: Callable[[int], Path], check: Callable[[Path], bool]) -> int:
    """Run the action on prepared stores, each time killed one step later, until it ends by itself.

    `check` says whether the change was visible afterwards; once it is, it stays so for later steps. Returns at which
    step it was seen first.
    """
    seen: list[bool] = []
    command = [sys.executable, "-c", DYING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as processes:
        assert processes.stdin
        assert processes.stdout
        for allowed in range(200):
            store = prepare(allowed)
            processes.stdin.write(f"{action}|{model}|{store}|{allowed}\n")
            processes.stdin.flush()
            code = int(processes.stdout.readline())
            seen.append(check(store))
            if code == 0:
                break
            assert code == -9
        processes.stdin.close()
    assert code == 0
    assert seen == sorted(seen)
    assert seen[-1]
    return seen.index(True)


@pytest.mark.parametrize("action", ["register", "import"])
@pytest.mark.parametrize("again", ["the same", "something else"])
def test_registering(action: str, again: str, open_repository: Open, model: Path, tmp_path: Path) -> None:
    def check(store: Path) -> bool:
        """Asserts that the version was whole or not there, and that registering again mends all."""
        repository = open_repository(LocalDisk(store))
        visible = repository.list_models() == ["digits"]
        if visible:
            assert repository.verify(repository.resolve("digits")) == []
        else:
            assert repository.list_models() == []
            with pytest.raises(NotFound):
                repository.resolve("digits:v1.0.0")
        other = not visible and again == "something else"
        registered = repository.register_model("digits", "1.0.0", model, {"a": 2 if other else 1})
        assert repository.verify(registered) == []
        assert repository.verify_all()[1] == []
        for file in registered.files:
            assert repository.storage.get(file.key) == (model / file.path).read_bytes()
        assert repository.storage.get_json("models/digits/v1.0.0/metadata.json") == registered.metadata
        repository.collect_garbage(grace=timedelta(0))
        assert len(list(repository.storage.objects("models"))) == len(registered.files) + 1
        assert not list(repository.storage.objects("uploads"))
        return visible

    first = killed_at_each_step(action, model, lambda step: tmp_path / f"store-{step}", check)
    assert first >= 10


def prepared(open_repository: Open, model: Path, folder: Path) -> ModelRepository:
    """Two versions, and the garbage of an attempt that was never finished."""
    repository = open_repository(LocalDisk(folder))
    repository.register_model("digits", "1.0.0", model, {"a": 1})
    repository.register_model("digits", "0.9.0", model, {"a": 0})
    attempt = "20260101T000000-0123456789abcdef"
    for version, path in (("v2.0.0", "weights.bin"), ("v1.0.0", "weights.bin"), ("v2.0.0", "config.json")):
        repository.storage.put(f"models/digits/{version}/{attempt}/{path}", b"half")
    return repository


@pytest.mark.parametrize("action", ["tag", "yank", "delete", "gc", "copy"])
def test_changing(action: str, open_repository: Open, small_model: Path, tmp_path: Path) -> None:
    def prepare(step: int) -> Path:
        prepared(open_repository, small_model, tmp_path / f"store-{step}")
        return tmp_path / f"store-{step}"

    def check(store: Path) -> bool:
        repository = open_repository(LocalDisk(store))
        assert repository.verify_all()[1] == []
        visible = VISIBLE[action](repository, small_model)
        AGAIN[action](repository, small_model, open_repository)
        kept = [repository.resolve(f"digits:{version}") for version in repository.list_models("digits")]
        assert len(kept) == (1 if action == "delete" else 2)
        assert [repository.verify(version) for version in kept] == [[]] * len(kept)
        repository.collect_garbage(grace=timedelta(0))
        assert [repository.verify(version) for version in kept] == [[]] * len(kept)
        assert len(list(repository.storage.objects("models"))) == 3 * len(kept)
        assert not list(repository.storage.objects("uploads"))
        assert not list(repository.storage.objects("probe"))
        return visible

    killed_at_each_step(action, small_model, prepare, check)


def is_deleted(repository: ModelRepository, _: Path) -> bool:
    deleted = bool(repository.record("digits").deleted)
    if not deleted:
        assert repository.verify(repository.resolve("digits:v1.0.0")) == []
    return deleted


def is_copied(_: ModelRepository, model: Path) -> bool:
    copied = LocalDisk(Path(f"{model}-copied"))
    return bool(list(copied.objects("versions")))


def copy_again(repository: ModelRepository, model: Path, open_repository: Open) -> None:
    from modelyard.repository.replication import copy

    there = open_repository(LocalDisk(Path(f"{model}-copied")))
    copied = copy(repository, repository.resolve("digits"), there)
    assert there.verify(copied) == []
    there.storage.delete([found.key for found in there.storage.objects("")])


def delete_again(repository: ModelRepository, _: Path, __: Open) -> None:
    if not repository.record("digits").deleted:
        repository.delete("digits", "v1.0.0", reason="wrong")


VISIBLE: dict[str, Callable[[ModelRepository, Path], bool]] = {
    "tag": lambda repository, _: "best" in repository.tags("digits"),
    "yank": lambda repository, _: bool(repository.record("digits").yanked),
    "delete": is_deleted,
    "gc": lambda repository, _: not list(repository.storage.objects("models/digits/v2.0.0")),
    "copy": is_copied,
}
AGAIN: dict[str, Callable[[ModelRepository, Path, Open], object]] = {
    "tag": lambda repository, *_: repository.tag("digits", "best", "v1.0.0"),
    "yank": lambda repository, *_: repository.yank("digits", "v1.0.0", reason="wrong"),
    "delete": delete_again,
    "gc": lambda repository, *_: repository.collect_garbage(grace=timedelta(0)),
    "copy": copy_again,
}
