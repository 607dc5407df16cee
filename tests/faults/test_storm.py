"""Many writers through a proxy that fails at random: what was acknowledged is there, and nothing is half there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelyard.errors import AlreadyExists, ModelyardError, StoreError
from modelyard.repository import ModelRepository
from modelyard.store import S3, Journal, Store

from .proxy import FaultyProxy, at_random

WRITERS, ROUNDS = 4, 3


class Storm:
    """What the writers did, and what they were told about it.

    Each has a model of its own with a tag that only it moves; all race for the versions of one more model, and count
    in one journal.
    """

    def __init__(self, store: Store, repository: ModelRepository, folder: Path) -> None:
        self.store = store
        self.repository = repository
        self.registered: dict[str, bytes] = {}
        self.tags: dict[str, set[str | None]] = {}
        self.counted = 0
        self.failures: list[ModelyardError] = []
        self._folder = folder

    def run(self) -> None:
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(self._write, range(WRITERS)))

    def _write(self, writer: int) -> None:
        for number in range(1, ROUNDS + 1):
            version = f"v{number}.0.0"
            if self._register(f"model-{writer}", version, size=9_000_000 if number == 1 else 1000):
                self._tag(f"model-{writer}", version)
                self._told(lambda: self.repository.get_model(f"model-{writer}", "latest"))
            self._register("shared", version, size=1000)
            self.counted += self._told(self._count)

    def _register(self, name: str, version: str, *, size: int) -> bool:
        model = self._folder / uuid.uuid4().hex
        model.mkdir()
        content = os.urandom(size)
        (model / "weights.bin").write_bytes(content)
        (model / "config.json").write_text("{}")
        done = self._told(lambda: self.repository.register_model(name, version, model, {"size": size}))
        if done:
            assert f"{name}:{version}" not in self.registered
            self.registered[f"{name}:{version}"] = content
        return done

    def _tag(self, name: str, version: str) -> None:
        moved = self._told(lambda: self.repository.tag(name, "best", version, reason="the newest"))
        before: set[str | None] = set() if moved else self.tags.get(name, {None})
        self.tags[name] = before | {version}

    def _count(self) -> None:
        journal = Journal(self.store, "config/counter")
        journal.update(lambda state: {"sum": state.get("sum", 0) + 1}, by="tester", why="one more")

    def _told(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except ModelyardError as failure:
            self.failures.append(failure)
            return False
        return True


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_was_acknowledged_is_there_and_nothing_is_half_there(
    seed: int,
    proxy: FaultyProxy,
    tmp_path: Path,
    open_repository: Callable[..., ModelRepository],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODELYARD_STORAGE__RETRIES", "2")
    store = S3("yard", uuid.uuid4().hex, endpoint_url=proxy.url)
    repository = open_repository(store)
    storm = Storm(store, repository, tmp_path)
    proxy.decide = at_random(seed, 0.15)
    storm.run()
    proxy.decide = lambda _: None

    assert sum(fault is not None for _, fault in proxy.requests) > 10
    for failure in storm.failures:
        lost_the_race = isinstance(failure, AlreadyExists) and str(failure).startswith("shared:")
        assert (isinstance(failure, StoreError) or lost_the_race) and "\n" not in str(failure), failure
    for ref, content in storm.registered.items():
        version = repository.resolve(ref)
        assert (repository.fetch(version, recheck=True) / "weights.bin").read_bytes() == content
    for name in repository.list_models():
        for number in repository.versions(name):
            assert repository.verify(repository.resolve(f"{name}:{number}")) == []
    assert repository.verify_all()[1] == []
    for name, possible in storm.tags.items():
        assert repository.tags(name).get("best") in possible
    history = Journal(store, "config/counter").history()
    assert [(entry.number, entry.state["sum"]) for entry in history] == [(n, n) for n in range(1, len(history) + 1)]
    assert storm.counted <= len(history) <= WRITERS * ROUNDS
