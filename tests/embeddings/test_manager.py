"""A task's model comes from the configuration, once, and follows it; models here only say their name."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelyard.configuration import ConfigurationManager, watching
from modelyard.embeddings import EmbeddingManager, EmbeddingModel, following
from modelyard.errors import InvalidInput, NotFound, Refused
from modelyard.repository import Inspection, ModelRepository, ModelVersion
from modelyard.repository.manifest import ModelInfo
from modelyard.store import LocalDisk, open_store
from modelyard.yard import Yard

Register = Callable[..., None]


class Fake:
    """What a loaded model has of sentence-transformers."""

    prompts: Mapping[str, str] = {}

    def get_embedding_dimension(self) -> int:
        return 3


class Loads:
    """Loads models, and remembers which; `failures` are raised first."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failures: list[Exception] = []

    def __call__(self, version: ModelVersion, folder: Path) -> EmbeddingModel:
        ref = f"{version.name}:{version.version}"
        assert (folder / "weights.bin").read_text() == ref
        self.done.append(ref)
        if self.failures:
            raise self.failures.pop()
        return EmbeddingModel(version, Fake())


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    monkeypatch.setattr(watching, "PERIOD_S", 0.02)
    monkeypatch.setattr(following, "FOLLOW_S", 0.02)
    return Loads()


@pytest.fixture
def manager(config: ConfigurationManager, repository: ModelRepository, loads: Loads) -> Iterator[EmbeddingManager]:
    manager = EmbeddingManager(config, repository=repository, check=lambda _: None, load=loads)
    yield manager
    manager.close()


def test_the_default_for_semantic_search(manager: EmbeddingManager, register: Register, loads: Loads) -> None:
    register("all-MiniLM-L6-v2:v1.0.0")

    model = manager.get_embedding_model("semantic-search")

    assert (model.name, model.version, model.dimension) == ("all-MiniLM-L6-v2", "v1.0.0", 3)
    assert model.stamp == f"all-MiniLM-L6-v2:v1.0.0@{model.digest}"
    assert manager.get_embedding_model(task_type="semantic_search") is model
    assert loads.done == ["all-MiniLM-L6-v2:v1.0.0"]
    assert dict(manager.models) == {"all-MiniLM-L6-v2:v1.0.0": model}


def test_a_default_that_is_not_there(manager: EmbeddingManager) -> None:
    with pytest.raises(NotFound) as caught:
        manager.get_embedding_model("semantic-search")
    assert str(caught.value) == (
        "there is no model 'all-MiniLM-L6-v2' in memory://, which the task 'semantic-search' uses; "
        "import it with `modelyard import hf://sentence-transformers/all-MiniLM-L6-v2`"
    )


def test_a_task_without_a_model(manager: EmbeddingManager) -> None:
    with pytest.raises(NotFound) as caught:
        manager.get_embedding_model("clustering")
    assert str(caught.value) == (
        "no embedding model is configured for the task 'clustering'; "
        "choose one with `modelyard config set embeddings clustering MODEL`"
    )


def test_any_text_may_be_a_task(manager: EmbeddingManager, config: ConfigurationManager, register: Register) -> None:
    register("m:v1.0.0")
    config.set_config("embeddings", "duplicate_tickets (EU)", "m:v1.0.0")
    assert manager.get_embedding_model("duplicate-tickets (EU)").name == "m"


def test_a_stampede_loads_once(manager: EmbeddingManager, register: Register, loads: Loads) -> None:
    register("all-MiniLM-L6-v2:v1.0.0")
    gate = threading.Barrier(64)

    def ask(_: int) -> EmbeddingModel:
        gate.wait(30)
        return manager.get_embedding_model("semantic-search")

    with ThreadPoolExecutor(64) as pool:
        found = set(pool.map(ask, range(64)))
    assert len(found) == len(loads.done) == 1
    assert manager.exposures() == {"semantic-search": {"all-MiniLM-L6-v2": 64}}


def test_a_failed_load_is_tried_again(manager: EmbeddingManager, register: Register, loads: Loads) -> None:
    register("all-MiniLM-L6-v2:v1.0.0")
    loads.failures.append(InvalidInput("out of memory"))
    with pytest.raises(InvalidInput, match="out of memory"):
        manager.get_embedding_model("semantic-search")
    assert manager.exposures() == {}
    assert manager.get_embedding_model("semantic-search").version == "v1.0.0"
    assert len(loads.done) == 2


