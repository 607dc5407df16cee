from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.deployment.shelves import EnvironmentShelf, FixedShelf
from modelyard.errors import Refused, StoreError
from modelyard.repository import DeploymentSpec, ModelRepository, ModelVersion, Pin
from modelyard.repository.signatures import Signatures
from modelyard.store import Memory, Store

Open = Callable[..., ModelRepository]
ON_DEMAND = DeploymentSpec(min_replicas=0)


@pytest.fixture
def opened(open_repository: Open) -> ModelRepository:
    return open_repository(Memory())


@pytest.fixture
def version(opened: ModelRepository, tmp_path: Path) -> ModelVersion:
    (tmp_path / "model.bin").write_bytes(b"weights")
    return opened.register_model("digit", "v1.0.0", tmp_path / "model.bin", {})


def shelf(repository: ModelRepository, **rules: Any) -> EnvironmentShelf:
    signatures = Signatures(repository.storage, **{"trusted": (), "required": ()} | rules)
    return EnvironmentShelf(repository.environment("production"), repository, signatures)


def ask(repository: ModelRepository, version: ModelVersion, spec: DeploymentSpec) -> None:
    pin = Pin(version.version, version.digest)
    repository.environment("production").update("digit", lambda old: old.ask(pin, spec=spec), by="me", why="a wish")


def test_what_runs_on_demand_and_nothing_else(opened: ModelRepository, version: ModelVersion) -> None:
    ask(opened, version, DeploymentSpec())
    assert list(shelf(opened).labels()) == []
    ask(opened, version, ON_DEMAND)
    assert list(shelf(opened).labels()) == [str(version.ref)]
    opened.environment("production").update("digit", lambda old: old.finished(), by="me", why="done")
    ask(opened, version, DeploymentSpec())  # to replicas: until they are there, the pool serves
    assert list(shelf(opened).labels()) == [str(version.ref)]


def test_what_was_taken_once_needs_the_store_no_more(
    opened: ModelRepository, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise StoreError("the store is away")

    shelf_ = shelf(opened)
    first = shelf_.take(str(version.ref))
    for operation in ("get", "get_range", "stream", "objects"):
        monkeypatch.setattr(Store, operation, fail)
    assert shelf_.take(str(version.ref)) == first
    assert (first.folder / "model.bin").read_bytes() == b"weights"


def test_bytes_that_changed_in_the_cache_are_not_taken(opened: ModelRepository, version: ModelVersion) -> None:
    fixed = FixedShelf({str(version.ref): version}, opened)
    path = fixed.take(str(version.ref)).folder / "model.bin"
    path.chmod(0o644)
    path.write_bytes(b"changed")
    assert (fixed.take(str(version.ref)).folder / "model.bin").read_bytes() == b"weights"
    assert list(fixed.labels()) == [str(version.ref)]


def test_a_signature_is_asked_for(opened: ModelRepository, version: ModelVersion) -> None:
    with pytest.raises(Refused, match=r"digit:v1\.0\.0"):
        shelf(opened, required=("production",)).take(str(version.ref))
