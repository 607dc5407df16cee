"""Deciding a rollout: a pure function from what is wanted and what is observed to traffic and steps.

It is asked again and again, and each answer depends on nothing but its arguments; so a reconciler may be killed at any
step and simply go on. Knows no process, no gateway, no store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from modelyard.deployment import canary
from modelyard.deployment.canary import Advance, Hold, Moment, Reach, Worse
from modelyard.repository import Deployment, Pin

HOST = "127.0.0.1"
CRASHES_ALLOWED = 1  # in one rollout; one may be bad luck, two are the version's fault
CRASH_MEMORY_S = 300.0
_BACKOFF_MAX_S = 30.0


ReplicaState = Literal["starting", "ready", "stopping", "exited"]


@dataclass(frozen=True, slots=True)
class Replica:
    """One observed replica, which takes requests at `host` and `port`; `internal_name` is what its engine insists on as
    their `model`. `since_s`: seconds in this state; `routed`: the gateway has confirmed that it sends it requests;
    `unrouted_s`: seconds since it has confirmed that it does not, None while it might; `standby`: but for those that
    nobody else can take, or that ask for its very version. `blameless`: it ended for want of the store, which is not
    its version's fault.

    One `on_demand` is no process of its own but a version's place in the environment's pool, ready once it was loaded
    there; there is one of a version at most.
    """

    id: str
    environment: str
    model: str
    pin: Pin
    rollout: str
    state: ReplicaState
    since_s: float
    port: int
    keeps_connections: bool = True
    host: str = HOST
    engine: str = ""
    internal_name: str | None = None
    routed: bool = False
    unrouted_s: float | None = None
    standby: bool = False
    in_flight: int = 0
    error: str = ""
    blameless: bool = False
    on_demand: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Start one replica of a version, or have the pool load it."""

    pin: Pin
    on_demand: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """End a replica that gets no more requests; forget one that has exited."""

    replica: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End a replica that did not get ready in time, as a crash."""

    replica: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Record that the target serves."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Record that the target can't serve; what served goes on, or serves again."""

    reason: str


Step = Start | Stop | GiveUp | Finish | Fail | Reach | Advance | Hold
AT_ANY_TIME = Moment()


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds a replica may take to get ready, and to finish its requests once it gets no more."""

    ready_s: float = 120
    drain_s: float = 60


@dataclass(frozen=True, slots=True)
class Plan:
    """`routed`: the replicas that are to get requests from now on. `steps`: what to do besides. `share`: the target's
    part of the requests, in percent; None: by the number of replicas. `standby`: those that are there for requests that
    no routed one can take."""

    routed: frozenset[str]
    steps: tuple[Step, ...]
    share: int | None = None
    standby: frozenset[str] = frozenset()


def plan(deployment: Deployment, replicas: Sequence[Replica], limits: Limits, moment: Moment = AT_ANY_TIME) -> Plan:
    """How its strategy goes on from here. There are never fewer ready replicas in traffic than there were, less those
    that may be unavailable, nor more processes than wanted and the strategy's room."""
    wanted, count = _Kind(deployment.target, deployment.spec.on_demand), _count(deployment)
    exited = [r for r in replicas if r.state == "exited"]
    alive = sorted((r for r in replicas if r.state in ("starting", "ready")), key=_steadiest_first)
    new = [r for r in alive if _kind(r) == wanted]
    old = [r for r in alive if _kind(r) != wanted]
    need = _need(deployment, count)
    carriers = _carriers(deployment, new, old, need)
    routed = frozenset(r.id for r in carriers if r.state == "ready")
    ready = sum(r.id in routed for r in new)
    share = canary.share(deployment, ready, count) if count else None

    warm = [r for r in old if r not in carriers and _warm(r, deployment, moment)]
    standby = frozenset(r.id for r in warm)
    failure = _failure(deployment, exited, back=_way_back(deployment, old, moment))
    if failure:
        return Plan(routed, (Fail(failure),), share, standby)
    kept = {r.id for r in (*carriers, *warm, *new[: need.new])}
    late = [r for r in alive if r.id in kept and r.state == "starting" and r.since_s > limits.ready_s]
    steps: list[Step] = [Stop(r.id) for r in exited if _forgettable(r, deployment)]
    steps += [GiveUp(r.id) for r in late]
    steps += [Stop(r.id) for r in alive if r.id not in kept and _idle(r, limits)]
    missing = {wanted: 0 if _frozen(deployment) else need.new - len(new)}
    before = _Kind(deployment.serving, deployment.serving_on_demand)
    if before != wanted and not before.on_demand:
        missing[before] = _still(need, ready) - sum(r in carriers for r in old)
    processes = sum(not r.on_demand for r in alive if r not in warm)
    steps += _starts(missing, exited, room=need.room - processes)
    if deployment.outcome == "running":
        steps += _progress(deployment, moment, reached=ready >= need.new, there=_there(new, old, count))
    return Plan(routed, tuple(steps), share, standby)


