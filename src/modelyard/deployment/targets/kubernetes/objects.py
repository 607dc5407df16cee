"""From a workload to the objects of a cluster. Pure: the same workload gives the same objects, in the same order."""

from __future__ import annotations

from typing import Any

from modelyard.deployment.targets.kubernetes import names, pods
from modelyard.deployment.targets.kubernetes.pods import Document
from modelyard.deployment.targets.kubernetes.workload import Workload
from modelyard.errors import InvalidInput
from modelyard.settings import KubernetesSettings

_BUSY_PERCENT = 70  # of the CPU a replica asks for; beyond it the autoscaler adds one


def objects(workload: Workload, settings: KubernetesSettings, namespace: str | None = None) -> tuple[Document, ...]:
    """Everything that a version needs, the Deployment last. Raises InvalidInput for what no cluster could run."""
    _check(workload, settings)
    parts = [_service_account(workload, settings)]
    if workload.keys:
        parts.append(_of(workload, "v1", "ConfigMap", {"data": dict(workload.keys)}, name=f"{workload.name}-keys"))
    parts += [_service(workload), _network_policy(workload), _disruption_budget(workload)]
    if workload.scaled:
        parts.append(_autoscaler(workload))
    parts.append(_deployment(workload, settings))
    if namespace:
        for part in parts:
            part["metadata"]["namespace"] = namespace
    own = parts[-1]["metadata"]["annotations"]
    own[names.WISH] = pods.fingerprint(parts)
    if workload.rollout:
        own[names.ROLLOUT] = workload.rollout
    return tuple(parts)


def wish(documents: tuple[Document, ...]) -> str:
    """What changes when anything of the objects does, the rollout's id apart."""
    return str(documents[-1]["metadata"]["annotations"][names.WISH])


def selector(workload: Workload) -> dict[str, str]:
    """The labels by which the model's pods are found, in either slot; they never change."""
    return {names.INSTANCE: workload.name, names.PART_OF: "modelyard"}


def _check(workload: Workload, settings: KubernetesSettings) -> None:
    spec = workload.spec
    if settings.image is None:
        raise InvalidInput(
            "it is not known which image replicas run",
            remedy="set kubernetes.image (MODELYARD_KUBERNETES__IMAGE), such as registry.example/modelyard:0.1.0",
        )
    deadline_s = _deadline_s(workload, settings)
    if deadline_s <= settings.min_ready_s:
        raise InvalidInput(
            f"a rollout can't end within its deadline of {deadline_s} s: each replica has to be ready for "
            f"{settings.min_ready_s} s",
            remedy="give a longer progress_deadline_s, or a shorter kubernetes.min_ready_s",
        )
    if spec.on_demand:
        raise InvalidInput(
            f"{workload.ref.name} is to run on demand, which a cluster can't do", remedy="ask for --replicas"
        )
    if spec.max_replicas and spec.max_replicas < spec.replicas:
        raise InvalidInput(
            f"at most {spec.max_replicas} replicas are less than the {spec.replicas} there are to be",
            remedy="give a max_replicas of at least as many",
        )
    if spec.max_replicas and not spec.resources.cpu:
        raise InvalidInput(
            "max_replicas scales by the CPU that is asked for, and none is", remedy="give resources.cpu, such as 500m"
        )


def _of(workload: Workload, version: str, kind: str, body: dict[str, Any], *, name: str = "") -> Document:
    metadata: Document = {
        "name": name or workload.name,
        "labels": pods.labels(workload),
        "annotations": pods.notes(workload),
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def _service_account(workload: Workload, settings: KubernetesSettings) -> Document:
    account = _of(workload, "v1", "ServiceAccount", {"automountServiceAccountToken": False})
    account["metadata"]["annotations"] |= settings.service_account_annotations
    return account


def _service(workload: Workload) -> Document:
    """Headless: the gateway reads the pods' addresses itself, others find them by this name."""
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    return _of(
        workload, "v1", "Service", {"spec": {"clusterIP": "None", "selector": selector(workload), "ports": ports}}
    )


def _network_policy(workload: Workload) -> Document:
    """Requests come through the gateway alone, which knows who may ask."""
    gateway = {"podSelector": {"matchLabels": {names.COMPONENT: names.GATEWAY, names.PART_OF: "modelyard"}}}
    spec = {
        "podSelector": {"matchLabels": selector(workload)},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [gateway], "ports": [{"port": "http", "protocol": "TCP"}]}],
    }
    return _of(workload, "networking.k8s.io/v1", "NetworkPolicy", {"spec": spec})


def _disruption_budget(workload: Workload) -> Document:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": selector(workload)}}
    return _of(workload, "policy/v1", "PodDisruptionBudget", {"spec": spec})


def _autoscaler(workload: Workload) -> Document:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": _BUSY_PERCENT}}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.deployment},
        "minReplicas": workload.spec.replicas,
        "maxReplicas": workload.spec.max_replicas,
        "metrics": [{"type": "Resource", "resource": cpu}],
    }
    return _of(workload, "autoscaling/v2", "HorizontalPodAutoscaler", {"spec": spec}, name=workload.deployment)


def _deployment(workload: Workload, settings: KubernetesSettings) -> Document:
    spec: Document = {
        "selector": {"matchLabels": selector(workload) | {names.SLOT: workload.slot}},
        "strategy": _strategy(workload),
        "progressDeadlineSeconds": _deadline_s(workload, settings),
        "minReadySeconds": settings.min_ready_s,
        "revisionHistoryLimit": 5,
        "template": pods.template(workload, settings),
    }
    if not workload.scaled:
        spec["replicas"] = workload.replicas or workload.spec.replicas
    if workload.paused:
        spec["paused"] = True
    return _of(workload, "apps/v1", "Deployment", {"spec": spec}, name=workload.deployment)


def _deadline_s(workload: Workload, settings: KubernetesSettings) -> int:
    return workload.spec.progress_deadline_s or settings.progress_deadline_s


def _strategy(workload: Workload) -> Document:
    """One by one, never fewer than there were, unless there is to be no room for one more."""
    if workload.strategy == "recreate":
        return {"type": "Recreate"}
    strategy = workload.spec.strategy
    limits = {"maxSurge": strategy.surge, "maxUnavailable": strategy.unavailable}
    return {"type": "RollingUpdate", "rollingUpdate": limits}
