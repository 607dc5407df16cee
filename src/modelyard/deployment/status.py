"""What `modelyard status` says: what serves of each model, what it is to become, and what runs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from modelyard.deployment import canary
from modelyard.deployment.crashes import crashes
from modelyard.deployment.plan import Replica
from modelyard.deployment.rollout import describe
from modelyard.repository import Deployment, Pin


@dataclass(frozen=True, slots=True)
class Status:
    """One model in one environment, for people and for `--json`. `ready` and `wanted` count replicas of the target. One
    that is `on_demand` needs no replica; `ready` is 1 while it is loaded. `kept`: the version before, whose replicas
    stay ready though they get no requests, and until when; with an open end while a rollout is watched."""

    environment: str
    model: str
    serving: str | None
    target: str | None
    ready: int
    wanted: int
    outcome: str
    reason: str
    on_demand: bool = False
    kept: str | None = None
    kept_until: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a target can tell, as `LocalStatus` has it, `at` which time, in seconds since the epoch."""

    replicas: Sequence[Replica]
    loaded: Collection[tuple[str, str, str]]
    troubles: Mapping[tuple[str, str], str]
    at: float


def rows(environment: str, deployments: Mapping[str, Deployment], seen: Seen) -> Iterator[Status]:
    """Every model of an environment but those that are undeployed."""
    for model, now in sorted(deployments.items()):
        if now.serving or now.target or now.outcome != "done":
            yield _row(environment, model, now, seen)


def _row(environment: str, model: str, now: Deployment, seen: Seen) -> Status:
    own = [r for r in seen.replicas if (r.environment, r.model) == (environment, model)]
    ready = sum(r.state == "ready" and r.pin == now.target for r in own)
    ready += any((environment, model, str(ref.version)) in seen.loaded for ref in now.on_demand(model))
    kept, until = _kept(now, own, seen.at)
    said = (now.reason or describe(now), _keeping(kept, until, seen.at), crashes(own))
    return Status(
        environment,
        model,
        serving=str(now.serving) if now.serving else None,
        target=str(now.target) if now.target else None,
        ready=ready,
        wanted=now.spec.replicas if now.target and not now.spec.on_demand else 0,
        outcome=now.outcome,
        reason="; ".join(filter(None, (*said, seen.troubles.get((environment, model))))),
        on_demand=now.spec.on_demand,
        kept=str(kept) if kept else None,
        kept_until=datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds") if until else None,
    )


def _kept(now: Deployment, own: Sequence[Replica], at: float) -> tuple[Pin | None, float | None]:
    """The version whose replicas are kept warm, and until when, in seconds since the epoch, if that is known."""
    if not canary.warm(now, at):
        return None, None
    if now.under_way:  # it has left traffic once the new one has all requests
        kept, until = now.serving if now.progress.since and not canary.share_step(now) else None, None
    else:
        kept, until = now.replaced, (now.switched or 0.0) + now.spec.strategy.keep_warm_s
    there = kept and any(r.pin == kept and r.state == "ready" for r in own)
    return (kept, until) if there else (None, None)


def _keeping(kept: Pin | None, until: float | None, at: float) -> str:
    if kept is None:
        return ""
    return f"{kept} is kept warm" + (f" for {until - at:.0f} s more" if until else "")
