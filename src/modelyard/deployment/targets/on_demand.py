"""Models on demand beside a machine's replicas: a version's place in the pool looks like a replica to whoever plans.

A version that serves on demand has its place without more ado; another one gets it when the pool has loaded it once.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

from modelyard.deployment.plan import GiveUp, Limits, Replica, ReplicaState, Stop
from modelyard.deployment.pools import PoolProcess, StartPool, plan_pool
from modelyard.deployment.routing import Deployments
from modelyard.deployment.targets.memory import Key, memory_limits
from modelyard.deployment.targets.pool_client import Answer, ask
from modelyard.errors import InvalidInput
from modelyard.refs import ModelRef
from modelyard.repository import Pin

_ASK_INTERVAL_S = 0.2


class Processes(Protocol):
    """What a LocalTarget does; see there."""

    def limit_memory(self, limits: Mapping[Key, str]) -> None: ...
    def observe(self) -> list[Replica]: ...
    def pools(self) -> list[PoolProcess]: ...
    def start(self, environment: str, ref: ModelRef, *, rollout: str) -> None: ...
    def start_pool(self, environment: str) -> None: ...
    def stop(self, replica_id: str) -> None: ...
    def give_up(self, replica_id: str, reason: str) -> None: ...


@dataclass(slots=True)
class _Place:
    """A version that the pool was asked to load. `loaded`: once, which is enough; `error`: it can't be."""

    id: str
    environment: str
    ref: ModelRef
    pin: Pin
    rollout: str
    since: float
    loaded: bool = False
    error: str = ""
    answer: Future[Answer] | None = None
    asked: float = float("-inf")


@dataclass(slots=True)
class OnDemand:
    """Replicas and pools of one machine as a reconciler's target."""

    local: Processes
    limits: Limits
    ask: Callable[[int, ModelRef], Answer] = ask
    clock: Callable[[], float] = time.monotonic
    executor: Executor = field(default_factory=lambda: ThreadPoolExecutor(8))
    _places: dict[str, _Place] = field(default_factory=dict)
    _pools: dict[str, PoolProcess] = field(default_factory=dict)  # environment → its newest living process
    _needed: frozenset[str] = frozenset()

    def observe(self, deployments: Deployments) -> list[Replica]:
        """Every replica, and every version's place in a pool. Waits for nobody."""
        self.local.limit_memory(memory_limits(deployments))
        replicas = self.local.observe()
        self._pools = {p.environment: p for p in sorted(self.local.pools(), key=_best_last) if p.alive}
        for place in self._places.values():
            self._look(place)
        places = [self._replica(place) for place in self._places.values()]
        there = {(r.environment, r.model, r.pin) for r in places if r.state != "exited"}
        places += [held for held in self._held(deployments) if (held.environment, held.model, held.pin) not in there]
        self._needed = frozenset(r.environment for r in places if r.state != "exited")
        return [*replicas, *places]

    def start(self, environment: str, ref: ModelRef, *, rollout: str, on_demand: bool = False) -> None:
        """Start a replica, or have the pool load the version."""
        if not on_demand:
            self.local.start(environment, ref, rollout=rollout)
            return
        if ref.version is None or ref.digest is None:
            raise InvalidInput(f"{ref} is no exact version", remedy="name its version and digest")
        name = f"{environment}-on-demand-{ref.name}-{ref.version}-{uuid.uuid4().hex[:8]}"
        self._places[name] = _Place(name, environment, ref, Pin(ref.version, ref.digest), rollout, self.clock())

    def stop(self, replica_id: str) -> None:
        if replica_id not in self._places:
            self.local.stop(replica_id)  # which knows nothing of one that is held because it serves
        self._places.pop(replica_id, None)

    def give_up(self, replica_id: str, reason: str) -> None:
        place = self._places.get(replica_id)
        if place is None:
            self.local.give_up(replica_id, reason)
            return
        crashes = [p.error for p in self.local.pools() if p.environment == place.environment and p.state == "exited"]
        self._fail(place, f"{reason}; its pool ended: {crashes[-1]}" if crashes else reason)

    def tend(self, routed: frozenset[str]) -> None:
        """Start and end pools; `routed`: the environments whose pool the gateway still leads to."""
        processes = self.local.pools()
        for environment in sorted({p.environment for p in processes} | self._needed):
            own = [p for p in processes if p.environment == environment]
            needed = environment in self._needed
            for step in plan_pool(own, self.limits, needed=needed, routed=environment in routed):
                match step:
                    case StartPool():
                        self.local.start_pool(environment)
                    case Stop(name):
                        self.local.stop(name)
                    case GiveUp(name):
                        self.local.give_up(name, f"it was not ready after {self.limits.ready_s:g} s")

    def _look(self, place: _Place) -> None:
        """Take the pool's last answer, if there is one, and ask again when it is time."""
        if place.loaded or place.error:
            return
        if place.answer and place.answer.done():
            answer, place.answer = place.answer.result(), None
            place.loaded = answer.ready
            if answer.error:
                self._fail(place, answer.error)
        pool, now = self._pools.get(place.environment), self.clock()
        due = place.answer is None and now - place.asked >= _ASK_INTERVAL_S
        if pool and pool.state == "ready" and due and not (place.loaded or place.error):
            place.answer, place.asked = self.executor.submit(self.ask, pool.port, place.ref), now

    def _fail(self, place: _Place, error: str) -> None:
        place.error, place.since = error, self.clock()

    def _replica(self, place: _Place) -> Replica:
        state: ReplicaState = "exited" if place.error else "ready" if place.loaded else "starting"
        since_s = self.clock() - place.since
        seen = Replica(
            place.id, place.environment, place.ref.name, place.pin, place.rollout, state, since_s, 0, error=place.error
        )
        return self._at_pool(seen)

    def _held(self, deployments: Deployments) -> Iterator[Replica]:
        """What serves on demand."""
        for environment, models in deployments.items():
            for model, deployment in models.items():
                if deployment.serving and deployment.serving_on_demand:
                    pin = deployment.serving
                    name = f"{environment}-on-demand-{model}-{pin}"
                    yield self._at_pool(Replica(name, environment, model, pin, "", "ready", 0.0, 0))

    def _at_pool(self, place: Replica) -> Replica:
        """Where the pool is; without a pool nothing is ready, which is not the version's fault."""
        pool = self._pools.get(place.environment)
        place = replace(place, port=pool.port if pool else 0, on_demand=True)
        if place.state == "ready" and (pool is None or pool.state != "ready"):
            return replace(place, state="starting", since_s=0.0)
        return place


def _best_last(process: PoolProcess) -> tuple[bool, float]:
    return process.state == "ready", process.since_s
