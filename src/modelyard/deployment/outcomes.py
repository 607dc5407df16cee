"""What a deployment becomes by a step of its plan: the entry that is written into the environment's journal. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.deployment import canary
from modelyard.deployment.canary import Advance, Hold, Reach
from modelyard.deployment.plan import Fail, Finish
from modelyard.repository import Deployment, Pause

Recorded = Finish | Fail | Reach | Advance | Hold


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a deployment becomes, unless it has changed since it was seen."""

    seen: Deployment
    new: Deployment
    why: str

    def __call__(self, now: Deployment) -> Deployment | None:
        return self.new if now == self.seen else None


def outcome(step: Recorded, deployment: Deployment, *, at: float, by: str) -> Outcome:
    """`at`: in seconds since the epoch; `by`: who pauses, if it comes to that."""
    match step:
        case Fail(reason):
            return failed(deployment, reason)
        case Finish():
            target = deployment.target
            new, why = deployment.finished(at), f"{target} serves" if target else "it is not served any more"
        case Reach():
            pause = _asked_for(deployment, at, by)
            new, why = deployment.reached(at, pause or deployment.progress.pause), _reached(deployment, pause)
        case Advance():
            new = deployment.advanced()
            why = f"{_step(deployment)} is passed; {_next(new)}"
        case Hold(reason):
            new = deployment.paused(Pause("analysis", reason, by, at))
            why = f"{_step(deployment)} is paused: {reason}"
    return Outcome(deployment, new, why)


def failed(deployment: Deployment, reason: str) -> Outcome:
    """Back to what serves; to what served before, if the rollout was done."""
    new = deployment.undone(reason) if deployment.outcome == "done" else deployment.failed(reason)
    return Outcome(deployment, new, f"went back: {reason}")


def _asked_for(deployment: Deployment, at: float, by: str) -> Pause | None:
    now = canary.step(deployment)
    return Pause("step", f"the step {now} waits to be resumed", by, at) if now and now.pause_s is None else None


def numbered(deployment: Deployment) -> str:
    """Such as `step 1 of 3`: of the steps that somebody asked for, before which the golden requests come."""
    steps = canary.steps(deployment)
    first = steps.count(canary.UNSEEN)
    return f"step {deployment.progress.step + 1 - first} of {len(steps) - first}"


def _reached(deployment: Deployment, pause: Pause | None) -> str:
    now = canary.step(deployment)
    if now == canary.UNSEEN:
        return f"{deployment.target} is asked the golden requests"
    until = ", until it is resumed" if pause else f", for {now.pause_s:g} s" if now and now.pause_s else ""
    return f"{deployment.target} gets {now} of the requests{until}"


def _step(deployment: Deployment) -> str:
    """Such as `step 1 of 3 (5 %)`."""
    now = canary.step(deployment)
    return "the step of the golden requests" if now == canary.UNSEEN else f"{numbered(deployment)} ({now})"


def _next(deployment: Deployment) -> str:
    now = canary.step(deployment)
    return f"next {now}" if now else f"{deployment.target} takes over"
