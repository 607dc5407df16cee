"""What goes wrong on a cluster, told in words; what passes, waited for. On a real control plane."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from lightkube import ApiError
from lightkube.codecs import from_dict
from lightkube.resources.apps_v1 import Deployment
from lightkube.types import PatchType

from modelyard import KubernetesClient, Yard
from modelyard.cli.app import run
from modelyard.deployment.targets.kubernetes.cluster import Cluster, connect
from modelyard.deployment.targets.kubernetes.lease import DURATION_S, Lease
from modelyard.deployment.targets.kubernetes.objects import objects
from modelyard.deployment.targets.kubernetes.rollouts import Rollouts
from modelyard.errors import Conflict, InvalidInput, NotFound, RolloutFailed, Unavailable
from modelyard.repository import DeploymentSpec
from modelyard.repository.environments import Resources
from modelyard.settings import KubernetesSettings, load_settings

from .control_plane import ControlPlane
from .fixtures import client
from .kubelet import Kubelet, wait_for
from .models import register
from .test_objects import FULL
from .workloads import settings, workload

pytestmark = pytest.mark.kubernetes

SOON = 2  # seconds until the cluster gives a rollout up


@pytest.fixture
def cluster(cluster_variables: None) -> Cluster:
    return connect(load_settings().kubernetes, patience_s=30)


def test_objects_pass_the_servers_own_check(plane: ControlPlane, namespace: str) -> None:
    """Against what this server has; today's schemas are looked at in test_objects.py."""
    lacking = []
    with client(plane, namespace) as api:
        for document in objects(workload(**FULL), settings()):
            kind = type(from_dict(document))
            try:
                api.patch(
                    kind,
                    document["metadata"]["name"],
                    document,
                    patch_type=PatchType.APPLY,
                    field_manager="modelyard",
                    dry_run=True,
                )
            except ApiError as error:
                assert error.status.code == 404, f"{document['kind']}: {error}"
                lacking.append(document["apiVersion"])
    print(f"not checked, since the server has no {', '.join(lacking) or 'reason'}")
    assert set(lacking) <= {"policy/v1", "autoscaling/v2"}  # younger than 1.20


def test_an_autoscaler_begins_with_the_replicas_there_are(cluster: Cluster) -> None:
    rollouts = Rollouts(cluster)
    scaled = DeploymentSpec(2, max_replicas=4, resources=Resources(cpu="100m"))
    for spec in (DeploymentSpec(3), scaled, scaled):
        rollouts.apply(objects(workload(spec=spec), settings()))
        there = rollouts.find("digits-production")
        assert there and there.spec and there.spec.replicas == 3


def test_an_image_that_is_not_there(
    cluster_yard: Yard,
    kubelet: Kubelet,
    plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register(cluster_yard.repository, tmp_path, "v1.0.0", 1.0)
    monkeypatch.setenv("MODELYARD_KUBERNETES__IMAGE", "modelyard:absent")

    with pytest.raises(RolloutFailed, match=r"is removed: pod s-.*: the image modelyard:absent can't be pulled \("):
        KubernetesClient().update_deployment(
            "s", new_model_version="classifier:v1.0.0", spec=DeploymentSpec(progress_deadline_s=SOON)
        )

    with client(plane, namespace) as api, pytest.raises(ApiError, match="not found"):
        api.get(Deployment, "s")


def test_a_node_without_room(cluster_yard: Yard, kubelet: Kubelet, tmp_path: Path) -> None:
    register(cluster_yard.repository, tmp_path, "v1.0.0", 1.0)
    greedy = DeploymentSpec(progress_deadline_s=SOON, resources=Resources(gpus=2))

    with pytest.raises(RolloutFailed, match=r"no node takes it: .* Insufficient nvidia\.com/gpu"):
        KubernetesClient().update_deployment("s", new_model_version="classifier:v1.0.0", spec=greedy)


def test_files_that_do_not_come(cluster_yard: Yard, kubelet: Kubelet, tmp_path: Path) -> None:
    register(cluster_yard.repository, tmp_path, "v1.0.0", 1.0)
    stranger = DeploymentSpec(env={"AWS_SECRET_ACCESS_KEY": "wrong"}, progress_deadline_s=8)

    with pytest.raises(RolloutFailed, match=r"its files do not come \(exit code 75, \d+ times?\): error: "):
        KubernetesClient().update_deployment("s", new_model_version="classifier:v1.0.0", spec=stranger)


def test_a_field_of_somebody_else(cluster: Cluster, plane: ControlPlane, namespace: str) -> None:
    document = objects(workload(), settings())[-1]
    cluster.apply(document)
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "digits-production"}}
    with client(plane, namespace) as api:
        api.patch(
            Deployment,
            "digits-production",
            other | {"spec": {"replicas": 5}},
            patch_type=PatchType.APPLY,
            field_manager="anna",
            force=True,
        )

    with pytest.raises(Conflict, match=r"Deployment digits-production: spec\.replicas belongs to anna"):
        cluster.apply(document)
    cluster.apply(document, force=True)


