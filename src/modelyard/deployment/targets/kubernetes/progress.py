"""What a rollout has come to, read from the Deployment and its pods. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.deployment.targets.kubernetes import names
from modelyard.deployment.targets.kubernetes.trouble import Trouble, keeps_crashing, troubles

if TYPE_CHECKING:
    from lightkube.models.apps_v1 import DeploymentCondition
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import Pod


@dataclass(frozen=True, slots=True)
class Progress:
    """`done`: all replicas are of the new template and available, no other is left. `failed`: why it will not be.
    `words`: how far it is. `trouble`: the worst of its pods, which may say why."""

    done: bool
    words: str
    failed: str = ""
    trouble: Trouble | None = None


def progress(deployment: Deployment, pods: Sequence[Pod]) -> Progress:
    """`pods`: all of the Deployment's, those of other templates too."""
    found = troubles(pod for pod in pods if _is_new(pod, deployment))
    worst = found[0] if found else None
    words = _missing(deployment)
    if not words:
        return Progress(True, "all replicas are available")
    if not _observed(deployment):
        return Progress(False, words)
    failed = ""
    if worst and (worst.hopeless or keeps_crashing(found)):
        failed = str(worst)
    elif stuck := _condition(deployment, "Progressing", "False"):
        failed = str(worst) if worst else f"nothing moved within the deadline ({words})"
        failed = failed if stuck.reason == "ProgressDeadlineExceeded" else f"{stuck.reason}: {stuck.message}"
    refused = _condition(deployment, "ReplicaFailure", "True")
    if refused and not worst:
        said = " ".join((refused.message or refused.reason or "").split())[:300]
        words = f"pods can't be made: {said}"
        failed = failed and words
    return Progress(False, words, failed, worst)


def is_at(deployment: Deployment) -> str:
    """The version that it was last told to run, as name:version; empty if it is not of modelyard."""
    found = (deployment.metadata.annotations if deployment.metadata else None) or {}
    model, version = found.get(names.MODEL), found.get(names.VERSION)
    return f"{model}:{version}" if model and version else ""


def _missing(deployment: Deployment) -> str:
    """What is not yet as wanted; the order is that of `kubectl rollout status`."""
    status = deployment.status
    if status is None or not _observed(deployment):
        return "the cluster has not looked at it yet"
    wanted = deployment.spec.replicas if deployment.spec and deployment.spec.replicas is not None else 1
    updated, there, available = (
        count or 0 for count in (status.updatedReplicas, status.replicas, status.availableReplicas)
    )
    if updated < wanted:
        return f"{updated} of {wanted} replicas are new"
    if there > updated:
        return f"{there - updated} old replicas are still there"
    if available < updated:
        return f"{available} of {updated} new replicas are available"
    return ""


def _observed(deployment: Deployment) -> bool:
    status, metadata = deployment.status, deployment.metadata
    if status is None or metadata is None:
        return False
    return (status.observedGeneration or 0) >= (metadata.generation or 0)


def _condition(deployment: Deployment, kind: str, state: str) -> DeploymentCondition | None:
    conditions = (deployment.status.conditions if deployment.status else None) or []
    return next((each for each in conditions if (each.type, each.status) == (kind, state)), None)


def _is_new(pod: Pod, deployment: Deployment) -> bool:
    template = deployment.spec.template.metadata if deployment.spec else None
    wanted = ((template.annotations if template else None) or {}).get(names.TEMPLATE)
    own = ((pod.metadata.annotations if pod.metadata else None) or {}).get(names.TEMPLATE)
    return wanted is not None and own == wanted
