"""The steps of a rollout: which share of the requests the new version gets, and when the next step comes. Pure.

A canary has the steps of its strategy. A rolling update that is analysed has one: the new version has all requests, the
old one stays ready, and what it does is watched. Where golden requests are known, another step comes first, in which
the new version gets nothing else. Knows no replicas but their number, and nothing of how a verdict came about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from modelyard.repository import CanaryStep, Deployment


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an analysis says of the step so far. `too_little`: it can't tell (yet); `error`: it never will."""

    kind: Literal["good", "bad", "too_little", "error"]
    reason: str = ""


GOOD = Verdict("good")
NOT_JUDGED = Verdict("too_little", "it was not looked at yet")
UNSEEN = CanaryStep(0, 0.0)  # the new version gets no requests yet but the golden ones, under its own name


@dataclass(frozen=True, slots=True)
class Moment:
    """When the plan is asked, in seconds since the epoch, and what the analysis says then."""

    now: float = 0.0
    verdict: Verdict = NOT_JUDGED


@dataclass(frozen=True, slots=True)
class Reach:
    """Record that the target has its step's share of the requests."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Record that the step is passed."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Record that the rollout waits for somebody, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Worse:
    """The target is worse than what serves, or nobody can tell; in words."""

    reason: str


def steps(deployment: Deployment) -> tuple[CanaryStep, ...]:
    """The steps of its rollout; none, if there is nothing to compare the new version with."""
    strategy = deployment.spec.strategy
    if not beside(deployment):
        return ()
    first = (UNSEEN,) if strategy.analysis and strategy.analysis.golden and strategy.surge else ()
    if strategy.kind == "canary":
        return (*first, *strategy.steps)
    return (*first, CanaryStep(100, strategy.keep_warm_s)) if strategy.analysis else ()


def beside(deployment: Deployment) -> bool:
    """Whether replicas of two versions stand side by side in its rollout."""
    both = deployment.serving is not None and deployment.target is not None
    pooled = deployment.spec.on_demand or deployment.serving_on_demand
    return deployment.under_way and both and not pooled


def side_by_side(deployment: Deployment) -> bool:
    """Whether all replicas that serve stay until its rollout's end, so that the way back is short."""
    return beside(deployment) and bool(steps(deployment) or deployment.spec.strategy.keep_warm_s)


def step(deployment: Deployment) -> CanaryStep | None:
    """The step that the rollout is in, None after the last one."""
    number, found = deployment.progress.step, steps(deployment)
    return found[number] if number < len(found) else None


def share_step(deployment: Deployment) -> CanaryStep | None:
    """The step in which all old replicas stay and the share is the step's; None while replicas are replaced."""
    now = step(deployment)
    return now if now and (deployment.spec.strategy.kind == "canary" or now == UNSEEN) else None


def replicas(weight: int, count: int) -> int:
    """How many of `count` replicas carry that share of the requests."""
    return max(1, math.ceil(count * weight / 100))


def share(deployment: Deployment, ready: int, count: int) -> int | None:
    """The target's share in percent when so many of its `count` replicas are ready; None: as they are in number.

    It never shrinks from step to step, and a canary's is always a percentage: so who was led to the new version by a
    key stays there.
    """
    now, found, carried = share_step(deployment), steps(deployment), 100 * ready // count
    if now:
        return min(now.weight, carried)
    canary = deployment.spec.strategy.kind == "canary" and found
    return min(100, max(found[-1].weight, carried)) if canary else None


def warm(deployment: Deployment, now: float) -> bool:
    """Whether the replicas of the version before stay ready, though they get no requests."""
    if deployment.under_way:
        return beside(deployment) and (deployment.spec.strategy.keep_warm_s > 0 or step(deployment) is not None)
    until = (deployment.switched or 0.0) + deployment.spec.strategy.keep_warm_s
    return deployment.outcome == "done" and deployment.switched is not None and now < until


def next_move(deployment: Deployment, moment: Moment, *, reached: bool) -> Reach | Advance | Hold | Worse | None:
    """What the rollout's step needs; `reached`: the target has the step's share of the requests."""
    now, progress, analysis = step(deployment), deployment.progress, deployment.spec.strategy.analysis
    if now is None:
        return None
    if progress.since is None:
        return Reach() if reached else None
    verdict = moment.verdict if analysis else GOOD
    if verdict.kind in ("bad", "error"):
        found = f"is worse than {deployment.serving}" if verdict.kind == "bad" else "can't be judged"
        return Worse(f"{deployment.target} {found}: {verdict.reason}")
    over = moment.now - progress.since - (now.pause_s or 0.0)
    if progress.pause or (over < 0 and not progress.released):
        return None
    if progress.released or verdict.kind == "good":
        return Advance()
    patient = analysis is None or over < analysis.max_wait_s
    return None if patient else Hold(f"after {moment.now - progress.since:.0f} s {verdict.reason}")
