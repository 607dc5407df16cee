"""The folder deploy/: what it holds keeps today's schemas, and its roles are enough, and no more than that, to work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from lightkube import ApiError, Client
from lightkube.codecs import from_dict
from lightkube.models.authentication_v1 import TokenRequestSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod, Secret, ServiceAccount
from lightkube.types import PatchType

from modelyard import Yard
from modelyard.deployment.targets.kubernetes.objects import objects
from modelyard.errors import Refused
from modelyard.settings import load_settings

from .control_plane import ControlPlane
from .fixtures import client
from .models import register
from .test_objects import FULL
from .workloads import settings, workload

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE = DEPLOY / "kustomize" / "base"
YOUNGER = {"policy/v1"}  # than 1.20


def documents() -> list[dict[str, Any]]:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(path.name for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")
    return [each for name in listed for each in yaml.safe_load_all((BASE / name).read_text())]


def test_the_base_keeps_todays_schemas() -> None:
    for document in documents():
        kubernetes_validate.validate(document, "1.37", strict=True)


def test_its_pods_have_no_rights_that_they_do_not_need() -> None:
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in documents()
        if each["kind"] == "Deployment"
    }
    assert pods.keys() == {"modelyard-controller", "modelyard-gateway"}
    for name, spec in pods.items():
        assert spec["serviceAccountName"] == name  # whose role is tried below
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.keys() & {"initContainers", "hostNetwork", "hostPID", "hostIPC"}
        assert spec["volumes"] == [{"name": "tmp", "emptyDir": {}}]
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}


def test_the_images_run_as_the_user_of_the_pods() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    user = objects(workload(**FULL), settings())[-1]["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in lines
    for line in lines:
        if line.startswith("FROM python:"):
            assert "${PYTHON}" in line
    assert any(line.startswith("ARG PYTHON=3.") for line in lines)


@pytest.mark.kubernetes
def test_the_base_passes_the_servers_own_check(plane: ControlPlane, namespace: str) -> None:
    """Against what this server has; today's schemas are looked at above."""
    with client(plane, namespace) as api:
        lacking = apply_base(api, namespace, dry_run=True)
        assert not list(api.list(Deployment))
    assert lacking <= YOUNGER


@pytest.mark.kubernetes
def test_the_controllers_role_is_enough(
    cluster_yard: Yard, plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(cluster_yard.repository, tmp_path, "v1.0.0", 1.0)
    cluster_yard.deployments.deploy_to_staging("classifier", "v1.0.0", wait=False)
    login(plane, namespace, "modelyard-controller", tmp_path, monkeypatch)
    controller = Yard(load_settings()).cluster.controller()

    assert controller.lease.hold()
    controller.tick()
    controller.tick()

    with client(plane, namespace) as api:
        assert api.get(Deployment, "classifier-staging")
    with pytest.raises(Refused, match=r"can't read Secret store: secrets \"store\" is forbidden"):
        controller.parts.cluster.get(Secret, "store")
    cluster_yard.deployments.undeploy("classifier", "staging", wait=False)
    controller.tick()
    controller.tick()
    assert cluster_yard.repository.environment("staging").get("classifier").outcome == "done"
    controller.lease.release()


@pytest.mark.kubernetes
def test_the_gateways_role_is_enough(
    cluster_variables: None, plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(plane, namespace, "modelyard-gateway", tmp_path, monkeypatch)
    cluster = Yard(load_settings()).cluster.parts.cluster

    version, _ = cluster.listed(Pod, {})
    assert version
    with pytest.raises(Refused, match="forbidden"):
        cluster.get(Pod, "x")


def login(plane: ControlPlane, namespace: str, account: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply the base, and be this account from now on."""
    with client(plane, namespace) as api:
        assert apply_base(api, namespace) <= YOUNGER
        asked = ServiceAccount.Token(
            metadata=ObjectMeta(), spec=TokenRequestSpec(audiences=["https://kubernetes.default.svc"])
        )
        answer = api.create(asked, account, namespace=namespace)
    assert answer.status is not None
    config = folder / "kubeconfig"
    config.write_text(plane.kubeconfig.read_text().replace("token: test-admin", f"token: {answer.status.token}"))
    monkeypatch.setenv("KUBECONFIG", str(config))


def apply_base(api: Client, namespace: str, *, dry_run: bool = False) -> set[str]:
    """Returns which of their API versions the server does not know."""
    lacking = set()
    for document in documents():
        kind, name = type(from_dict(document)), document["metadata"]["name"]
        options: dict[str, Any] = {"patch_type": PatchType.APPLY, "field_manager": "test", "dry_run": dry_run}
        try:
            api.patch(kind, name, _bound(document, namespace), **options)
        except ApiError as error:
            assert error.status.code == 404, f"{document['kind']} {name}: {error}"
            lacking.add(document["apiVersion"])
    return lacking


def _bound(document: dict[str, Any], namespace: str) -> dict[str, Any]:
    """As kustomize does it: a binding's accounts get the namespace."""
    subjects = [each | {"namespace": namespace} for each in document.get("subjects", [])]
    return document | ({"subjects": subjects} if subjects else {})
