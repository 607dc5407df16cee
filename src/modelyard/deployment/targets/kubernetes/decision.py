"""What to do next about one model in one environment. Pure, and asked again and again.

A version has a Deployment of its own, in one of the model's two slots, as long as another version stands beside it: in
a canary, while an analysis looks, and while what served before is kept warm. Otherwise the cluster replaces pods within
the slot that serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.deployment import canary
from modelyard.deployment.canary import Moment, Worse
from modelyard.deployment.outcomes import Recorded
from modelyard.deployment.plan import Fail, Finish
from modelyard.deployment.targets.kubernetes.names import SLOTS
from modelyard.deployment.targets.kubernetes.progress import Progress
from modelyard.repository import Deployment, DeploymentSpec, Pin


@dataclass(frozen=True, slots=True)
class Apply:
    """Tell the cluster what a slot is to run now."""

    slot: str


@dataclass(frozen=True, slots=True)
class Empty:
    """Take away what runs in a slot."""

    slot: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Take everything of it away."""


Step = Apply | Empty | Remove | Recorded


@dataclass(frozen=True, slots=True)
class Want:
    """What a slot is to run. `replicas`: so many for now; None: as its spec says."""

    pin: Pin
    spec: DeploymentSpec
    replicas: int | None = None
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A Deployment in the cluster: the version that it was last told to run, for which rollout, in how many replicas,
    and what has come of it."""

    pin: Pin | None
    wish: str
    rollout: str
    replicas: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Layout:
    """`own` is the target's slot. `beside`: what else is to run, None as it is now; any other slot is to be empty."""

    own: str
    want: Want
    beside: Mapping[str, Want | None]


def layout(deployment: Deployment, found: Mapping[str, Found], now: float) -> Layout | None:
    """Which slot is to run what; None: none is. `found`: by slot."""
    target, serving = deployment.target, deployment.serving
    if target is None:
        return None
    at = {each.pin: slot for slot, each in found.items() if each.pin}
    own, apart = at.get(target), canary.side_by_side(deployment)
    stays: str | None = None
    if apart or (deployment.under_way and own):
        stays = at.get(serving) if serving else None
    elif canary.warm(deployment, now):
        stays = at.get(deployment.replaced) if deployment.replaced else None
    if own is None:
        used = sorted((slot for slot in found if slot != stays), key=lambda slot: found[slot].pin != serving)
        free = [slot for slot in SLOTS if slot not in found]
        own = (free + used if apart else used + free)[0]
    if apart and stays is None:  # somebody took away what serves
        stays = next(slot for slot in SLOTS if slot != own)
    if stays in (None, own):
        paused = deployment.under_way and deployment.progress.pause is not None
        return Layout(own, Want(target, deployment.spec, paused=paused), {})
    kept = None
    if deployment.under_way and serving:
        kept = Want(serving, deployment.serving_spec or deployment.spec)
    there = found[stays].replicas if stays in found else 0
    return Layout(own, Want(target, deployment.spec, _replicas(deployment, there)), {stays: kept})


def decide(
    deployment: Deployment, found: Mapping[str, Found], wishes: Mapping[str, str], wanted: Layout | None, moment: Moment
) -> Sequence[Step]:
    """`wishes`: of the objects that each slot needs, as far as it is to be told anything."""
    if wanted is None:
        return [Remove()] if found else [Finish()] if deployment.outcome == "running" else []
    told = {slot for slot, wish in wishes.items() if slot in found and found[slot].wish == wish}
    if wanted.own in told and found[wanted.own].rollout != deployment.rollout:
        told.remove(wanted.own)
    steps: list[Step] = [Apply(slot) for slot in wishes if slot not in told]
    steps += [Empty(slot) for slot in found if slot != wanted.own and slot not in wanted.beside]
    if wanted.own not in told:
        return steps
    failed, done = found[wanted.own].progress.failed, found[wanted.own].progress.done
    if deployment.outcome == "running":
        return [*steps, *_progress(deployment, moment, failed=failed, done=done)]
    way_back = deployment.outcome == "done" and wanted.beside
    return [*steps, Fail(failed)] if failed and way_back else steps


def watched(deployment: Deployment, wanted: Layout) -> bool:
    """Whether it matters how far the target is: in a rollout, and while there is a way back."""
    return deployment.outcome == "running" or bool(deployment.outcome == "done" and wanted.beside)


def _progress(deployment: Deployment, moment: Moment, *, failed: str, done: bool) -> list[Recorded]:
    """The step to record, if it is time."""
    if failed:
        return [Fail(failed)]
    move = canary.next_move(deployment, moment, reached=done)
    if isinstance(move, Worse):
        return [Fail(move.reason)]
    if move:
        return [move]
    over = done and canary.step(deployment) is None and not (deployment.under_way and deployment.progress.pause)
    return [Finish()] if over else []


def _replicas(deployment: Deployment, there: int) -> int | None:
    """How many of the target run beside what serves, of which so many are there: it must be able to carry as much."""
    if not deployment.under_way:
        return None
    most, count = deployment.spec.max_replicas, deployment.spec.replicas
    if most:
        count = max(count, min(most, there))
    step = canary.share_step(deployment)
    return canary.replicas(step.weight, count) if step else count
