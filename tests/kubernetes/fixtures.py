"""A cluster for tests marked `kubernetes`: a real control plane, a small kubelet, a store that pods can reach."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from lightkube import Client
from lightkube.config.kubeconfig import KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace, Secret

from modelyard import Yard
from modelyard.settings import load_settings
from ports import free_port

from . import control_plane
from .control_plane import ControlPlane
from .kubelet import Kubelet
from .models import KEY, SECRET, register
from .site import NEW, OLD, Site

IMAGE = "modelyard:test"


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    assert not control_plane.missing(), control_plane.missing()
    with ControlPlane(tmp_path_factory.mktemp("plane")).running() as plane:
        yield plane


@pytest.fixture(scope="session")
def kubelet(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    kubelet = Kubelet(plane.kubeconfig, tmp_path_factory.mktemp("node"), **{"nvidia.com/gpu": "1"})
    kubelet.images.add(IMAGE)
    with kubelet.running():
        yield kubelet


@pytest.fixture
def second_node(plane: ControlPlane, kubelet: Kubelet, tmp_path: Path) -> Iterator[Kubelet]:
    """Beside the first one."""
    second = Kubelet(plane.kubeconfig, tmp_path / "node", "node-2")
    second.images |= kubelet.images
    with second.running():
        yield second


@pytest.fixture
def namespace(plane: ControlPlane) -> Iterator[str]:
    """A new one, with the credentials of the bucket in the secret `store`."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    with client(plane) as api:
        api.create(Namespace(metadata=ObjectMeta(name=name)))
        values = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        api.create(Secret(metadata=ObjectMeta(name="store", namespace=name), stringData=values), namespace=name)
        yield name
        api.delete(Namespace, name)


@pytest.fixture
def cluster_variables(
    plane: ControlPlane, namespace: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person who works with this cluster has set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    for name, value in {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    values: dict[str, object] = {
        "STORE": f"s3://yard/{uuid.uuid4().hex}",
        "S3_ENDPOINT_URL": s3_server,
        "CACHE": tmp_path / "cache",
        "STATE": tmp_path / "state",
        "USER": "tester",
        "DEPLOYMENT__TARGET": "kubernetes",
        "DEPLOYMENT__TIMEOUT_S": 200,
        "API__PORT": free_port(),
        "KUBERNETES__NAMESPACE": namespace,
        "KUBERNETES__IMAGE": IMAGE,
        "KUBERNETES__STORE_SECRET": "store",
        "KUBERNETES__DRAIN_DELAY_S": 1,
        "KUBERNETES__MIN_READY_S": 0,
        "KUBERNETES__CACHE": "hostPath:/var/cache/modelyard",
    }
    for name, setting in values.items():
        monkeypatch.setenv(f"MODELYARD_{name}", str(setting))


@pytest.fixture
def cluster_yard(cluster_variables: None) -> Yard:
    return Yard(load_settings())


@pytest.fixture
def site(cluster_variables: None, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Nothing runs yet; `classifier` is registered as OLD and NEW."""
    monkeypatch.setenv("MODELYARD_GATEWAY__PORT", str(free_port()))
    site = Site(tmp_path, Yard(load_settings()), kubelet)
    for number, version in enumerate((OLD, NEW)):
        register(site.yard.repository, tmp_path, version, number + 1.0)
    with site.open():
        yield site


def client(plane: ControlPlane, namespace: str | None = None) -> Client:
    config = KubeConfig.from_file(plane.kubeconfig).get()
    return Client(config, namespace=namespace, timeout=httpx2.Timeout(5))
