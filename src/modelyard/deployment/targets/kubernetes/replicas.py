"""From pods to replicas, as the rest of the deployment package knows them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from modelyard.deployment import canary
from modelyard.deployment.plan import Replica, ReplicaState
from modelyard.deployment.routing import Deployments, Traffic
from modelyard.deployment.targets.kubernetes import names
from modelyard.engines import ENGINES
from modelyard.errors import InvalidInput
from modelyard.refs import Digest, ModelRef, Version
from modelyard.repository import Deployment, Pin

if TYPE_CHECKING:
    from lightkube.resources.core_v1 import Pod

_Standing = Literal["ready", "ending", "started"]
_ALL = 100  # percent
_STANDINGS: tuple[_Standing, ...] = ("ready", "ending", "started")  # the fittest first


def replicas(pods: Iterable[Pod], port: int) -> list[Replica]:
    """Those that have an address. One that is to end counts as ready: it answers until the end of what it has."""
    found = (_replica(pod, port) for pod in pods)
    return [replica for replica in found if replica is not None]


def traffic(pods: Sequence[Pod], port: int, deployments: Deployments, now: float) -> tuple[list[Replica], Traffic]:
    """The replicas, and those that are to get requests: of a version that is wanted, ready, and not to end.

    Where a model has none, those that are to end and still answer; where it has none of these, those that have started,
    though they do not say that they are ready: a request that may fail is better than one that must. While versions
    stand side by side each has its share; one without any stands by, as one does that is kept warm. `now`: in seconds
    since the epoch.
    """
    found, standing = replicas(pods, port), {str(p.metadata.name): _standing(p) for p in pods if p.metadata}
    to = _fittest([r for r in found if _is_wanted(r, deployments)], standing)
    shares = {
        (environment, model): _share(deployment, [r for r in found if r.id in to and _is_of(r, environment, model)])
        for environment, models in deployments.items()
        for model, deployment in models.items()
        if canary.side_by_side(deployment)
    }
    standby = {r.id for r in found if standing[r.id] == "ready" and _stands_by(r, deployments, shares, now)}
    seen = [replace(each, state="ready") if each.id in to else each for each in found]
    return seen, Traffic(to - standby, frozenset(standby), shares)


def stays(pod: Pod) -> bool:
    """Whether nobody has asked it to end."""
    return not (pod.metadata and pod.metadata.deletionTimestamp)


def _standing(pod: Pod) -> _Standing | None:
    """How fit it is for requests; None: not at all."""
    if _is_ready(pod):
        return "ready" if stays(pod) else "ending"
    containers = (pod.status.containerStatuses if pod.status else None) or []
    return "started" if containers and all(each.started for each in containers) and stays(pod) else None


def _is_ready(pod: Pod) -> bool:
    conditions = (pod.status.conditions if pod.status else None) or []
    return any(each.type == "Ready" and each.status == "True" for each in conditions)


def _fittest(found: Sequence[Replica], standing: Mapping[str, _Standing | None]) -> frozenset[str]:
    """Of each model, those that are as fit as any of it."""
    ranks = {r.id: _STANDINGS.index(fit) for r in found if (fit := standing[r.id])}
    best: dict[tuple[str, str], int] = {}
    for each in found:
        if each.id in ranks:
            model = each.environment, each.model
            best[model] = min(best.get(model, ranks[each.id]), ranks[each.id])
    return frozenset(r.id for r in found if r.id in ranks and ranks[r.id] == best[r.environment, r.model])


def _is_wanted(replica: Replica, deployments: Deployments) -> bool:
    deployment = _deployment(replica, deployments)
    return replica.pin in (deployment.serving, deployment.target)


def _deployment(replica: Replica, deployments: Deployments) -> Deployment:
    return deployments.get(replica.environment, {}).get(replica.model, Deployment())


def _is_of(replica: Replica, environment: str, model: str) -> bool:
    return (replica.environment, replica.model) == (environment, model)


def _share(deployment: Deployment, routed: Sequence[Replica]) -> int:
    """The target's part of the requests in percent. It may have to carry as much as all that serve."""
    new = sum(r.pin == deployment.target for r in routed)
    count = max(deployment.spec.replicas, len(routed) - new)
    share = canary.share(deployment, new, count)
    return min(_ALL, _ALL * new // count) if share is None else share


def _stands_by(replica: Replica, deployments: Deployments, shares: Mapping[tuple[str, str], int], now: float) -> bool:
    """Whether it is there for what no other replica can take."""
    deployment, share = _deployment(replica, deployments), shares.get((replica.environment, replica.model))
    if deployment.under_way:
        return share == _ALL and replica.pin == deployment.serving
    return replica.pin == deployment.replaced and canary.warm(deployment, now)


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
