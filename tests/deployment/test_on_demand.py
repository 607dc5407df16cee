from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from modelyard.deployment.plan import GiveUp, Limits, Replica, Stop
from modelyard.deployment.pools import PoolProcess, StartPool, plan_pool
from modelyard.deployment.routing import Traffic, route_table
from modelyard.deployment.targets.memory import Key
from modelyard.deployment.targets.on_demand import OnDemand
from modelyard.deployment.targets.pool_client import Answer
from modelyard.refs import ModelRef
from modelyard.repository import Deployment, DeploymentSpec, Pin
from modelyard.repository.environments import Resources

from .builders import V1, V2

LIMITS = Limits(ready_s=120, drain_s=60)
ON_DEMAND = DeploymentSpec(min_replicas=0)
READY = PoolProcess("pool", "production", "ready", 9, 20001)


def ref(pin: Pin) -> ModelRef:
    return ModelRef("digit", pin.version, digest=pin.digest)


@dataclass
class Machine:
    """The processes of one, and what was done to them."""

    processes: list[PoolProcess] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def observe(self) -> list[Replica]:
        return []

    def pools(self) -> list[PoolProcess]:
        return self.processes

    def limit_memory(self, limits: Mapping[Key, str]) -> None:
        self.told += [f"{model}:{version} may take {size}" for (_, model, version), size in limits.items()]

    def start(self, environment: str, ref: ModelRef, *, rollout: str) -> None:
        self.told.append(f"start {ref.name} in {environment} for {rollout}")

    def start_pool(self, environment: str) -> None:
        self.told.append(f"start pool {environment}")

    def stop(self, replica_id: str) -> None:
        self.told.append(f"stop {replica_id}")

    def give_up(self, replica_id: str, reason: str) -> None:
        self.told.append(f"give up {replica_id}: {reason}")


class AtOnce(Executor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **options))
        return future


@dataclass
class Scene:
    """A target whose pool gives `answer` whenever it is asked."""

    machine: Machine = field(default_factory=Machine)
    answer: Answer = field(default_factory=lambda: Answer(False))
    asked: int = 0
    now: float = 0

    def __post_init__(self) -> None:
        self.target = OnDemand(self.machine, LIMITS, ask=self._ask, clock=lambda: self.now, executor=AtOnce())

    def look(self, deployment: Deployment | None = None) -> list[tuple[str, Pin, int]]:
        self.now += 1
        found = self.target.observe({"production": {"digit": deployment or Deployment()}})
        return [(r.state, r.pin, r.port) for r in found]

    def tend(self, *routed: str) -> list[str]:
        self.machine.told.clear()
        self.target.tend(frozenset(routed))
        return list(self.machine.told)

    def _ask(self, port: int, asked: ModelRef) -> Answer:
        self.asked += 1
        assert (port, asked) == (READY.port, ref(V2))
        return self.answer


@pytest.fixture
def scene() -> Scene:
    return Scene()


SERVES = Deployment().ask(V1, spec=ON_DEMAND).finished()


def test_what_serves_on_demand_is_where_the_pool_is(scene: Scene) -> None:
    assert scene.look(SERVES) == [("starting", V1, 0)]
    assert scene.tend() == ["start pool production"]
    scene.machine.processes = [replace(READY, state="starting")]
    assert scene.look(SERVES) == [("starting", V1, READY.port)]
    scene.machine.processes = [READY]
    assert scene.look(SERVES) == [("ready", V1, READY.port)]
    assert scene.tend("production") == []
    scene.machine.processes = [replace(READY, state="exited")]
    assert scene.look(SERVES) == [("starting", V1, 0)]
    assert scene.asked == 0


def test_another_version_has_its_place_once_it_was_loaded(scene: Scene) -> None:
    rolling = SERVES.ask(V2)
    scene.target.start("production", ref(V2), rollout="now", on_demand=True)
    assert scene.look(rolling) == [("starting", V2, 0), ("starting", V1, 0)]
    assert scene.asked == 0
    scene.machine.processes = [READY]
    scene.look(rolling)
    assert scene.look(rolling)[0][0] == "starting"  # it is loading still
    scene.answer = Answer(True)
    scene.look(rolling)
    assert scene.look(rolling) == [("ready", V2, READY.port), ("ready", V1, READY.port)]
    asked = scene.asked
    assert scene.look(rolling.finished()) == [("ready", V2, READY.port)]
    assert scene.asked == asked
    [place] = scene.target.observe({})
    scene.target.stop(place.id)
    assert scene.look() == []


