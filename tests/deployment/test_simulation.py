"""The plan on a world that does what it likes: replicas crash, supervisors are killed, wishes change.

The world's gateway confirms one tick late, and until then may do the one or the other. Its pool holds the versions that
serve on demand, loads others when it is asked to, and crashes, too. Rollouts are judged, paused, resumed and aborted.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from modelyard.deployment import canary
from modelyard.deployment.canary import GOOD, NOT_JUDGED, Advance, Hold, Moment, Reach, Verdict
from modelyard.deployment.outcomes import outcome
from modelyard.deployment.plan import Fail, Finish, GiveUp, Limits, Plan, Replica, Start, Stop, plan
from modelyard.repository import Analysis, CanaryStep, Deployment, DeploymentSpec, Expected, Pause, Pin, Strategy

from .builders import V1, V2, V3, V4

LIMITS = Limits(ready_s=10, drain_s=5)
CRASHES_ON_START, NEVER_READY = V3, V4
LOADS_IN_S, STOPS_IN_S = 3, 2
CALM_S = 250  # enough for two replicas that never get ready, for the longest backoff, and for all steps
BAD = Verdict("bad", "it fails more often")
ROOMS = st.sampled_from([(1, 0), (2, 0), (0, 1), (1, 1), (0, 2)])  # surge, unavailable
STEPS = st.lists(
    st.builds(CanaryStep, st.sampled_from([5, 30, 50, 80, 100]), st.sampled_from([0.0, 4.0, None])), max_size=3
)
ANALYSIS = st.sampled_from([None, Analysis(max_wait_s=5), Analysis(max_wait_s=5, golden=(Expected({}, {}),))])


@st.composite
def strategies(draw: st.DrawFn) -> Strategy:
    surge, unavailable = draw(ROOMS)
    warm, analysis = draw(st.sampled_from([0.0, 8.0])), draw(ANALYSIS)
    if draw(st.booleans()):
        steps = tuple(sorted(draw(STEPS), key=lambda step: step.weight))
        return Strategy("canary", max(surge, 1), unavailable, steps, analysis, warm)
    return Strategy("rolling", surge, unavailable, (), analysis, warm)


SPECS = st.builds(DeploymentSpec, st.integers(1, 3), st.sampled_from([None, None, 0]), strategies())


@dataclass
class Process:
    pin: Pin
    rollout: str
    state: str
    since: int
    in_flight: int = 0
    on_demand: bool = False


@dataclass
class World:
    """Time goes in seconds. What the supervisor knows of the gateway is lost when it is killed."""

    deployment: Deployment = field(default_factory=Deployment)
    now: int = 0
    processes: dict[str, Process] = field(default_factory=dict)
    gateway: frozenset[str] = frozenset()  # what it has confirmed
    asked: frozenset[str] = frozenset()  # what it will confirm next
    known: frozenset[str] = frozenset()
    standby: frozenset[str] = frozenset()  # who may get what nobody else can take
    unrouted: dict[str, int] = field(default_factory=dict)
    names: itertools.count[int] = field(default_factory=itertools.count)
    verdict: Verdict = NOT_JUDGED
    share: int | None = None

    def in_traffic(self) -> set[str]:
        """Who may get a request now."""
        return {name for name in self.gateway | self.asked if name in self.processes and self.ready(name)}

    def ready(self, name: str) -> bool:
        return self.processes[name].state == "ready"

    def tick(self) -> None:
        self.now += 1
        self._live()
        self._hold()
        self._confirm()
        decided = plan(self.deployment, self._look(), LIMITS, Moment(float(self.now), self.verdict))
        self._check(decided)
        self.asked, self.share = decided.routed, decided.share
        self._reserve(decided.standby)
        for step in decided.steps:
            self._do(step)

    def lose_supervisor(self) -> None:
        self.known, self.standby, self.unrouted = frozenset(), frozenset(), {}

    def move(self, name: str, state: str) -> None:
        self.processes[name].state, self.processes[name].since, self.processes[name].in_flight = state, self.now, 0

    def _hold(self) -> None:
        """What serves on demand has its place in the pool, and nothing that did keeps it once it serves no more."""
        serves = self.deployment.serving if self.deployment.serving_on_demand else None
        for name, process in list(self.processes.items()):
            if name.startswith("held") and process.pin != serves:
                assert name not in self.in_traffic()
                del self.processes[name]
        pooled = [p.pin for p in self.processes.values() if p.on_demand and p.state in ("starting", "ready")]
        if serves and serves not in pooled:
            self.processes[f"held{next(self.names)}"] = Process(serves, "", "ready", self.now, on_demand=True)

    def _live(self) -> None:
        for name, process in list(self.processes.items()):
            age = self.now - process.since
            if process.state == "starting" and process.pin == CRASHES_ON_START:
                self.move(name, "exited")
            elif process.state == "starting" and process.pin != NEVER_READY and age >= LOADS_IN_S:
                self.move(name, "ready")
            elif process.state == "stopping" and age >= STOPS_IN_S:
                del self.processes[name]

    def _confirm(self) -> None:
        """What was asked one tick ago holds now."""
        self.gateway = self.known = self.asked
        self.unrouted = {n: self.unrouted.get(n, self.now) for n in self.processes if n not in self.gateway}

    def _reserve(self, standby: frozenset[str]) -> None:
        """Who leaves it has been out of traffic since now."""
        for name in self.standby - standby:
            self.unrouted.pop(name, None)
        self.standby = standby

    def _look(self) -> list[Replica]:
        return [
            Replica(
                name,
                "production",
                "digit",
                p.pin,
                p.rollout,
                p.state,  # type: ignore[arg-type]
                float(self.now - p.since),
                20000,
                routed=name in self.known,
                unrouted_s=float(self.now - self.unrouted[name]) if name in self.unrouted else None,
                standby=name in self.standby,
                in_flight=p.in_flight,
                on_demand=p.on_demand,
            )
            for name, p in self.processes.items()
        ]

    def _check(self, decided: Plan) -> None:
        count, strategy = count_of(self.deployment), self.deployment.spec.strategy
        starts = sum(isinstance(step, Start) and not step.on_demand for step in decided.steps)
        assert not starts or self._processes(decided) + starts <= self._most()
        before = {name for name in self.asked if name in self.processes and self.ready(name)}
        assert all(self.ready(name) for name in decided.routed)
        least = count - strategy.unavailable
        if canary.share_step(self.deployment):  # all that served goes on, or is replaced one for one
            served = {name for name in before if self.processes[name].pin == self.deployment.serving}
            spec = self.deployment.serving_spec or self.deployment.spec
            assert len(decided.routed) >= min(len(served), spec.replicas)
            self._check_share(decided, count)
            least = min(least, spec.replicas)  # the target may be asked for with more
        assert len(decided.routed) >= min(len(before), least)
        for step in decided.steps:
            if isinstance(step, Stop) and self.processes[step.replica].state == "ready":
                assert step.replica not in self.gateway | self.standby | decided.routed | decided.standby
                long_enough = self.now - self.unrouted[step.replica] > LIMITS.drain_s
                assert self.processes[step.replica].in_flight == 0 or long_enough
            if isinstance(step, Finish) and self.deployment.target:
                serves = [n for n in self.gateway if n in self.processes and self.ready(n)]
                assert len(serves) >= count
                wanted = (self.deployment.target, self.deployment.spec.on_demand)
                assert all((self.processes[n].pin, self.processes[n].on_demand) == wanted for n in serves)

    def _check_share(self, decided: Plan, count: int) -> None:
        """No new replica gets more of the requests than one of `count` would, and none beyond the step's share."""
        step = canary.share_step(self.deployment)
        ready = sum(self.processes[name].pin == self.deployment.target for name in decided.routed)
        assert step
        assert decided.share is not None
        assert decided.share <= min(step.weight, 100 * ready / count)

    def _processes(self, decided: Plan) -> int:
        """Those that are kept warm not counted."""
        living = {n: p for n, p in self.processes.items() if p.state in ("starting", "ready") and not p.on_demand}
        warm = canary.warm(self.deployment, self.now)
        old = {n for n, p in living.items() if p.pin == self.deployment.serving and p.state == "ready"}
        return len(living.keys() - (old - decided.routed if warm and self.deployment.rolling else set()))

    def _most(self) -> int:
        spec, step = self.deployment.spec, canary.share_step(self.deployment)
        if step is None:
            return count_of(self.deployment) + spec.surge
        old = (self.deployment.serving_spec or spec).replicas
        return max(old, spec.replicas) + max(spec.surge, canary.replicas(step.weight, spec.replicas))

    def _do(self, step: object) -> None:
        match step:
            case Finish() | Fail() | Reach() | Advance() | Hold():
                found = outcome(step, self.deployment, at=float(self.now), by="world")
                assert found.why
                self.deployment = found.new
            case Start(pin, on_demand):
                pooled = [p.pin for p in self.processes.values() if p.on_demand and p.state in ("starting", "ready")]
                assert not on_demand or pin not in pooled
                rollout = self.deployment.rollout
                started = Process(pin, rollout, "starting", self.now, on_demand=on_demand)
                self.processes[f"r{next(self.names)}"] = started
            case Stop(name) if name.startswith("held"):
                pass
            case Stop(name) if self.processes[name].state == "exited" or self.processes[name].on_demand:
                del self.processes[name]
            case Stop(name):
                self.move(name, "stopping")
            case GiveUp(name):
                self.move(name, "exited")