def backoff(crashes: int) -> float:
    """Seconds to wait after so many crashes in a row: at once, then 0.5, 1, 2, … up to 30."""
    return 0.0 if crashes <= 1 else min(_BACKOFF_MAX_S, 0.5 * 2.0 ** (crashes - 2))


class _Kind(NamedTuple):
    pin: Pin | None
    on_demand: bool


def _kind(replica: Replica) -> _Kind:
    return _Kind(replica.pin, replica.on_demand)


def _count(deployment: Deployment) -> int:
    if deployment.target is None:
        return 0
    return 1 if deployment.spec.on_demand else deployment.spec.replicas


@dataclass(frozen=True, slots=True)
class _Need:
    """How many replicas of the target there are to be for now, how many of the others stay in traffic (`beside` it, or
    to fill it up to `least`), and how many processes there may be."""

    new: int
    beside: int
    least: int
    room: int


def _need(deployment: Deployment, count: int) -> _Need:
    strategy = deployment.spec.strategy
    step = canary.share_step(deployment)
    if step is None:
        return _Need(count, 0, max(0, count - strategy.unavailable), count + strategy.surge)
    new = canary.replicas(step.weight, count)
    old = deployment.serving_spec.replicas if deployment.serving_spec else count
    return _Need(new, old if step.weight < 100 else 0, old, max(count, old) + max(new, strategy.surge))


def _still(need: _Need, ready: int) -> int:
    """How many old replicas are still needed in traffic, when so many new ones are ready."""
    return max(need.beside, need.least - ready)


def _steadiest_first(replica: Replica) -> tuple[bool, bool, float]:
    return (replica.state != "ready", not replica.routed, -replica.since_s)


def _carriers(deployment: Deployment, new: Sequence[Replica], old: Sequence[Replica], need: _Need) -> list[Replica]:
    """Who carries the traffic: the ready new ones, and old ones beside them or while there are too few.

    Of what serves, a starting one counts too: it is needed until the new ones are ready. An old one that has left
    traffic comes back in a rollout only. More new ones than wanted go on while old ones that are to stand beside them
    are not ready. A pool takes the work of all old ones over at once.
    """
    ready = [r for r in new if r.state == "ready"]
    needed = [r for r in old if r.pin == deployment.serving or (r.state == "ready" and _may_carry(r, deployment))]
    if deployment.spec.on_demand and deployment.target:
        return ready or needed
    ready, spare = ready[: need.new], ready[need.new :]
    needed = needed[: _still(need, len(ready))]
    missing = max(need.beside, need.least) - len(ready) - sum(r.state == "ready" for r in needed)
    return [*ready, *needed, *spare[: max(0, missing)]]


def _may_carry(old: Replica, deployment: Deployment) -> bool:
    return deployment.outcome == "running" or old.unrouted_s is None


