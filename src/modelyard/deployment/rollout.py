"""Waiting for a rollout that somebody else carries out, and saying how far it is: what its journal tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from modelyard.deployment import canary
from modelyard.deployment.outcomes import numbered
from modelyard.errors import Conflict, RolloutFailed, Unavailable
from modelyard.repository import Deployment, Environment

_POLL_S = 0.1
_LOOK_S, _MISSED = 5.0, 2  # between two looks for a leader; so many in vain are borne


@dataclass(frozen=True, slots=True)
class Watch:
    """Where a rollout's journal is read, how long nothing may change, beyond what its step may take, and who hears of
    each change."""

    journal: Environment
    model: str
    timeout_s: float
    told: Callable[[Deployment], None] = lambda _: None


def wait_for_rollout(watch: Watch, asked: Deployment, require_leader: Callable[[], None]) -> Deployment:
    """The deployment once it is done, or paused because its strategy says so.

    Raises RolloutFailed when it went back, was paused otherwise, or does not move on; Conflict when another wish took
    over; what `require_leader` raises, when nobody has carried it out for a while.
    """
    model, where, seen = watch.model, f"{watch.model} in {watch.journal.name}", asked
    deadline, leader = time.monotonic() + watch.timeout_s, _Leader(require_leader)
    while True:
        now = watch.journal.get(model)
        if now != seen:
            seen, deadline = now, time.monotonic() + watch.timeout_s + _patience(now)
            watch.told(now)
        if now.rollout != asked.rollout:
            raise Conflict(f"another change of {where} took over", remedy="see `modelyard status`")
        if now.outcome == "failed":
            raise RolloutFailed(
                f"{where} went back to {now.serving or 'nothing'}: {now.reason}", remedy=f"see `modelyard logs {model}`"
            )
        if now.outcome == "done":
            return now
        if now.progress.pause:
            if now.progress.pause.cause != "step":
                raise RolloutFailed(
                    f"{where} is paused: {describe(now)}",
                    remedy=f"use `modelyard promote {model} --resume` or `--abort`",
                )
            return now
        if time.monotonic() > deadline:
            raise RolloutFailed(
                f"{where} is not done after {watch.timeout_s:g} s; it goes on", remedy="see `modelyard status`"
            )
        leader.look()
        time.sleep(_POLL_S)


@dataclass(slots=True)
class _Leader:
    """Whether there is anybody who carries rollouts out; one that is started again soon is not missed."""

    require: Callable[[], None]
    looked: float = field(default_factory=time.monotonic)
    missing: int = 0

    def look(self) -> None:
        if time.monotonic() - self.looked < _LOOK_S:
            return
        self.looked = time.monotonic()
        try:
            self.require()
            self.missing = 0
        except Unavailable:
            self.missing += 1
            if self.missing > _MISSED:
                raise


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