def test_one_that_can_not_be_loaded_has_crashed_with_the_reason(scene: Scene) -> None:
    scene.machine.processes = [READY]
    scene.answer = Answer(False, "model.onnx is cut off")
    scene.target.start("production", ref(V2), rollout="now", on_demand=True)
    scene.look()
    scene.look()
    [crashed] = scene.target.observe({})
    assert (crashed.state, crashed.error, crashed.rollout) == ("exited", "model.onnx is cut off", "now")
    asked = scene.asked
    scene.look()
    assert scene.asked == asked


def test_one_that_is_given_up_says_what_ended_the_pool(scene: Scene) -> None:
    scene.machine.processes = [replace(READY, state="exited", error="no memory")]
    scene.target.start("production", ref(V2), rollout="now", on_demand=True)
    scene.look()
    [place] = scene.target.observe({})
    scene.target.give_up(place.id, "it was not ready after 120 s")
    [crashed] = scene.target.observe({})
    assert crashed.error == "it was not ready after 120 s; its pool ended: no memory"


def test_replicas_of_their_own_are_the_machines(scene: Scene) -> None:
    scene.target.start("production", ref(V1), rollout="now")
    scene.target.stop("a")
    scene.target.give_up("b", "late")
    assert scene.machine.told == ["start digit in production for now", "stop a", "give up b: late"]


def test_a_pool_ends_when_the_gateway_leads_nothing_there(scene: Scene) -> None:
    scene.machine.processes = [READY]
    scene.look()
    assert scene.tend("production") == []
    assert scene.tend() == ["stop pool"]


def test_a_pool_that_crashes_is_started_again_ever_later() -> None:
    crashes = [replace(READY, id=f"p{age}", state="exited", since_s=age) for age in (0.2, 5, 9)]
    assert plan_pool(crashes[:1], LIMITS, needed=True, routed=True) == [StartPool()]
    assert plan_pool(crashes, LIMITS, needed=True, routed=True) == []
    assert plan_pool(crashes[1:], LIMITS, needed=True, routed=True) == [StartPool()]
    assert plan_pool(crashes[:1], LIMITS, needed=False, routed=False) == [Stop("p0.2")]


def test_a_pool_that_is_late_is_given_up_and_one_too_many_ends() -> None:
    late = replace(READY, id="late", state="starting", since_s=121)
    assert plan_pool([late], LIMITS, needed=True, routed=False) == [GiveUp("late")]
    assert plan_pool([late, READY], LIMITS, needed=True, routed=True) == [GiveUp("late"), Stop("late")]


def test_the_versions_of_a_pool_share_a_cluster_and_one_beside_replicas_has_its_own_backend() -> None:
    own = Replica("own", "production", "digit", V1, "", "ready", 5, 20002)
    place = Replica("place", "production", "digit", V1, "", "ready", 5, READY.port, on_demand=True)
    other = replace(place, id="other", model="letter")
    switching = replace(SERVES, spec=DeploymentSpec(1), outcome="running")
    table = route_table(
        {"production": {"digit": switching, "letter": SERVES}},
        [own, place, other],
        Traffic(frozenset({"own", "other"})),
    )
    assert {(b.model, b.pool, b.endpoints[0].port) for b in table.backends} == {
        ("digit", "production", READY.port),
        ("digit", "", 20002),
        ("letter", "production", READY.port),
    }
    assert len(table.clusters) == 2
    weights = {route.names[0]: [table.backend(b).pool for b, _ in route.weights] for route in table.routes}
    assert (weights["digit"], weights["letter"]) == ([""], ["production"])


def test_what_replicas_may_take_is_passed_on() -> None:
    machine = Machine()
    spec = DeploymentSpec(resources=Resources(memory="2Gi"))
    rolling = Deployment().ask(V1, spec=spec).finished().ask(V2, spec=DeploymentSpec())
    OnDemand(machine, LIMITS).observe({"production": {"digit": rolling}})
    assert machine.told == ["digit:v1.1.0 may take 2Gi"]
