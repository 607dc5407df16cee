"""Where signatures are required, nothing unsigned is deployed or served, and nothing of it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard import hosting
from modelyard.deployment import DeploymentManager, LocalStatus
from modelyard.errors import Refused
from modelyard.refs import ModelRef
from modelyard.repository import Inspection, ModelInfo, ModelRepository, ModelVersion
from modelyard.repository.keys import Key
from modelyard.repository.signatures import Signatures
from modelyard.settings import SecuritySettings, Settings
from modelyard.store import Memory, Store
from modelyard.yard import Yard

UNSIGNED = r"digit:v1\.0\.0 has no signature that counts: it is not signed"


@pytest.fixture
def store() -> Store:
    return Memory()


@pytest.fixture
def settings(tmp_path: Path, make_key: Callable[..., object]) -> Settings:
    make_key(tmp_path, "mine")
    rules = SecuritySettings(trusted_keys=(tmp_path / "mine.pub",), require_signature=("production",))
    return Settings(user="tester", cache=tmp_path / "served", state=tmp_path / "state", security=rules)


@pytest.fixture
def repository(store: Store, open_repository: Callable[..., ModelRepository], tmp_path: Path) -> ModelRepository:
    repository = open_repository(store, inspect=lambda files: Inspection(ModelInfo(format="onnx")))
    (tmp_path / "model.bin").write_bytes(b"weights")
    for version in ("v1.0.0", "v1.1.0"):
        repository.register_model("digit", version, tmp_path / "model.bin", {"version": version})
    return repository


@pytest.fixture
def sign(store: Store, settings: Settings, tmp_path: Path) -> Callable[[ModelVersion], object]:
    return lambda version: Signatures(store).sign(version, Key.read(tmp_path / "mine.pem"))


@pytest.fixture
def manager(repository: ModelRepository, settings: Settings) -> DeploymentManager:
    return DeploymentManager(repository, target="none", settings=settings, local=LocalStatus(lambda: False, list))


def test_promotion(manager: DeploymentManager, repository: ModelRepository, sign: Callable[..., object]) -> None:
    manager.deploy_to_staging("digit", "v1.0.0")
    for options in ({}, {"force": True, "reason": "now"}):
        with pytest.raises(Refused, match=UNSIGNED):
            manager.promote_to_production("digit", "v1.0.0", **options)  # type: ignore[arg-type]
    assert repository.environment("production").read() == {}
    sign(repository.resolve("digit:v1.0.0"))
    manager.promote_to_production("digit", "v1.0.0", force=True, reason="now")
    assert str(repository.environment("production").get("digit").serving) == "v1.0.0"


def test_staging_where_it_is_required(repository: ModelRepository, settings: Settings) -> None:
    rules = settings.security.model_copy(update={"require_signature": ("staging",)})
    strict = settings.model_copy(update={"security": rules})
    manager = DeploymentManager(repository, target="none", settings=strict, local=LocalStatus(lambda: False, list))
    with pytest.raises(Refused, match=UNSIGNED):
        manager.deploy_to_staging("digit", "v1.0.0")


def test_rollback_to_what_is_not_signed(repository: ModelRepository, settings: Settings) -> None:
    lax = settings.model_copy(update={"security": SecuritySettings()})
    local = LocalStatus(lambda: False, list)
    for version in ("v1.0.0", "v1.1.0"):
        before = DeploymentManager(repository, target="none", settings=lax, local=local)
        before.promote_to_production("digit", version, force=True, reason="before it was required")
    with pytest.raises(Refused, match=UNSIGNED):
        DeploymentManager(repository, target="none", settings=settings, local=local).rollback("digit")


@pytest.mark.parametrize("environment", ["production", None])
def test_serving_reads_nothing_of_what_is_not_signed(
    repository: ModelRepository,
    settings: Settings,
    store: Store,
    environment: str | None,
    requests: list[tuple[str, str]],
) -> None:
    yard = Yard(settings, store)
    requests.clear()
    with pytest.raises(Refused, match=UNSIGNED):
        hosting.serve(yard, ["digit:v1.0.0"], host="127.0.0.1", port=0, environment=environment)
    assert not [key for _, key in requests if key.startswith("models/")]
    assert not (settings.cache / "files").exists()


def test_replicas_are_told_what_counts_and_where_they_serve(
    settings: Settings, repository: ModelRepository, store: Store
) -> None:
    yard = Yard(settings, store)
    environ = yard.local_target._environ
    assert environ["MODELYARD_SECURITY__REQUIRE_SIGNATURE"] == '["production"]'
    assert environ["MODELYARD_SECURITY__TRUSTED_KEYS"] == f'["{settings.security.trusted_keys[0].resolve()}"]'
    argv = yard._launch(ModelRef.parse("digit:v1.0.0"), "production-digit-v1.0.0-8f2c01aa", 20000).argv
    assert argv[-2:] == ["--environment", "production"]
