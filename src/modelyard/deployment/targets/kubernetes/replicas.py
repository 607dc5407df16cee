"""From pods to replicas, as the rest of the deployment package knows them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from modelyard.deployment.plan import Replica, ReplicaState
from modelyard.deployment.routing import Deployments
from modelyard.deployment.targets.kubernetes import names
from modelyard.engines import ENGINES
from modelyard.errors import InvalidInput
from modelyard.refs import Digest, ModelRef, Version
from modelyard.repository import Deployment, Pin

if TYPE_CHECKING:
    from lightkube.resources.core_v1 import Pod


def replicas(pods: Iterable[Pod], port: int) -> list[Replica]:
    """Those that have an address. One that is to end counts as ready: it answers until the end of what it has."""
    found = (_replica(pod, port) for pod in pods)
    return [replica for replica in found if replica is not None]


def routed(found: Iterable[Replica], pods: Iterable[Pod], deployments: Deployments) -> frozenset[str]:
    """Those that are to get requests: ready, not to end, and of a version that is wanted."""
    staying = {str(pod.metadata.name) for pod in pods if pod.metadata and stays(pod)}
    wanted = (each for each in found if each.state == "ready" and each.id in staying)
    return frozenset(each.id for each in wanted if _is_wanted(each, deployments))


def stays(pod: Pod) -> bool:
    """Whether nobody has asked it to end."""
    return not (pod.metadata and pod.metadata.deletionTimestamp)


def _is_wanted(replica: Replica, deployments: Deployments) -> bool:
    deployment = deployments.get(replica.environment, {}).get(replica.model, Deployment())
    return replica.pin in (deployment.serving, deployment.target)


def _replica(pod: Pod, port: int) -> Replica | None:
    metadata, status = pod.metadata, pod.status
    notes, labels = (metadata.annotations or {}, metadata.labels or {}) if metadata else ({}, {})
    if metadata is None or status is None or not status.podIP:
        return None
    try:
        version, digest = Version.parse(notes.get(names.VERSION, "")), Digest.parse(notes.get(names.DIGEST, ""))
        ref = ModelRef(notes[names.MODEL], version, digest=digest)
        engine = ENGINES[notes[names.ENGINE]]
    except (InvalidInput, KeyError):
        return None  # somebody else's
    state, since = _state(pod)
    return Replica(
        id=str(metadata.name),
        environment=labels.get(names.ENVIRONMENT, ""),
        model=ref.name,
        pin=Pin(version, digest),
        rollout="",
        state=state,
        since_s=(datetime.now(UTC) - since).total_seconds() if since else 0.0,
        port=port,
        host=status.podIP,
        keeps_connections=engine.keeps_connections,
        engine=engine.name,
        internal_name=engine.internal_name(ref),
    )


def _state(pod: Pod) -> tuple[ReplicaState, datetime | None]:
    conditions = (pod.status.conditions if pod.status else None) or []
    ready = next((each for each in conditions if each.type == "Ready"), None)
    ending = pod.metadata is not None and pod.metadata.deletionTimestamp is not None
    if pod.status and pod.status.phase in ("Failed", "Succeeded"):
        return "exited", None
    if ending or (ready and ready.status == "True"):
        return "ready", ready.lastTransitionTime if ready else None
    return "starting", ready.lastTransitionTime if ready else None
