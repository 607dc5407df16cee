"""`KubernetesClient` against a real control plane: rollouts that come true, and those that don't."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightkube.resources.apps_v1 import Deployment

from modelyard import KubernetesClient, Yard
from modelyard.errors import RolloutFailed
from modelyard.repository import DeploymentSpec

from .control_plane import ControlPlane
from .fixtures import client
from .kubelet import Kubelet
from .models import register

pytestmark = pytest.mark.kubernetes


def test_a_deployment_is_led_to_a_version_and_to_the_next(
    cluster_yard: Yard, kubelet: Kubelet, plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    for number in (1, 2):
        register(cluster_yard.repository, tmp_path, f"v1.{number}.0", float(number))
    path, _ = cluster_yard.repository.get_model("classifier", "v1.1.0")
    cluster = KubernetesClient()

    cluster.update_deployment("staging-server", new_model_path=path)
    served = cluster.update_deployment("staging-server", new_model_version="v1.2.0", strategy="rolling_update")

    assert str(served).startswith("classifier:v1.2.0@sha256:")
    with client(plane, namespace) as api:
        deployment = api.get(Deployment, "staging-server")
    assert deployment.status is not None
    assert deployment.status.availableReplicas == deployment.status.replicas == 1


def test_a_version_that_does_not_come_up_is_rolled_back(
    cluster_yard: Yard, kubelet: Kubelet, plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    for number in (1, 2):
        register(cluster_yard.repository, tmp_path, f"v1.{number}.0", float(number))
    cluster = KubernetesClient()
    cluster.update_deployment("production-server", new_model_version="classifier:v1.1.0")

    with pytest.raises(RolloutFailed, match=r"went back to classifier:v1\.1\.0: .*queue_limit"):
        broken = DeploymentSpec(env={"MODELYARD_SERVING__QUEUE_LIMIT": "many"})
        cluster.update_deployment("production-server", new_model_version="v1.2.0", spec=broken)

    with client(plane, namespace) as api:
        deployment = api.get(Deployment, "production-server")
    assert deployment.metadata and deployment.metadata.annotations
    assert deployment.metadata.annotations["modelyard/version"] == "v1.1.0"