def count_of(deployment: Deployment) -> int:
    if deployment.target is None:
        return 0
    return 1 if deployment.spec.on_demand else deployment.spec.replicas


class Rollouts(RuleBasedStateMachine):
    @initialize(serves=st.sampled_from([None, V1, V1]), spec=SPECS, wish=st.sampled_from([None, V2, V2]), new=SPECS)
    def begin(self, serves: Pin | None, spec: DeploymentSpec, wish: Pin | None, new: DeploymentSpec) -> None:
        self.world = World()
        if serves:
            self.world.deployment = Deployment().ask(serves, spec=spec).finished()
        if wish:
            self.world.deployment = self.world.deployment.ask(wish, spec=new)

    @rule(wish=st.sampled_from([V1, V2, V2, CRASHES_ON_START, NEVER_READY, None]), spec=SPECS)
    def ask(self, wish: Pin | None, spec: DeploymentSpec) -> None:
        self.world.deployment = self.world.deployment.ask(wish, spec=spec)

    @rule(ticks=st.sampled_from([1, 2, 3, 6, 12]))
    def go_on(self, ticks: int) -> None:
        for _ in range(ticks):
            self.world.tick()

    @rule(verdict=st.sampled_from([GOOD, GOOD, NOT_JUDGED, BAD]))
    def judge(self, verdict: Verdict) -> None:
        self.world.verdict = verdict

    @precondition(lambda self: self.world.deployment.under_way)
    @rule(what=st.sampled_from(["pause", "resume", "resume", "abort"]))
    def intervene(self, what: str) -> None:
        now = self.world.deployment
        pause = Pause("asked", "a look", "somebody", float(self.world.now))
        self.world.deployment = (
            now.paused(pause) if what == "pause" else now.resumed() if what == "resume" else now.failed("aborted")
        )

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.processes)))
        process = self.world.processes[name]
        if process.state in ("starting", "ready") and not process.on_demand:
            self.world.move(name, "exited")

    @rule()
    def crash_the_pool(self) -> None:
        """Whatever it holds is loaded anew."""
        for name, process in self.world.processes.items():
            if process.on_demand and process.state == "ready":
                self.world.move(name, "starting")

    @rule()
    def kill_the_supervisor(self) -> None:
        self.world.lose_supervisor()

    @rule()
    def lose_everything(self) -> None:
        """The machine goes down; the records stay."""
        for name, process in list(self.world.processes.items()):
            if process.on_demand:
                del self.world.processes[name]
            elif process.state != "exited":
                self.world.move(name, "exited")
        self.world.lose_supervisor()

    @precondition(lambda self: self.world.in_traffic())
    @rule(data=st.data())
    def request(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.in_traffic())))
        self.world.processes[name].in_flight += 1

    @precondition(lambda self: any(p.in_flight for p in self.world.processes.values()))
    @rule()
    def answer(self) -> None:
        for process in self.world.processes.values():
            process.in_flight = max(0, process.in_flight - 1)

    def teardown(self) -> None:
        """Left alone, every rollout ends; what serves then is complete, and alone."""
        if not hasattr(self, "world"):
            return
        for _ in range(CALM_S):
            if self.world.deployment.progress.pause:
                self.world.deployment = self.world.deployment.resumed()
            self.world.tick()
        deployment = self.world.deployment
        count = count_of(deployment)
        assert deployment.outcome in ("", "done", "failed")
        assert deployment.serving == deployment.target
        left = {name: p for name, p in self.world.processes.items() if p.state != "exited"}
        kind = (deployment.serving, deployment.spec.on_demand)
        assert [(p.pin, p.on_demand) for p in left.values()] == [kind] * count
        assert self.world.gateway == left.keys()


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(max_examples=400, stateful_step_count=25, deadline=None)


@settings(max_examples=150, deadline=None)
@given(
    replicas=st.integers(1, 3),
    strategy=strategies(),
    kills=st.sets(st.integers(0, 60)),
    verdict=st.sampled_from([GOOD, BAD]),
)
def test_a_rollout_ends_as_it_is_judged_however_often_its_reconciler_is_killed(
    replicas: int, strategy: Strategy, kills: set[int], verdict: Verdict
) -> None:
    serves = Deployment().ask(V1, spec=DeploymentSpec(replicas)).finished()
    world = World(serves.ask(V2, spec=DeploymentSpec(replicas, strategy=strategy)), verdict=verdict)
    judged = bool(canary.steps(world.deployment)) and strategy.analysis is not None
    share = 0
    for tick in range(CALM_S):
        if tick in kills:
            world.lose_supervisor()
        if world.deployment.progress.pause:
            world.deployment = world.deployment.resumed()
        world.tick()
        if world.deployment.under_way:
            assert (world.share or share) >= share  # nobody who was led to the new version is led back
            share = world.share or share
    expected = (V1, "failed") if judged and verdict is BAD else (V2, "done")
    assert (world.deployment.serving, world.deployment.outcome) == expected