def _warm(replica: Replica, deployment: Deployment, moment: Moment) -> bool:
    """Whether a replica out of traffic stays, so that the way back to its version is short."""
    before = deployment.serving if deployment.under_way else deployment.replaced
    ready = replica.state == "ready" and not replica.on_demand
    return ready and replica.pin == before and canary.warm(deployment, moment.now)


def _frozen(deployment: Deployment) -> bool:
    """Whether somebody stopped a rollout while it replaces replicas; a canary's share stays what it is anyhow."""
    return deployment.under_way and deployment.progress.pause is not None and not canary.share_step(deployment)


def _progress(deployment: Deployment, moment: Moment, *, reached: bool, there: bool) -> list[Step]:
    """The step to record, if it is time."""
    last = deployment.progress.step >= len(canary.steps(deployment)) - 1
    rolling = canary.share_step(deployment) is None
    move = canary.next_move(deployment, moment, reached=there if rolling else reached)
    if isinstance(move, Worse):
        return [Fail(move.reason)]
    paused = deployment.under_way and deployment.progress.pause
    if there and not paused and (canary.step(deployment) is None or (last and isinstance(move, Advance))):
        return [Finish()]
    return [move] if move else []


def _starts(missing: Mapping[_Kind, int], exited: Sequence[Replica], *, room: int) -> list[Start]:
    """What is missing of each version, the wanted one first; processes only as far as there is room."""
    starts: list[Start] = []
    for kind, count in missing.items():
        if kind.pin and not _backing_off(r for r in exited if _kind(r) == kind):
            most = count if kind.on_demand else min(count, room - len(starts))
            starts += [Start(kind.pin, kind.on_demand)] * most
    return starts


def _way_back(deployment: Deployment, old: Sequence[Replica], moment: Moment) -> bool:
    """Whether what served before is still there, and may serve again if what serves now does not stay up."""
    return deployment.outcome == "done" and any(_warm(r, deployment, moment) for r in old)


def _failure(deployment: Deployment, exited: Sequence[Replica], *, back: bool) -> str:
    mine = [r for r in exited if (deployment.outcome == "running" or back) and _tells(r, deployment)]
    if len(mine) <= CRASHES_ALLOWED:
        return ""
    newest = min(mine, key=lambda r: r.since_s)
    return f"{deployment.target} does not stay up: {newest.error or 'its process ended without a word'}"


def _tells(crashed: Replica, deployment: Deployment) -> bool:
    """Whether a crash counts against the last rollout."""
    mine = _kind(crashed) == (deployment.target, deployment.spec.on_demand) and crashed.rollout == deployment.rollout
    return mine and not crashed.blameless


def _forgettable(crashed: Replica, deployment: Deployment) -> bool:
    """A crash is remembered as long as it delays the next start, or may end the rollout."""
    if crashed.pin not in (deployment.target, deployment.serving):
        return True
    return crashed.since_s > CRASH_MEMORY_S and not (deployment.outcome == "running" and _tells(crashed, deployment))


def _idle(replica: Replica, limits: Limits) -> bool:
    """Whether nothing is lost when it stops: the gateway sends it nothing more, and it has nothing in hand."""
    if replica.state == "starting":
        return True
    out = replica.unrouted_s is not None and not replica.standby
    return out and (replica.in_flight == 0 or (replica.unrouted_s or 0.0) > limits.drain_s)


def _backing_off(crashed: Iterable[Replica]) -> bool:
    ages = [r.since_s for r in crashed]
    return bool(ages) and min(ages) < backoff(len(ages))


def _there(new: Sequence[Replica], old: Sequence[Replica], count: int) -> bool:
    """Whether the gateway has confirmed that the new ones carry all the traffic."""
    out = all(r.unrouted_s is not None for r in old if r.state == "ready")
    return out and sum(r.routed for r in new if r.state == "ready") >= count
