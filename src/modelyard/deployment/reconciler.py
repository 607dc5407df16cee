"""The reconciler: load what is wanted, observe what is, decide, act, record. Again and again.

It keeps nothing that it could not find out anew, so it may be killed at any moment. The order of acting is what makes
a rollout lose nothing: the gateway confirms the traffic first, replicas end only after that. The store is read and
written in other threads, so replicas and gateway are attended to while it hangs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Protocol

from modelyard.deployment.canary import NOT_JUDGED, Advance, Hold, Moment, Reach, Verdict
from modelyard.deployment.outcomes import Outcome, failed, outcome
from modelyard.deployment.plan import Fail, Finish, GiveUp, Limits, Plan, Replica, Start, Step, Stop, plan
from modelyard.deployment.routing import Deployments, Traffic, route_table
from modelyard.deployment.rules import Rules
from modelyard.deployment.wanted import Newest, Reader, Wanted
from modelyard.errors import ModelyardError, StoreError
from modelyard.gateway.routes import RouteTable
from modelyard.refs import ModelRef
from modelyard.repository import Deployment, Environment

_INTERVAL_S = 0.1
_REST_S = 1.0
_TRIED_AGAIN = (ModelyardError, OSError)

_Key = tuple[str, str]  # environment, model

log = logging.getLogger("modelyard.reconciler")


class Target(Protocol):
    """Where replicas run."""

    def observe(self, deployments: Deployments) -> list[Replica]: ...
    def start(self, environment: str, ref: ModelRef, *, rollout: str, on_demand: bool) -> None: ...
    def stop(self, replica_id: str) -> None: ...
    def give_up(self, replica_id: str, reason: str) -> None: ...
    def tend(self, routed: frozenset[str]) -> None:
        """Start and end what replicas share; `routed`: the environments whose pool the gateway still leads to."""
        ...


class Router(Protocol):
    """What sends requests to replicas."""

    def start(self) -> None: ...
    def apply(self, table: RouteTable) -> None: ...
    def in_flight(self) -> Mapping[tuple[str, str, int], int]: ...


class Analyst(Protocol):
    """Who judges the new versions of the rollouts."""

    def verdict(self, environment: str, model: str, deployment: Deployment, now: float) -> Verdict:
        """Waits for nobody; until something is known, it is too little. `now`: in seconds since the epoch."""
        ...


class NoAnalyst:
    """Judges nothing; a rollout that is to be judged waits until somebody resumes it."""

    def verdict(self, environment: str, model: str, deployment: Deployment, now: float) -> Verdict:  # noqa: ARG002
        return NOT_JUDGED


@dataclass(slots=True)
class Reconciler:
    """Carries out the environments' wishes on one target behind one router."""

    environments: Sequence[Environment]
    target: Target
    router: Router
    limits: Limits
    user: str
    tags: Callable[[str], Mapping[str, str]] = lambda _: {}  # model → its tags that no environment decides
    guard: Callable[[RouteTable], RouteTable] = lambda table: table  # adds who may use it, and how often
    rules: Callable[[], Rules] = Rules  # what the configuration says about routes
    analyst: Analyst = field(default_factory=NoAnalyst)
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time  # what the journals' times are taken from
    executor: Executor = field(default_factory=lambda: ThreadPoolExecutor(4))  # whatever waits for the store
    _newest: Newest = field(init=False)
    _wanted: Wanted = field(default_factory=Wanted)
    _outcomes: dict[_Key, Outcome] = field(default_factory=dict)  # of this round
    _recording: dict[str, Future[dict[str, Deployment]]] = field(default_factory=dict)  # environment → what is written
    _routed: frozenset[str] = frozenset()  # replicas the gateway has confirmed to be in traffic
    _unrouted: dict[str, float] = field(default_factory=dict)  # and out of it, since when
    _standby: frozenset[str] = frozenset()  # of these, those that it may send what nobody else can take
    _resting: dict[str, float] = field(default_factory=dict)  # until when, after an error
    _told: dict[str, str] = field(default_factory=dict)
    _concluded: dict[_Key, tuple[Deployment, str]] = field(default_factory=dict)  # the outcome that was told last

    def __post_init__(self) -> None:
        self._newest = Newest(Reader(self.environments, self.clock, self.tags, self.rules), self.executor, self.clock)

    def run(self, stop: Event) -> None:
        """Until `stop` is set. What fails is tried again."""
        while not stop.wait(_INTERVAL_S):
            try:
                self.tick()
                self._told.pop("round", None)
            except _TRIED_AGAIN as error:
                self._tell("round", error)

    def tick(self) -> None:
        """One round."""
        self.router.start()
        self._settle()
        if not self._load():
            return
        replicas = self._observe()
        plans = {
            key: plan(deployment, _of(replicas, *key), self.limits, self._moment(key, deployment))
            for key, deployment in self._deployments(replicas).items()
        }
        self._route(replicas, plans)
        for (environment, model), decided in plans.items():
            self._act(environment, model, decided)
        self._record()

    def _load(self) -> bool:
        """Whether it is known what is wanted; while the store can't be read, what was wanted last goes on."""
        wanted = self._newest.get()
        if wanted is None:
            return False
        self._wanted = wanted
        if self._newest.problem:
            self._tell("store", self._newest.problem)
        else:
            self._told.pop("store", None)
        return True

    def _deployments(self, replicas: Sequence[Replica]) -> dict[_Key, Deployment]:
        """Everything wanted, and everything that runs though nobody knows it any more.

        Raises StoreError when nobody knows anything: it is more likely that the store is not there.
        """
        unknown = {(r.environment, r.model): Deployment() for r in replicas}
        wanted = self._wanted.deployments
        if unknown and not any(wanted.values()):
            raise StoreError(
                f"{len(replicas)} replicas run, but the store knows of no deployment",
                remedy="look whether the store is where it was; nothing is changed until then",
            )
        return unknown | {(env, model): d for env, models in wanted.items() for model, d in models.items()}

    def _observe(self) -> list[Replica]:
        """The target's replicas, with what only the gateway knows."""
        replicas = self.target.observe(self._wanted.deployments)
        now = self.clock()
        draining = any(r.id in self._unrouted for r in replicas if r.state == "ready")
        busy = self.router.in_flight() if draining else {}
        seen = []
        for r in replicas:
            since = self._unrouted.get(r.id)
            in_flight = sum(count for (_, host, port), count in busy.items() if (host, port) == (r.host, r.port))
            known = replace(r, routed=r.id in self._routed, standby=r.id in self._standby, in_flight=in_flight)
            seen.append(replace(known, unrouted_s=None if since is None else now - since))
        return seen

    def _moment(self, key: _Key, deployment: Deployment) -> Moment:
        now = self.wall()
        judged = deployment.outcome == "running" and deployment.spec.strategy.analysis
        return Moment(now, self.analyst.verdict(*key, deployment, now) if judged else NOT_JUDGED)

    def _route(self, replicas: Sequence[Replica], plans: Mapping[_Key, Plan]) -> None:
        routed = frozenset[str]().union(*(decided.routed for decided in plans.values()))
        standby = frozenset[str]().union(*(decided.standby for decided in plans.values()))
        self._routed &= routed  # until it is confirmed, the gateway may do the one or the other
        self._unrouted = {replica: since for replica, since in self._unrouted.items() if replica not in routed}
        self._standby |= standby
        wanted, shares = self._wanted, {key: decided.share for key, decided in plans.items()}
        traffic = Traffic(routed, standby, shares)
        table = self.guard(route_table(wanted.deployments, replicas, traffic, wanted.tags, wanted.rules))
        self.router.apply(table)
        self.target.tend(frozenset(backend.pool for backend in table.backends if backend.pool))
        now, ended = self.clock(), self._standby - standby
        since = {replica: since for replica, since in self._unrouted.items() if replica not in ended}
        self._routed, self._standby = routed, standby
        self._unrouted = {r.id: since.get(r.id, now) for r in replicas if r.id not in routed}

    def _act(self, environment: str, model: str, decided: Plan) -> None:
        """The steps of one model. What fails there holds up no other model, and is tried again after a rest."""
        about = f"{model} in {environment}"
        if self.clock() < self._resting.get(about, float("-inf")):
            return
        try:
            for step in decided.steps:
                self._do(environment, model, step)
            self._told.pop(about, None)
        except _TRIED_AGAIN as error:
            self._resting[about] = self.clock() + _REST_S
            self._tell(about, error)

    def _do(self, environment: str, model: str, step: Step) -> None:
        deployment = self._wanted.deployments.get(environment, {}).get(model, Deployment())
        match step:
            case Start(pin, on_demand):
                ref = ModelRef(model, pin.version, digest=pin.digest)
                self._start(environment, ref, deployment, on_demand=on_demand)
            case Stop(replica):
                log.info("stop %s", replica)
                self.target.stop(replica)
            case GiveUp(replica):
                reason = f"it was not ready after {self.limits.ready_s:g} s"
                log.warning("give up %s: %s", replica, reason)
                self.target.give_up(replica, reason)
            case Fail() | Finish() | Reach() | Advance() | Hold():
                found = outcome(step, deployment, at=self.wall(), by=self.user)
                self._conclude((environment, model), found, bad=isinstance(step, Fail | Hold))

    def _start(self, environment: str, ref: ModelRef, deployment: Deployment, *, on_demand: bool) -> None:
        try:
            self.target.start(environment, ref, rollout=deployment.rollout, on_demand=on_demand)
            log.info("start %s in %s%s", ref, environment, " on demand" if on_demand else "")
        except StoreError:
            raise
        except ModelyardError as error:
            wanted = deployment.target and (ref.version, ref.digest) == (
                deployment.target.version,
                deployment.target.digest,
            )
            if not wanted or deployment.outcome != "running":
                raise
            self._conclude((environment, ref.name), failed(deployment, str(error)), bad=True)

    def _conclude(self, key: _Key, found: Outcome, *, bad: bool) -> None:
        """The plan comes to the same outcome again until its record has been read back; it is told once."""
        self._outcomes[key] = found
        if self._concluded.get(key) != (found.seen, found.why):
            self._concluded[key] = (found.seen, found.why)
            environment, model = key
            log.log(logging.WARNING if bad else logging.INFO, "%s in %s: %s", model, environment, found.why)

    def _record(self) -> None:
        """Write what this round has come to, an entry for each environment. While one is under way, outcomes wait: the
        plan comes to them again."""
        for environment in self.environments:
            own = {model: outcome for (name, model), outcome in self._outcomes.items() if name == environment.name}
            resting = self.clock() < self._resting.get(environment.name, float("-inf"))
            if own and not resting and environment.name not in self._recording:
                why = "; ".join(f"{model}: {outcome.why}" for model, outcome in own.items())
                future = self.executor.submit(environment.update_many, own, by=self.user, why=why)
                self._recording[environment.name] = future
        self._outcomes.clear()

    def _settle(self) -> None:
        """What became of the outcomes that were to be written."""
        for environment, recording in list(self._recording.items()):
            if not recording.done():
                continue
            del self._recording[environment]
            self._newest.refresh()
            try:
                recording.result()
                self._told.pop(f"the journal of {environment}", None)
            except _TRIED_AGAIN as error:
                self._resting[environment] = self.clock() + _REST_S
                self._tell(f"the journal of {environment}", error)

    def _tell(self, about: str, error: Exception) -> None:
        """Once, until it changes."""
        if self._told.get(about) != str(error):
            log.warning("%s: %s", about, error)
            self._told[about] = str(error)


def _of(replicas: Sequence[Replica], environment: str, model: str) -> list[Replica]:
    return [r for r in replicas if (r.environment, r.model) == (environment, model)]
