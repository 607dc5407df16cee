"""Deciding about the pools: one process for each environment with models on demand. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.deployment.plan import CRASH_MEMORY_S, GiveUp, Limits, ReplicaState, Stop, backoff


@dataclass(frozen=True, slots=True)
class PoolProcess:
    """One observed process of a pool; `since_s`: seconds in this state."""

    id: str
    environment: str
    state: ReplicaState
    since_s: float
    port: int
    error: str = ""

    @property
    def alive(self) -> bool:
        return self.state in ("starting", "ready")


@dataclass(frozen=True, slots=True)
class StartPool:
    """Start the environment's pool."""


PoolStep = StartPool | Stop | GiveUp


def plan_pool(processes: Sequence[PoolProcess], limits: Limits, *, needed: bool, routed: bool) -> list[PoolStep]:
    """One process while it is `needed`; it ends when the gateway leads nothing there any more."""
    exited = [p for p in processes if p.state == "exited"]
    alive = sorted((p for p in processes if p.alive), key=lambda p: (p.state != "ready", -p.since_s))
    steps: list[PoolStep] = [Stop(p.id) for p in exited if p.since_s > CRASH_MEMORY_S or not needed]
    steps += [GiveUp(p.id) for p in alive if p.state == "starting" and p.since_s > limits.ready_s]
    superfluous = alive[1:] if needed or routed else alive
    steps += [Stop(p.id) for p in superfluous]
    resting = bool(exited) and min(p.since_s for p in exited) < backoff(len(exited))
    if needed and not alive and not resting:
        steps.append(StartPool())
    return steps
