"""What a version becomes: every field that a rollout or the cluster's safety depends on. Pure."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from modelyard.deployment.targets.kubernetes.names import is_name, object_name
from modelyard.deployment.targets.kubernetes.objects import objects, wish
from modelyard.errors import InvalidInput
from modelyard.repository import DeploymentSpec, Strategy
from modelyard.repository.environments import Resources

from .workloads import settings, workload

FULL = {
    "spec": DeploymentSpec(
        replicas=2, max_replicas=4, resources=Resources(cpu="500m", memory="2Gi", gpus=1), env={"A": "b"}
    ),
    "keys": {"0-team.pem": "-----BEGIN PUBLIC KEY-----"},
}


def by_kind(*, cluster: Any = None, **changes: Any) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in objects(workload(**changes), cluster or settings())}


def pod_spec(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = by_kind(**changes)["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("cache", ["emptyDir", "hostPath:/var/cache/modelyard", "pvc:models"])
def test_all_objects_keep_todays_schema(cache: str) -> None:
    given = settings(
        cache=cache,
        image_pull_secrets=("registry",),
        store_secret="store",
        node_selector={"gpu": "yes"},
        service_account_annotations={"role": "reader"},
    )
    found = objects(workload(**FULL), given, "models")

    for document in found:
        kubernetes_validate.validate(document, "1.37", strict=True)
    assert [each["kind"] for each in found] == [
        *("ServiceAccount", "ConfigMap", "Service", "NetworkPolicy", "PodDisruptionBudget"),
        *("HorizontalPodAutoscaler", "Deployment"),
    ]
    assert {each["metadata"]["namespace"] for each in found} == {"models"}


def test_there_are_never_fewer_replicas_than_before() -> None:
    assert by_kind()["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    without_room = by_kind(spec=DeploymentSpec(strategy=Strategy(surge=0, unavailable=1)))["Deployment"]["spec"][
        "strategy"
    ]
    assert without_room["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert by_kind(strategy="recreate")["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


def test_an_old_one_goes_when_a_new_one_has_been_ready_for_a_while() -> None:
    assert by_kind()["Deployment"]["spec"]["minReadySeconds"] == 10
    assert by_kind(cluster=settings(min_ready_s=60))["Deployment"]["spec"]["minReadySeconds"] == 60


def test_a_pod_has_no_rights_that_it_does_not_need() -> None:
    spec = pod_spec()

    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        }


def test_files_come_by_digest_before_the_engine_starts() -> None:
    spec = pod_spec()

    assert spec["initContainers"][0]["command"][:2] == ["modelyard", "pull"]
    assert "@sha256:" in spec["initContainers"][0]["command"][2]
    assert spec["initContainers"][0]["volumeMounts"] == spec["containers"][0]["volumeMounts"]


def test_replicas_of_one_version_go_to_different_nodes() -> None:
    (wish,) = pod_spec()["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    labels = by_kind()["Deployment"]["spec"]["template"]["metadata"]["labels"]

    assert wish["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    selected = wish["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert selected == {key: labels[key] for key in ("app.kubernetes.io/instance", "app.kubernetes.io/version")}


def test_requests_under_way_have_time_to_end() -> None:
    (server,) = pod_spec()["containers"]

    assert server["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert pod_spec()["terminationGracePeriodSeconds"] == 5 + 60 + 5
    assert pod_spec(spec=DeploymentSpec(grace_period_s=600))["terminationGracePeriodSeconds"] == 600
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["path"] == "/v2/health/ready"


def test_memory_and_gpus_are_limits_the_cpu_is_none() -> None:
    (server,) = pod_spec(**FULL)["containers"]
    assert server["resources"] == {
        "requests": {"cpu": "500m", "memory": "2Gi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "2Gi", "nvidia.com/gpu": "1"},
    }
    assert "nvidia.com/gpu" not in pod_spec(**FULL)["initContainers"][0]["resources"]["limits"]


def test_the_autoscaler_has_the_replicas_to_itself() -> None:
    assert by_kind()["Deployment"]["spec"]["replicas"] == 2
    found = by_kind(**FULL)
    assert "replicas" not in found["Deployment"]["spec"]
    assert found["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] == 4


def test_only_the_gateway_may_ask() -> None:
    (rule,) = by_kind()["NetworkPolicy"]["spec"]["ingress"]
    (source,) = rule["from"]
    assert source["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"


def test_who_made_what_stands_on_everything() -> None:
    for document in by_kind(**FULL).values():
        notes, labels = document["metadata"]["annotations"], document["metadata"]["labels"]
        assert notes["modelyard/owner"] == "anna@laptop"
        assert notes["modelyard/digest"].startswith("sha256:")
        assert labels["app.kubernetes.io/version"] == "v1.2.0"
        assert labels["app.kubernetes.io/managed-by"] == "modelyard"


def test_a_new_rollout_of_the_same_changes_no_pod() -> None:
    one, two = objects(workload(rollout="1"), settings()), objects(workload(rollout="2"), settings())
    assert one[-1]["spec"] == two[-1]["spec"]
    assert wish(one) == wish(two)
    assert wish(one) != wish(objects(workload(spec=DeploymentSpec(replicas=3)), settings()))


@pytest.mark.parametrize(
    ("spec", "image", "said"),
    [
        (DeploymentSpec(), None, "which image replicas run"),
        (DeploymentSpec(min_replicas=0), "i", "on demand"),
        (DeploymentSpec(replicas=3, max_replicas=2), "i", "at most 2 replicas are less than the 3"),
        (DeploymentSpec(max_replicas=2), "i", "give resources.cpu"),
        (DeploymentSpec(progress_deadline_s=10), "i", "can't end within its deadline of 10 s"),
    ],
)
def test_what_no_cluster_could_run_is_refused(spec: DeploymentSpec, image: str | None, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        objects(workload(spec=spec), settings(image=image))


def test_names_fit_and_are_each_models_own() -> None:
    models = ["digits", "Digits", "face.net", "face-net", "team/face-net", "x" * 96, "x" * 95, "2vec", "gpt_2"]
    found = [object_name(model, environment) for model in models for environment in ("staging", "production")]

    assert object_name("digits", "production") == "digits-production"
    assert len(set(found)) == len(found)
    assert all(is_name(name) for name in found), found
