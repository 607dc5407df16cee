"""A real MLflow, taken over: models, numbers, metrics, aliases; and again, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import InvalidInput, NotFound
from modelyard.importer import ModelImporter
from modelyard.importer.buckets import estate_of
from modelyard.importer.estate import Outcome, Takeover, plan
from modelyard.importer.inspect import inspect_files
from modelyard.importer.mlflow.client import Server
from modelyard.repository import ModelRepository
from modelyard.store import Cache, LocalDisk, Memory

from . import builders
from .conftest import MLflow

pytestmark = pytest.mark.side_environment

HEADER = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
ENCODER = {"model.safetensors": builders.safetensors(HEADER, b"\0" * 8), "more/vocab.txt": b"a\nb\n", "empty": b""}


@pytest.fixture(scope="module")
def logged(mlflow_server: MLflow, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was logged, once for all tests."""
    folder = builders.folder(tmp_path_factory.mktemp("encoder"), ENCODER)
    return mlflow_server.run(Path(__file__).with_name("log_estate.py"), str(folder))


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(Memory(), cache=Cache(tmp_path / "cache"), inspect=inspect_files, user="ada")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every artifact that is read from now on, whole or in part."""
    names: list[str] = []
    original = Server.artifact

    def noted(self: Server, path: str, *args: Any) -> Any:
        names.append(path)
        return original(self, path, *args)

    monkeypatch.setattr(Server, "artifact", noted)
    return names


def take(repository: ModelRepository, address: str, **options: Any) -> dict[str, Outcome]:
    run = {key: options.pop(key) for key in ("dry_run",) if key in options}
    estate, address = estate_of(address)
    outcomes = Takeover(repository, estate, **options).run(plan(estate.list(address)), **run)
    return {str(outcome.item.ref): outcome for outcome in outcomes}


def test_an_estate(
    mlflow_server: MLflow, logged: dict[str, Any], repository: ModelRepository, requests: Any, fetched: list[str]
) -> None:
    outcomes = take(repository, mlflow_server.address)
    assert {ref: outcome.state for ref, outcome in outcomes.items()} == {
        "digits:v1.0.0": "imported",
        "digits:v2.0.0": "imported",
        "digits:v3.0.0": "imported",
        "digits-pickled:v1.0.0": "refused",
        "encoder:v1.0.0": "imported",
        "encoder:v2.0.0": "imported",
    }
    assert "model.pkl holds a pickle" in outcomes["digits-pickled:v1.0.0"].why
    assert repository.tags("digits") == {"latest": "v3.0.0", "champion": "v2.0.0", "best-one": "v3.0.0"}
    requests.clear()
    fetched.clear()
    again = take(repository, mlflow_server.address)
    assert {outcome.state for outcome in again.values()} == {"present", "refused"}
    assert len({name.rpartition("/")[0] for name in fetched}) == 1  # the refused one, inspected again
    assert {operation for operation, _ in requests} <= {"get", "objects", "list_directories"}
    trusted = take(repository, mlflow_server.address, trust_pickle="ours")
    assert trusted["digits-pickled:v1.0.0"].state == "imported"
    assert repository.resolve("digits-pickled").trusted_pickle == "ours"


def test_what_is_known_of_a_model(mlflow_server: MLflow, logged: dict[str, Any], repository: ModelRepository) -> None:
    version = ModelImporter(repository).import_model(f"{mlflow_server.address}/models/digits@champion")
    assert str(version.ref).startswith("digits:v2.0.0@")
    found = version.metadata
    assert found["metrics"] == {"accuracy": logged["accuracy"], "loss": "NaN"}
    assert found["params"] == {"alpha": "0.001"}
    assert found["description"] == "The steady one"
    assert found["signature"]["inputs"] == [{"name": "input-0", "datatype": "FP64", "shape": [-1, 64]}]
    own = found["mlflow"]
    assert (own["run_id"], own["run_name"], own["experiment"]) == (logged["run"], "alpha 0.001", "digits")
    assert (own["aliases"], own["tags"]) == (["champion"], {"stage": "qa"})
    assert own["run_tags"]["team"] == "vision"
    assert own["flavors"]["sklearn"]["serialization_format"] == "skops"
    paths = {file.path for file in version.files}
    assert paths >= {"MLmodel", "python_env.yaml", "conda.yaml", "requirements.txt", "model.skops"}


def test_artifacts_of_a_run(mlflow_server: MLflow, logged: dict[str, Any], repository: ModelRepository) -> None:
    importer = ModelImporter(repository)
    version = importer.import_model(f"{mlflow_server.address}/models/encoder")
    assert (str(version.version), version.model.format) == ("v2.0.0", "safetensors")
    assert version.metadata["mlflow"]["stage"] == "Production"
    files, _ = repository.get_model("encoder", "v2.0.0")
    assert {path: (files / path).read_bytes() for path in ENCODER} == ENCODER
    by_run = importer.import_model(f"{mlflow_server.address}/runs/{logged['upload']}/encoder", "again")
    assert (str(by_run.version), by_run.digest) == ("v1.0.0", version.digest)
    of_run = importer.import_model(f"{mlflow_server.address}/runs/{logged['run']}/model", "logged")
    assert "model.skops" in {file.path for file in of_run.files}
    model_id = of_run.metadata["mlflow"]["model_id"]
    assert (
        importer.import_model(f"{mlflow_server.address}/models/{model_id}", "logged", "v2.0.0").digest == of_run.digest
    )


def test_the_server_of_the_environment(
    mlflow_server: MLflow, logged: dict[str, Any], repository: ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    outcomes = take(repository, "mlflow://models/encoder", dry_run=True)
    assert {ref: outcome.state for ref, outcome in outcomes.items()} == {
        "encoder:v1.0.0": "possible",
        "encoder:v2.0.0": "possible",
    }
    assert outcomes["encoder:v1.0.0"].size == sum(map(len, ENCODER.values()))
    assert list(repository.storage.objects("")) == []


@pytest.mark.parametrize(
    ("address", "error", "why"),
    [
        ("/models/nobody", NotFound, "there is no model nobody at"),
        ("/models/digits/77", NotFound, "there is no version 77 of model digits at"),
        ("/models/digits@nobody", NotFound, "there is no alias nobody of model digits"),
        ("/runs/0123456789abcdef0123456789abcdef", NotFound, "there is no run 0123"),
        ("/models/greeting", InvalidInput, "greeting is a prompt, not a model"),
    ],
)
def test_what_is_not_there(
    mlflow_server: MLflow, logged: dict[str, Any], repository: ModelRepository, address: str, error: Any, why: str
) -> None:
    with pytest.raises(error, match=why):
        ModelImporter(repository).import_model(f"{mlflow_server.address}{address}")


def test_a_killed_import_goes_on(
    mlflow_server: MLflow,
    logged: dict[str, Any],
    tmp_path: Path,
    open_repository: Callable[..., ModelRepository],
) -> None:
    store = LocalDisk(tmp_path / "store")
    command = [sys.executable, "-m", "modelyard", "import", "--all", mlflow_server.address, "--store", store.url]
    command += ["--trust-pickle", "ours"]
    environ = os.environ | {"MODELYARD_CACHE": str(tmp_path / "cache"), "MODELYARD_STATE": str(tmp_path / "state")}
    first = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(store.objects("versions")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    seen = len(list(store.objects("versions")))
    assert seen
    second = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert f"{seen} already there" in second.stdout
    repository = open_repository(store)
    found = [repository.resolve(f"{name}:{v}") for name in repository.list_models() for v in repository.versions(name)]
    assert len(found) == 6
    assert [damage for version in found for damage in repository.verify(version)] == []
    assert repository.tags("digits")["champion"] == "v2.0.0"
