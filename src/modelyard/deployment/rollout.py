"""Waiting for a rollout that somebody else carries out, and saying how far it is: what its journal tells."""

from __future__ import annotations

import time
from collections.abc import Callable

from modelyard.deployment import canary
from modelyard.deployment.outcomes import numbered
from modelyard.errors import Conflict, RolloutFailed
from modelyard.repository import Deployment, Environment

_POLL_S = 0.1


def wait_for_rollout(
    journal: Environment,
    model: str,
    asked: Deployment,
    *,
    timeout_s: float,
    told: Callable[[Deployment], None] = lambda _: None,
) -> Deployment:
    """The deployment once it is done, or paused because its strategy or somebody says so. `told` hears of each change.

    Raises RolloutFailed when it went back, can't be judged, or does not move on within `timeout_s` beyond what its
    step may take; Conflict when another wish took over.
    """
    where, seen, deadline = f"{model} in {journal.name}", asked, time.monotonic() + timeout_s
    while True:
        now = journal.get(model)
        if now != seen:
            seen, deadline = now, time.monotonic() + timeout_s + _patience(now)
            told(now)
        if now.rollout != asked.rollout:
            raise Conflict(f"another change of {where} took over", remedy="see `modelyard status`")
        if now.outcome == "failed":
            raise RolloutFailed(
                f"{where} went back to {now.serving or 'nothing'}: {now.reason}", remedy=f"see `modelyard logs {model}`"
            )
        if now.outcome == "done":
            return now
        if now.progress.pause:
            if now.progress.pause.cause == "analysis":
                raise RolloutFailed(
                    f"{where} is paused: {describe(now)}",
                    remedy=f"use `modelyard promote {model} --resume` or `--abort`",
                )
            return now
        if time.monotonic() > deadline:
            raise RolloutFailed(
                f"{where} is not done after {timeout_s:g} s; it goes on", remedy="see `modelyard status`"
            )
        time.sleep(_POLL_S)


def describe(now: Deployment) -> str:
    """How far a rollout is, in words; empty when none runs."""
    step, progress = canary.step(now), now.progress
    if not now.under_way:
        return ""
    if step is None:
        words = f"{now.target} takes over"
    elif step == canary.UNSEEN:
        words = f"{now.target} {'is' if progress.since else 'is to be'} asked the golden requests"
    elif now.spec.strategy.kind == "rolling":
        words = f"{now.target} takes over" if progress.since is None else f"{now.target} is watched"
    else:
        gets = "gets" if progress.since else "is to get"
        words = f"{numbered(now)}: {now.target} {gets} {step} of the requests"
    return f"{words}; paused: {progress.pause.why}" if progress.pause else words


def _patience(now: Deployment) -> float:
    """What the step that runs may take, beyond loading replicas."""
    step, analysis = canary.step(now), now.spec.strategy.analysis
    return (step.pause_s or 0.0) + (analysis.max_wait_s if analysis else 0.0) if step else 0.0