def test_an_api_server_that_is_away_for_a_while(
    cluster: Cluster, plane: ControlPlane, kubelet: Kubelet, caplog: pytest.LogCaptureFixture
) -> None:
    rollouts = Rollouts(cluster)
    rollouts.apply(objects(workload(spec=DeploymentSpec(progress_deadline_s=60)), settings(image="absent:1")))

    def trouble() -> object:
        found = rollouts.find("digits-production")
        return found and rollouts.progress(found).trouble

    wait_for(trouble)
    told: list[str] = []
    watching = threading.Thread(target=lambda: told.append(rollouts.watch("digits-production", timeout_s=3)))
    with plane.away():
        watching.start()
        wait_for(lambda: "it is asked again" in caplog.text)
    watching.join()

    assert "not done after 3 s: pod digits-production-" in told[0]
    assert "the image absent:1 can't be pulled" in told[0]


def test_an_api_server_that_does_not_come_back(
    cluster_variables: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(Path(os.environ["KUBECONFIG"]).read_text().replace("https://127.0.0.1:", "https://127.0.0.1:1"))
    monkeypatch.setenv("KUBECONFIG", str(config))
    away = connect(KubernetesSettings(), patience_s=0.3)

    with pytest.raises(Unavailable, match="the API server does not answer"):
        away.get(Deployment, "x")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(InvalidInput, match="there is no cluster to talk to"):
        connect(KubernetesSettings(), patience_s=0)


def test_what_can_not_be_asked(cluster_yard: Yard, plane: ControlPlane, tmp_path: Path) -> None:
    cluster = KubernetesClient()
    register(cluster_yard.repository, tmp_path, "v1.0.0", 1.0)

    with pytest.raises(InvalidInput, match="no strategy"):
        cluster.update_deployment("s", new_model_version="classifier:v1.0.0", strategy="big_bang")
    with pytest.raises(InvalidInput, match="not clear what s is to run"):
        cluster.update_deployment("s")
    with pytest.raises(InvalidInput, match="can't be the name"):
        cluster.update_deployment("My_Server", new_model_version="classifier:v1.0.0")
    with pytest.raises(NotFound, match="s is not there, in the namespace test-"):
        cluster.update_deployment("s", new_model_version="v1.0.0")
    with pytest.raises(InvalidInput, match="is not what `get_model` gave"):
        cluster.update_deployment("s", new_model_path=tmp_path)


def test_a_failed_rollout_is_kept_with_its_reason(
    cluster_yard: Yard,
    kubelet: Kubelet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    register(cluster_yard.repository, tmp_path, "v1.0.0", 1.0)
    monkeypatch.setenv("MODELYARD_KUBERNETES__IMAGE", "modelyard:absent")
    monkeypatch.setenv("MODELYARD_KUBERNETES__PROGRESS_DEADLINE_S", str(SOON))
    cluster_yard = Yard(load_settings())
    cluster_yard.deployments.deploy_to_staging("classifier", "v1.0.0", wait=False)
    controller, staging = cluster_yard.cluster.controller(), cluster_yard.repository.environment("staging")

    def ended() -> bool:
        controller.tick()
        return staging.get("classifier").outcome == "failed"

    wait_for(ended)
    assert "the image modelyard:absent can't be pulled" in staging.get("classifier").reason
    assert staging.get("classifier").target is None
    controller.tick()
    assert Rollouts(controller.parts.cluster).find("classifier-staging") is None
    assert run(["status"]) == 0
    assert "nothing in the cluster carries deployments out; start `modelyard controller`" in capsys.readouterr().err


class Killed(BaseException):
    """As no code expects it."""


class Mortal:
    """A client whose process is killed right after so many calls."""

    def __init__(self, client: Any, calls: int) -> None:
        self._client, self._left = client, calls

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return getattr(self._client, name)(*arguments, **options)
            finally:
                self._left -= 1
                if not self._left:
                    raise Killed

        return call


def test_a_controller_may_be_killed_after_any_call(cluster_yard: Yard, kubelet: Kubelet, tmp_path: Path) -> None:
    register(cluster_yard.repository, tmp_path, "v1.0.0", 1.0)
    cluster_yard.deployments.deploy_to_staging("classifier", "v1.0.0", wait=False)
    staging, killed = cluster_yard.repository.environment("staging"), 0

    def ended() -> bool:
        nonlocal killed
        controller = cluster_yard.cluster.controller()
        cluster: Any = controller.parts.cluster
        cluster.client = Mortal(cluster.client, killed + 1)
        try:
            controller.tick()
        except Killed:
            killed += 1
        return staging.get("classifier").outcome != "running"

    wait_for(ended)
    assert killed > 5  # the objects of a version, at least
    assert [entry.why for entry, _ in staging.history()] == ["stage classifier:v1.0.0", "classifier: v1.0.0 serves"]


def test_one_of_several_leads(cluster: Cluster) -> None:
    now = [0.0]
    one, two = (Lease(cluster, "lead", name, clock=lambda: now[0]) for name in ("one", "two"))

    assert (one.hold(), two.hold(), two.held()) == (True, False, True)
    now[0] += DURATION_S / 2
    assert (one.hold(), two.hold()) == (True, False)
    now[0] += DURATION_S + 1  # in which `one` was not heard of
    assert (two.hold(), one.hold()) == (True, False)
    two.release()
    assert not one.held()
    assert one.hold()
