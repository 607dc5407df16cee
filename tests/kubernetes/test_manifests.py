"""`modelyard deploy manifests`: YAML that is the same each time, and one line for what can't be printed. No cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from modelyard import Yard
from modelyard.cli.app import run
from modelyard.deployment.spec import changed
from modelyard.deployment.targets.kubernetes.manifests import as_yaml, out_of_reach
from modelyard.errors import InvalidInput
from modelyard.repository import DeploymentSpec
from modelyard.repository.environments import Resources
from modelyard.settings import Settings, load_settings

from .models import KEY, SECRET, register
from .workloads import settings, workload


@pytest.fixture
def yard(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Yard:
    monkeypatch.chdir(tmp_path)
    for name, value in {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    for name, value in {
        "STORE": f"s3://yard/{tmp_path.name}-manifests",
        "S3_ENDPOINT_URL": s3_server,
        "CACHE": str(tmp_path / "cache"),
        "STATE": str(tmp_path / "state"),
        "USER": "tester",
        "DEPLOYMENT__TARGET": "none",
        "KUBERNETES__IMAGE": "registry.example/modelyard:0.1.0",
    }.items():
        monkeypatch.setenv(f"MODELYARD_{name}", value)
    yard = Yard(load_settings())
    register(yard.repository, tmp_path, "v1.0.0", 1.0)
    return yard


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["deploy", "manifests", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["deploy", "manifests", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_same_wish_gives_the_same_text(yard: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("classifier:v1.0.0", "--set", "replicas=3", "--set", "resources.gpus=1", "--set", "env.LOG=debug")
    text = printed(capsys, *given)

    assert text == printed(capsys, *given)
    found: list[Any] = list(yaml.safe_load_all(text))
    for document in found:
        kubernetes_validate.validate(document, "1.37", strict=True)
    deployment = found[-1]
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    assert deployment["metadata"]["name"] == "classifier-production"
    assert deployment["spec"]["replicas"] == 3
    assert server["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert {"name": "LOG", "value": "debug"} in server["env"]
    assert str(yard.repository.resolve("classifier:v1.0.0").digest) in server["command"][2]
    assert SECRET not in text


def test_a_name_alone_means_what_is_deployed(yard: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    assert "write classifier:v1.0.0" in refused(capsys, "classifier")
    assert "classifier is not deployed in staging" in refused(capsys, "classifier", "--environment", "staging")

    yard.deployments.deploy_to_staging("classifier", "v1.0.0", replicas=2)
    deployment = list(yaml.safe_load_all(printed(capsys, "classifier", "--environment", "staging")))[-1]

    assert deployment["metadata"]["name"] == "classifier-staging"
    assert deployment["spec"]["replicas"] == 2


def test_what_is_set_holds_for_what_is_deployed_later(yard: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deploy", "set", "classifier", "resources.gpus=1", "--in", "staging"]) == 0
    assert run(["stage", "classifier:v1.0.0"]) == 0
    assert run(["deploy", "set", "classifier", "resources.memory=1Gi", "--in", "staging"]) == 0
    assert run(["deploy", "set", "classifier", "colour=red", "--in", "staging"]) == 1

    staged = yard.repository.environment("staging").get("classifier")
    assert staged.serving_spec == staged.spec == DeploymentSpec(resources=Resources(gpus=1, memory="1Gi"))
    assert str(staged.serving) == "v1.0.0"


def test_a_store_that_pods_can_not_reach(
    yard: Yard, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard import LocalDisk, ModelRepository

    register(ModelRepository(LocalDisk(tmp_path / "disk")), (tmp_path / "more"), "v1.0.0", 1.0)
    assert "pods can't reach the store" in refused(capsys, "classifier:v1.0.0", "--store", str(tmp_path / "disk"))


def test_an_address_that_pods_can_not_reach(
    yard: Yard, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = yard.settings.s3_endpoint_url
    assert run(["deploy", "manifests", "classifier:v1.0.0"]) == 0
    said = capsys.readouterr()
    assert said.err == (
        f"note: pods can't reach {address}, which is this machine; set s3_endpoint_url to an address that they can "
        "reach\n"
    )
    assert list(yaml.safe_load_all(said.out))


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("http://localhost:9000", False),
        ("http://127.0.0.2:9000", False),
        ("http://[::1]:9000", False),
        ("http://10.0.0.7:9000", True),
        ("https://s3.example.com", True),
        (None, True),
    ],
)
def test_which_addresses_pods_can_reach(address: str | None, reached: bool) -> None:
    assert (out_of_reach(Settings(s3_endpoint_url=address)) == "") is reached


def test_nothing_is_written_as_an_anchor() -> None:
    spec = DeploymentSpec(2, max_replicas=4, resources=Resources(cpu="500m", memory="2Gi"))
    text = as_yaml(workload(spec=spec), settings(store_secret="store"))
    assert "&id" not in text
    assert "*id" not in text


def test_what_can_be_set() -> None:
    spec = changed(DeploymentSpec(), ["resources.memory=2Gi", "resources.cpu=500m", "grace_period_s=90"])
    assert spec == DeploymentSpec(resources=Resources(cpu="500m", memory="2Gi"), grace_period_s=90)


def test_replicas_of_its_own_end_what_runs_on_demand() -> None:
    rare = DeploymentSpec(min_replicas=0)
    assert changed(rare, ["replicas=2"]) == DeploymentSpec(2)
    assert changed(rare, ["resources.memory=2Gi"]).on_demand
    assert changed(rare, ["min_replicas=0", "replicas=2"]).on_demand


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("replicas", "'replicas' sets nothing"),
        ("colour=red", "a deployment has no 'colour'; use one of replicas, "),
        ("resources.disk=1Gi", "a deployment has no 'resources.disk'"),
        ("resources=1", "a deployment has no 'resources'"),
        ("replicas.x=1", r"a deployment has no 'replicas\.x'"),
        ("resources.memory=2 GB", r"^resources\.memory can't be '2 GB'; write 512Mi or 2Gi$"),
        ("resources.cpu=lots", r"^resources\.cpu can't be 'lots'; write 500m or 2$"),
        ("env.A B=1", "'A B' can't be a variable's name; use letters, digits and '_'"),
        ("replicas=two", "this can't be set: replicas: it must be a whole number"),
    ],
)
def test_what_can_not_be_set(change: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        changed(DeploymentSpec(), [change])


def test_nothing_is_set_twice() -> None:
    with pytest.raises(InvalidInput, match="replicas is set twice"):
        changed(DeploymentSpec(), ["replicas=1", "replicas=2"])
