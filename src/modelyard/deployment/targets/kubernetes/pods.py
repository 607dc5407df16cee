"""The pod of a replica: files first, by digest; then the engine, without any rights it does not need. Pure."""

from __future__ import annotations

import hashlib
import json
import shlex
from math import ceil
from typing import Any

from modelyard.deployment.targets.kubernetes import names
from modelyard.deployment.targets.kubernetes.workload import Workload
from modelyard.repository.environments import NAMES as ENVIRONMENTS
from modelyard.settings import KubernetesSettings

Document = dict[str, Any]

CONTAINER, INIT = "server", "pull"
_VERSION_LABEL, _NODE_LABEL = "app.kubernetes.io/version", "kubernetes.io/hostname"
CACHE, TMP, KEYS = "/cache", "/tmp", "/etc/modelyard/keys"  # noqa: S108 - in the pod
_USER = 10001  # of the image
_PROBE_S = 2
_HANGS_S = 60  # one that answered nothing for so long is started again
_SLACK_S = 5


def template(workload: Workload, settings: KubernetesSettings) -> Document:
    """The pod template. It says nothing that changes while the version, its engine and its spec do not."""
    found = {
        "metadata": {"labels": labels(workload) | {names.SLOT: workload.slot}, "annotations": notes(workload)},
        "spec": _spec(workload, settings),
    }
    found["metadata"]["annotations"][names.TEMPLATE] = fingerprint(found)
    return found


def fingerprint(document: Any) -> str:
    """Another one for everything that differs."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def labels(workload: Workload) -> dict[str, str]:
    """The recommended ones, and the two that modelyard selects by."""
    return {
        "app.kubernetes.io/name": names.label_value(workload.ref.name),
        _VERSION_LABEL: names.label_value(str(workload.ref.version)),
        names.INSTANCE: workload.name,
        names.COMPONENT: names.REPLICA,
        names.PART_OF: "modelyard",
        names.MANAGED_BY: names.MANAGER,
        names.ENVIRONMENT: workload.environment,
        names.YARD: workload.yard,
    }


def notes(workload: Workload) -> dict[str, str]:
    """What labels have no room for."""
    return {
        names.MODEL: workload.ref.name,
        names.VERSION: str(workload.ref.version),
        names.DIGEST: str(workload.ref.digest),
        names.ENGINE: workload.engine,
        names.OWNER: workload.owner,
    }


def logs_command(model: str, settings: KubernetesSettings, *, lines: int, follow: bool) -> str:
    """The command line of kubectl that shows what a model's replicas print, in every environment."""
    instances = ",".join(names.object_name(model, environment) for environment in ENVIRONMENTS)
    words = ["kubectl", "logs", "--selector", f"{names.INSTANCE} in ({instances})", "--container", CONTAINER]
    words += ["--context", settings.context] if settings.context else []
    words += ["--namespace", settings.namespace] if settings.namespace else []
    return shlex.join([*words, "--prefix", "--tail", str(lines), *(["--follow"] if follow else [])])


def grace_period_s(workload: Workload, settings: KubernetesSettings) -> int:
    """What a pod may take to end: until gateways know, then what is under way, then the process."""
    return workload.spec.grace_period_s or ceil(settings.drain_delay_s + workload.drain_s + _SLACK_S)


def _spec(workload: Workload, settings: KubernetesSettings) -> Document:
    spec: Document = {
        "serviceAccountName": workload.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": grace_period_s(workload, settings),
        "affinity": {"podAntiAffinity": _apart(workload)},
        "initContainers": [_container(INIT, workload.pull, workload, settings)],
        "containers": [_server(workload, settings)],
        "volumes": _volumes(workload, settings),
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.node_selector:
        spec["nodeSelector"] = dict(settings.node_selector)
    return spec


def _apart(workload: Workload) -> Document:
    """Replicas of one version go to different nodes as long as there are any, so that no node takes all with it."""
    same = {label: labels(workload)[label] for label in (names.INSTANCE, _VERSION_LABEL)}
    term = {"topologyKey": _NODE_LABEL, "labelSelector": {"matchLabels": same}}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


def _server(workload: Workload, settings: KubernetesSettings) -> Document:
    ready = {"httpGet": {"path": workload.ready_path, "port": "http", "scheme": "HTTP"}, "timeoutSeconds": _PROBE_S}
    server = _container(CONTAINER, workload.command, workload, settings)
    server["ports"] = [{"name": "http", "containerPort": settings.port, "protocol": "TCP"}]
    starts = max(1, ceil(workload.ready_s / _PROBE_S))
    server["startupProbe"] = ready | {"periodSeconds": _PROBE_S, "failureThreshold": starts}
    server["readinessProbe"] = ready | {"periodSeconds": _PROBE_S, "failureThreshold": 3}
    server["livenessProbe"] = ready | {"periodSeconds": 10, "failureThreshold": _HANGS_S // 10}
    if settings.drain_delay_s:
        server["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", str(settings.drain_delay_s)]}}}
    return server


def _container(name: str, command: tuple[str, ...], workload: Workload, settings: KubernetesSettings) -> Document:
    container: Document = {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "env": _env(workload),
        "resources": _resources(workload, gpus=name == CONTAINER),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(workload),
    }
    if settings.store_secret:
        container["envFrom"] = [{"secretRef": {"name": settings.store_secret}}]
    return container


def _env(workload: Workload) -> list[Document]:
    """The pod's own name and address first, since others may refer to them."""
    own = [("POD_NAME", "metadata.name"), ("POD_IP", "status.podIP")]
    plain = {"HOME": TMP, "MODELYARD_CACHE": CACHE, "MODELYARD_STATE": f"{TMP}/state", "MODELYARD_USER": "modelyard"}
    plain |= {**workload.variables, **workload.spec.env}
    return [
        *({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}} for name, path in own),
        *({"name": name, "value": value} for name, value in sorted(plain.items())),
    ]


def _resources(workload: Workload, *, gpus: bool) -> Document:
    """Memory and GPUs can't be shared, so they are limits too; a CPU can."""
    asked, wanted = workload.spec.resources, {}
    if asked.cpu:
        wanted["cpu"] = asked.cpu
    most = {"memory": asked.memory} if asked.memory else {}
    if asked.gpus and gpus:
        most["nvidia.com/gpu"] = str(asked.gpus)
    resources = {"requests": wanted | most, "limits": most}
    return {kind: amounts for kind, amounts in resources.items() if amounts}


def _mounts(workload: Workload) -> list[Document]:
    mounts: list[Document] = [{"name": "cache", "mountPath": CACHE}, {"name": "tmp", "mountPath": TMP}]
    if workload.keys:
        mounts.append({"name": "keys", "mountPath": KEYS, "readOnly": True})
    return mounts


def _volumes(workload: Workload, settings: KubernetesSettings) -> list[Document]:
    kind, _, where = settings.cache.partition(":")
    cache: Document = {"emptyDir": {}}
    if kind == "hostPath":
        cache = {"hostPath": {"path": where, "type": "DirectoryOrCreate"}}
    elif kind == "pvc":
        cache = {"persistentVolumeClaim": {"claimName": where}}
    volumes: list[Document] = [{"name": "cache", **cache}, {"name": "tmp", "emptyDir": {}}]
    if workload.keys:
        volumes.append({"name": "keys", "configMap": {"name": f"{workload.name}-keys"}})
    return volumes