def test_a_change_in_another_process_counts_and_the_old_model_stays_with_its_holders(
    config: ConfigurationManager,
    register: Register,
    loads: Loads,
    open_repository: Callable[..., ModelRepository],
    tmp_path: Path,
) -> None:
    store = open_store(str(_made(tmp_path / "yard")))
    repository = open_repository(store, inspect=lambda _: Inspection(ModelInfo(format="sentence-transformers")))
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.bin").write_text(f"{name}:v1.0.0")
        repository.register_model(name, "v1.0.0", tmp_path / name, {})
    here, there = (ConfigurationManager(open_store(store.url), user="tester", environ={}) for _ in range(2))
    there.set_config("embeddings", "clustering", "old")
    manager = EmbeddingManager(here, repository=repository, check=lambda _: None, max_models=1, load=loads)
    old = manager.get_embedding_model("clustering")

    there.set_config("embeddings", "clustering", "new")

    wait_for(lambda: manager.get_embedding_model("clustering").name == "new")
    assert (old.name, old.dimension, list(manager.models)) == ("old", 3, ["new:v1.0.0"])
    reference = weakref.ref(old)
    del old
    gc.collect()
    assert reference() is None
    manager.close()


def test_a_tag_is_followed(
    manager: EmbeddingManager, config: ConfigurationManager, repository: ModelRepository, register: Register
) -> None:
    register("m:v1.0.0")
    config.set_config("embeddings", "clustering", "m")
    config.set_config("embeddings", "classification", "m:v1.0.0")
    assert manager.get_embedding_model("clustering").version == "v1.0.0"
    register("m:v1.1.0")
    wait_for(lambda: manager.get_embedding_model("clustering").version == "v1.1.0")
    assert manager.get_embedding_model("classification").version == "v1.0.0"


def test_variants_are_sticky_by_key_and_counted(
    manager: EmbeddingManager, config: ConfigurationManager, register: Register
) -> None:
    register("a:v1.0.0", "b:v1.0.0")
    config.set_config("embeddings", "semantic-search", {"variants": {"a": 50, "b": 50}})
    keys = [f"user-{number}" for number in range(200)]

    first = [manager.get_embedding_model("semantic-search", key=key).name for key in keys]
    again = [manager.get_embedding_model("semantic-search", key=key).name for key in keys]

    assert first == again
    assert manager.exposures() == {"semantic-search": {"a": 2 * first.count("a"), "b": 2 * first.count("b")}}
    assert 60 < first.count("a") < 140
    without = {manager.get_embedding_model("semantic-search").name for _ in range(100)}
    assert without == {"a", "b"}


def test_a_version_that_may_not_be_used_is_not_fetched(
    config: ConfigurationManager, repository: ModelRepository, register: Register, loads: Loads
) -> None:
    def refuse(version: ModelVersion) -> None:
        raise Refused(f"{version.name} is not signed")

    register("all-MiniLM-L6-v2:v1.0.0")
    manager = EmbeddingManager(config, repository=repository, check=refuse, load=loads)
    with pytest.raises(Refused, match="all-MiniLM-L6-v2 is not signed"):
        manager.get_embedding_model("semantic-search")
    assert loads.done == []
    manager.close()


@pytest.mark.parametrize("given", [True, False])
def test_where_signatures_are_required_an_unsigned_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, static: Path, given: bool
) -> None:
    """Whether the yard builds the manager or the caller does."""
    for name, value in {"CACHE": "cache", "STATE": "state", "STORE": "yard"}.items():
        monkeypatch.setenv(f"MODELYARD_{name}", str(tmp_path / value))
    LocalDisk(tmp_path / "yard")
    yard = Yard.default()
    yard.repository.register_model("static", "v1.0.0", static, {})
    monkeypatch.setenv("MODELYARD_SECURITY__REQUIRE_SIGNATURE", '["production"]')

    manager = EmbeddingManager(yard.configuration) if given else Yard.default().embeddings

    with pytest.raises(Refused, match=r"static:v1\.0\.0"):
        manager.model("static")


def test_a_model_of_another_kind(
    config: ConfigurationManager, open_repository: Callable[..., ModelRepository], tmp_path: Path
) -> None:
    repository = open_repository(config.storage, inspect=lambda _: Inspection(ModelInfo(format="onnx")))
    (tmp_path / "model.onnx").write_bytes(b"")
    repository.register_model("m", "v1.0.0", tmp_path / "model.onnx", {})
    manager = EmbeddingManager(config, repository=repository, check=lambda _: None)
    with pytest.raises(InvalidInput, match=r"m:v1.0.0 is no embedding model: its format is onnx; register a sent"):
        manager.model("m")


def test_the_watching_ends_with_the_manager(
    manager: EmbeddingManager, register: Register, watching_threads: Callable[[], set[threading.Thread]]
) -> None:
    register("all-MiniLM-L6-v2:v1.0.0")
    manager.get_embedding_model("semantic-search")
    manager.close()
    wait_for(lambda: not watching_threads())
    assert manager.get_embedding_model("semantic-search").version == "v1.0.0"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)
