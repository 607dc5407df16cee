"""Garbage collection: it takes what is left over, and never what is or becomes a version, whoever pauses where."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import Conflict, ModelyardError, NotFound
from modelyard.repository import ModelRepository, ModelVersion
from modelyard.repository.attempts import record_key
from modelyard.store import Memory, Store

Open = Callable[..., ModelRepository]

AT_ONCE = timedelta(0)
ATTEMPT = "20260101T000000-0123456789abcdef"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    for name in ("weights.bin", "config.json", "README.md"):
        (tmp_path / "model" / name).write_text(name)
    return tmp_path / "model"


def keys(store: Store, prefix: str = "") -> list[str]:
    return sorted(found.key for found in store.objects(prefix))


def left_over(store: Store) -> list[str]:
    """What killed writers leave: files, records, the check of a store."""
    garbage = [
        f"models/digits/v9.0.0/{ATTEMPT}/deep/weights.bin",
        f"models/digits/v1.0.0/{ATTEMPT}/weights.bin",
        f"models/team/new/v1.0.0-rc.1/{ATTEMPT}/weights.bin",
        "models/digits/v9.0.0/metadata.json",
        record_key(ATTEMPT),
        "probe/abc/a",
    ]
    for key in garbage:
        store.put(key, b"left over")
    store.put_json({"name": "digits", "version": "v9.0.0", "by": "me"}, record_key(ATTEMPT))
    return sorted(garbage)


def test_what_is_left_over_goes_and_all_else_stays(repository: ModelRepository, model: Path) -> None:
    version = repository.register_model("digits", "1.0.0", model, tags=["best", "staging"])
    repository.register_model("team/other", "1.0.0", model)
    foreign = "models/digits/notes.txt"
    repository.storage.put(foreign, b"not ours")
    before = keys(repository.storage)
    model_files = keys(repository.storage, "models")
    garbage = left_over(repository.storage)
    told: list[str] = []
    assert repository.collect_garbage() == []
    seen = repository.collect_garbage(dry_run=True, grace=AT_ONCE)
    assert sorted(each.key for each in seen) == garbage
    assert keys(repository.storage) == sorted(before + garbage)
    removed = repository.collect_garbage(grace=AT_ONCE, found=lambda each: told.append(each.key))
    assert sorted(told) == sorted(each.key for each in removed) == garbage
    assert keys(repository.storage, "models") == model_files
    assert set(keys(repository.storage)) >= set(before)
    assert repository.verify(version) == []
    assert repository.verify_all()[1] == []
    assert repository.collect_garbage(grace=AT_ONCE) == []


def test_reasons_are_told(open_repository: Open, model: Path) -> None:
    repository = open_repository(Memory())
    repository.register_model("digits", "1.0.0", model)
    left_over(repository.storage)
    why = {each.key: each.why for each in repository.collect_garbage(dry_run=True, grace=AT_ONCE)}
    assert why[f"models/digits/v1.0.0/{ATTEMPT}/weights.bin"] == "of an attempt that another one was faster than"
    assert why["models/digits/v9.0.0/metadata.json"] == "of an attempt that never became a version"
    assert why[record_key(ATTEMPT)] == "the record of an attempt that is over"


def test_the_number_can_be_used_after_its_garbage_is_gone(open_repository: Open, model: Path) -> None:
    repository = open_repository(Memory())
    left_over(repository.storage)
    repository.collect_garbage(grace=AT_ONCE)
    registered = repository.register_model("digits", "9.0.0", model)
    assert repository.verify(registered) == []


class Paused:
    """A store whose user is paused before (or after) one of its operations while something else happens."""

    def __init__(self, store: Store, at: int, meanwhile: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = itertools.count()
        self.happened = False
        for name in ("create", "put", "get", "copy", "objects", "delete"):
            monkeypatch.setattr(store, name, self._pausing(getattr(store, name), at, meanwhile))

    def _pausing(self, original: Callable[..., Any], at: int, meanwhile: Callable[[], object]) -> Callable[..., Any]:
        def operation(*args: Any, **options: Any) -> Any:
            if next(self.steps) == at:
                self.happened = True
                meanwhile()
            return original(*args, **options)

        return operation


def paused_anywhere(
    prepare: Callable[[], ModelRepository],
    act: Callable[[ModelRepository], object],
    check: Callable[[ModelRepository, object], None],
) -> int:
    """Let garbage be collected, with no grace at all, at each operation of an action; returns how many there were."""
    for at in itertools.count():
        repository = prepare()
        # A second repository on the same backend, whose operations do not pause.
        other = ModelRepository(
            Store(repository.storage._backend, "memory://"),
            cache=repository._cache,
            inspect=repository._inspect,
            user="collector",
        )
        with pytest.MonkeyPatch.context() as patch:
            paused = Paused(repository.storage, at, partial(other.collect_garbage, grace=AT_ONCE), patch)
            try:
                outcome = act(repository)
            except ModelyardError as error:
                outcome = error
        check(other, outcome)
        if not paused.happened:
            return at
    raise AssertionError


def test_a_writer_paused_anywhere_harms_nothing(open_repository: Open, model: Path) -> None:
    """Its files may be collected meanwhile: then it is told so, and nothing of it is ever visible."""

    def prepare() -> ModelRepository:
        repository = open_repository(Memory())
        repository.register_model("digits", "1.0.0", model)
        (model / "config.json").write_text("changed")
        return repository

    def check(repository: ModelRepository, outcome: object) -> None:
        if isinstance(outcome, ModelyardError):
            with pytest.raises(NotFound):
                repository.resolve("digits:v1.1.0")
            assert repository.list_models("digits") == ["v1.0.0"]
            conflicts.append(isinstance(outcome, Conflict))
            try:
                again = repository.register_model("digits", "1.1.0", model)
            except Conflict:  # the number is spent: the late writer's manifest stands there
                again = repository.register_model("digits", "1.2.0", model)
        else:
            again = repository.resolve("digits:v1.1.0")
        for version in (again, repository.resolve("digits:v1.0.0")):
            assert repository.verify(version) == []
        repository.collect_garbage(grace=AT_ONCE)
        for version in (again, repository.resolve("digits:v1.0.0")):
            assert repository.verify(version) == []
        assert repository.verify_all()[1] == []
        assert len(keys(repository.storage, "models")) == 8

    conflicts: list[bool] = []
    steps = paused_anywhere(prepare, lambda repository: repository.register_model("digits", "1.1.0", model), check)
    assert steps > 15
    assert any(conflicts)  # the race was met
    assert all(conflicts)


def test_deleting_paused_anywhere(open_repository: Open, model: Path) -> None:
    def prepare() -> ModelRepository:
        repository = open_repository(Memory())
        for version in ("1.0.0", "1.1.0"):
            repository.register_model("digits", version, model)
        return repository

    def check(repository: ModelRepository, outcome: object) -> None:
        assert not isinstance(outcome, ModelyardError)
        assert repository.list_models("digits") == ["v1.1.0"]
        assert repository.verify(repository.resolve("digits")) == []
        assert len(keys(repository.storage, "models")) == 4
        assert keys(repository.storage, "uploads") == []

    paused_anywhere(prepare, lambda repository: repository.delete("digits", "1.0.0", reason="old"), check)


def test_collecting_paused_while_a_writer_finishes(open_repository: Open, model: Path) -> None:
    """The other way round: the collector is paused at each of its operations while a version is registered."""

    def register(writer: ModelRepository, registered: list[ModelVersion]) -> None:
        registered.append(writer.register_model("digits", "9.0.0", model))

    for at in itertools.count():
        repository = open_repository(Memory())
        repository.register_model("digits", "1.0.0", model)
        left_over(repository.storage)
        backend = repository.storage._backend
        writer = open_repository(Store(backend, "memory://"))
        registered: list[ModelVersion] = []
        with pytest.MonkeyPatch.context() as patch:
            paused = Paused(
                repository.storage,
                at,
                partial(register, writer, registered),
                patch,
            )
            repository.collect_garbage(grace=AT_ONCE)
        for version in (writer.resolve("digits:v1.0.0"), *registered):
            assert writer.verify(version) == []
            assert writer.resolve(version.ref) == version
        if not paused.happened:
            break
    assert at > 8


def test_two_writers_finish_while_garbage_is_collected_twice(open_repository: Open, model: Path) -> None:
    repository = open_repository(Memory())
    first = repository.register_model("digits", "1.0.0", model)
    for _ in range(2):
        repository.collect_garbage(grace=AT_ONCE)
    assert repository.verify(first) == []
    assert [change.why for change in repository.history("digits")] == ["digits is a new model"]
