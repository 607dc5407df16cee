"""What to do next about one model in one environment. Pure, and asked again and again."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.deployment.targets.kubernetes.progress import Progress
from modelyard.repository import Deployment


@dataclass(frozen=True, slots=True)
class Apply:
    """Tell the cluster what is wanted now."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Take everything of it away."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Record that the target serves."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Record that the target can't serve; what served is applied again."""

    reason: str


Step = Apply | Remove | Finish | Fail | None


@dataclass(frozen=True, slots=True)
class Found:
    """A Deployment in the cluster: what it was last told, for which rollout, and what has come of it."""

    wish: str
    rollout: str
    progress: Progress


def decide(deployment: Deployment, wish: str, found: Found | None) -> Step:
    """`wish`: of the objects that the target needs; empty without a target."""
    if deployment.target is None:
        if found is not None:
            return Remove()
        return Finish() if deployment.outcome == "running" else None
    if found is None or found.wish != wish or found.rollout != deployment.rollout:
        return Apply()
    if deployment.outcome != "running":
        return None
    if found.progress.failed:
        return Fail(found.progress.failed)
    return Finish() if found.progress.done else None
