from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

import pytest

from modelyard.configuration.sections import Variants
from modelyard.deployment.canary import GOOD, NOT_JUDGED, Verdict
from modelyard.deployment.plan import Limits, Replica
from modelyard.deployment.reconciler import Reconciler
from modelyard.deployment.routing import Deployments
from modelyard.deployment.rules import Rules
from modelyard.errors import InvalidInput, ModelyardError, StoreError, Unavailable
from modelyard.gateway.routes import RouteTable
from modelyard.refs import ModelRef
from modelyard.repository import (
    Analysis,
    CanaryStep,
    Deployment,
    DeploymentSpec,
    Environment,
    Pin,
    Progress,
    Strategy,
)
from modelyard.store import Memory

from .builders import V1, V2, replica


class World:
    """A target, a router and a clock; what they are told stands in `told`, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.replicas: dict[str, Replica] = {}
        self.attempts = self.started = 0
        self.now = 0.0
        self.busy: dict[tuple[str, str, int], int] = {}
        self.table = RouteTable()
        self.pools: frozenset[str] = frozenset()  # those that the gateway leads to
        self.fails: dict[str, ModelyardError] = {}  # operation, or operation and model → what it raises

    def clock(self) -> float:
        return self.now

    # the target

    def observe(self) -> list[Replica]:
        return list(self.replicas.values())

    def _fail(self, *operations: str) -> None:
        for operation in operations:
            if operation in self.fails:
                raise self.fails[operation]

    def start_replica(self, environment: str, ref: ModelRef, rollout: str, on_demand: bool) -> None:
        self.attempts += 1
        self._fail("start", f"start {ref.name}")
        assert ref.version
        assert ref.digest
        name = f"{ref.name}{self.started}"
        self.started += 1
        self.told.append(f"start {name}")
        started = replica(name, Pin(ref.version, ref.digest), "starting", rollout=rollout, on_demand=on_demand)
        self.replicas[name] = replace(started, environment=environment, model=ref.name)

    def stop(self, replica_id: str) -> None:
        self.told.append(f"stop {replica_id}")
        del self.replicas[replica_id]

    def give_up(self, replica_id: str, reason: str) -> None:
        self.told.append(f"give up {replica_id}: {reason}")
        self.replicas[replica_id] = replace(self.replicas[replica_id], state="exited", since_s=0, error=reason)

    def ready(self, name: str) -> None:
        self.replicas[name] = replace(self.replicas[name], state="ready")


class FakeTarget:
    def __init__(self, world: World) -> None:
        self.stop, self.give_up = world.stop, world.give_up
        self._world = world

    def observe(self, _: Deployments) -> list[Replica]:
        return self._world.observe()

    def start(self, environment: str, ref: ModelRef, *, rollout: str, on_demand: bool) -> None:
        self._world.start_replica(environment, ref, rollout, on_demand)

    def tend(self, routed: frozenset[str]) -> None:
        self._world.pools = routed


class FakeRouter:
    """Runs after `start`; `in_flight` and `apply` need that, as the real one does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.runs = False

    def start(self) -> None:
        self.runs = True

    def apply(self, table: RouteTable) -> None:
        self._need()
        self._world._fail("apply")
        if table != self._world.table:
            self._world.told.append("route")
        self._world.table = table

    def in_flight(self) -> Mapping[tuple[str, str, int], int]:
        self._need()
        return self._world.busy

    def _need(self) -> None:
        if not self.runs:
            raise Unavailable("the gateway does not run")


class AtOnce(Executor):
    """Does what it is given before it returns; while it hangs, keeps it until it may go on."""

    def __init__(self) -> None:
        self.hangs = False
        self.hanging: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.hanging.append((future, partial(fn, *args, **options)))
        if not self.hangs:
            self.go_on()
        return future

    def go_on(self) -> None:
        self.hangs = False
        while self.hanging:
            future, work = self.hanging.pop(0)
            try:
                future.set_result(work())
            except ModelyardError as error:
                future.set_exception(error)


class Judge:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.says = NOT_JUDGED

    def verdict(self, environment: str, model: str, deployment: Deployment, now: float) -> Verdict:
        assert (environment, model) == ("production", "digit")
        assert now > 1000
        assert deployment.spec.strategy.analysis
        return self.says


class Yard:
    """A reconciler in a world, and the journal it reads."""

    def __init__(self) -> None:
        self.world = World()
        self.router = FakeRouter(self.world)
        self.store = Memory()
        self.production = Environment(self.store, "production")
        self.tags: dict[str, dict[str, str]] = {}
        self.rules = Rules()
        self.executor = AtOnce()
        self.judge = Judge()
        self.reconciler = self.another()

    def another(self) -> Reconciler:
        return Reconciler(
            [self.production],
            FakeTarget(self.world),
            self.router,
            Limits(ready_s=120, drain_s=60),
            user="reconciler",
            clock=self.world.clock,
            tags=lambda model: self.tags.get(model, {}),
            rules=lambda: self.rules,
            executor=self.executor,
            analyst=self.judge,
            wall=lambda: 1000.0 + self.world.now,
        )

    def ask(self, pin: Pin | None, model: str = "digit", strategy: Strategy | None = None) -> None:
        spec = DeploymentSpec(strategy=strategy) if strategy else None
        self.production.update(model, lambda old: old.ask(pin, spec=spec), by="somebody", why="a wish")

    def weights(self) -> dict[str, int]:
        """Version → its part of the requests to `digit`."""
        [route] = [route for route in self.world.table.routes if "digit" in route.names]
        labels = {self.world.table.backend(backend).label: weight for backend, weight in route.weights}
        return {label.partition("@")[0].partition(":")[2]: weight for label, weight in labels.items()}

    def whys(self, count: int) -> list[str]:
        return [entry.why for entry, _ in self.production.history()[-count:]]

    def ticks(self, count: int = 1) -> list[str]:
        """What was done in so many rounds."""
        self.world.told.clear()
        for _ in range(count):
            self.world.now += 1.0
            self.reconciler.tick()
        return list(self.world.told)

    def get(self, model: str = "digit") -> Deployment:
        return self.production.get(model)


@pytest.fixture
def yard() -> Yard:
    """`digit` v1.1.0 serves with one replica, `digit0`."""
    yard = Yard()
    yard.ask(V1)
    yard.ticks()
    yard.world.ready("digit0")
    yard.ticks(2)
    assert yard.get().outcome == "done"
    return yard


def test_a_rollout_moves_the_traffic_before_it_stops_anything(yard: Yard) -> None:
    yard.ask(V2)
    assert yard.ticks() == ["route", "start digit1"]  # a name for the new version, without anybody behind it
    yard.world.ready("digit1")
    assert yard.ticks() == ["route"]
    assert yard.ticks() == ["stop digit0"]
    assert yard.get().serving == V2
    entries = yard.production.history()
    assert (entries[-1][0].by, entries[-1][0].why) == ("reconciler", "digit: v1.2.0 serves")
    assert yard.ticks() == ["route"]  # the old one is gone from the table
    assert yard.ticks(3) == []


CANARY = Strategy("canary", steps=(CanaryStep(10, 5), CanaryStep(50, 5)), analysis=Analysis(max_wait_s=30))


def test_a_canary_goes_step_by_step_and_each_is_one_entry(yard: Yard) -> None:
    yard.ask(V2, strategy=CANARY)
    yard.ticks()
    yard.world.ready("digit1")
    yard.ticks(2)
    assert yard.weights() == {"v1.1.0": 9000, "v1.2.0": 1000}
    yard.ticks(20)
    assert yard.get().progress == Progress(0, yard.get().progress.since)  # nobody has judged it yet
    yard.reconciler = yard.another()  # whoever comes later goes on
    yard.judge.says = GOOD
    yard.ticks(3)
    assert yard.weights() == {"v1.1.0": 5000, "v1.2.0": 5000}
    assert "stop digit0" in yard.ticks(12)
    assert yard.get().serving == V2
    assert yard.whys(5) == [
        "digit: v1.2.0 gets 10 % of the requests, for 5 s",
        "digit: step 1 of 2 (10 %) is passed; next 50 %",
        "digit: v1.2.0 gets 50 % of the requests, for 5 s",
        "digit: step 2 of 2 (50 %) is passed; v1.2.0 takes over",
        "digit: v1.2.0 serves",
    ]


def test_a_canary_that_is_worse_goes_back_with_the_reason(yard: Yard) -> None:
    yard.ask(V2, strategy=CANARY)
    yard.ticks()
    yard.world.ready("digit1")
    yard.ticks(2)
    yard.judge.says = Verdict("bad", "it is slow")
    assert yard.ticks(4) == ["route", "stop digit1", "route"]
    assert yard.weights() == {"v1.1.0": 1}
    assert (yard.get().serving, yard.get().outcome) == (V1, "failed")
    assert yard.whys(1) == ["digit: went back: v1.2.0 is worse than v1.1.0: it is slow"]


def test_what_nobody_can_judge_is_paused_until_it_is_resumed(yard: Yard) -> None:
    yard.ask(V2, strategy=CANARY)
    yard.ticks()
    yard.world.ready("digit1")
    yard.judge.says = Verdict("too_little", "nobody asks")
    yard.ticks(60)
    pause = yard.get().progress.pause
    assert pause
    assert (pause.cause, pause.by) == ("analysis", "reconciler")
    assert pause.why.endswith("s nobody asks")
    yard.production.update("digit", lambda now: now.resumed(), by="somebody", why="resume")
    yard.ticks(3)
    assert yard.get().progress.step == 1


def test_the_way_back_to_what_is_kept_warm_starts_nothing(yard: Yard) -> None:
    yard.ask(V2, strategy=Strategy(keep_warm_s=60))
    yard.ticks()
    yard.world.ready("digit1")
    assert "stop digit0" not in yard.ticks(30)
    assert yard.get().outcome == "done"
    yard.ask(V1, strategy=Strategy())
    assert yard.ticks() == ["route"]
    assert yard.weights() == {"v1.1.0": 1, "v1.2.0": 0}
    assert yard.ticks(3) == ["stop digit1", "route"]
    assert yard.get().serving == V1


def test_what_was_kept_warm_ends_when_its_time_is_over(yard: Yard) -> None:
    yard.ask(V2, strategy=Strategy(keep_warm_s=60))
    yard.ticks()
    yard.world.ready("digit1")
    yard.ticks(10)
    yard.world.busy = {("any", "127.0.0.1", yard.world.replicas["digit0"].port): 1}  # some ask for it by its version
    assert yard.ticks(60) == ["route"]  # they get no more of it, but what they have asked for
    yard.world.busy.clear()
    assert yard.ticks(2) == ["stop digit0", "route"]


def test_what_is_in_hand_is_waited_for(yard: Yard) -> None:
    yard.ask(V2)
    yard.ticks()
    yard.world.ready("digit1")
    yard.world.busy = {("any", "127.0.0.1", yard.world.replicas["digit0"].port): 1}
    yard.ticks(3)
    assert "digit0" in yard.world.replicas
    yard.world.busy.clear()
    assert yard.ticks() == ["stop digit0"]


def test_nothing_is_stopped_while_the_gateway_does_not_confirm(yard: Yard) -> None:
    yard.ask(V2)
    yard.ticks()
    yard.world.ready("digit1")
    yard.world.fails["apply"] = Unavailable("Envoy does not confirm")
    for _ in range(3):
        with pytest.raises(Unavailable):
            yard.ticks()
    assert yard.world.told == []
    yard.world.fails.clear()
    assert yard.ticks(2) == ["route", "stop digit0"]


def test_a_supervisor_that_comes_later_goes_on(yard: Yard) -> None:
    yard.ask(V2)
    yard.ticks()
    yard.world.ready("digit1")
    yard.ticks()
    yard.reconciler = yard.another()
    assert yard.ticks() == []  # the gateway has to confirm it to this one, too
    assert yard.ticks() == ["stop digit0"]


def test_a_gateway_that_died_is_started_before_it_is_asked(yard: Yard) -> None:
    yard.ask(V2)
    yard.ticks()
    yard.world.ready("digit1")
    yard.ticks()
    yard.router.runs = False
    assert yard.ticks() == ["stop digit0"]


def test_without_the_store_the_last_wish_goes_on(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Environment) -> None:
        raise StoreError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(Environment, "read", fail)
        crashed = yard.world.replicas["digit0"]
        yard.world.replicas["digit0"] = replace(crashed, state="exited", since_s=0)
        assert "start digit1" in yard.ticks()
        yard.world.ready("digit1")
        yard.ticks()
        assert [e.port for b in yard.world.table.backends for e in b.endpoints] == [yard.world.replicas["digit1"].port]
        with pytest.raises(StoreError, match="away"):  # one that has never read the wishes does nothing
            yard.another().tick()
    yard.ask(None)
    yard.ticks(3)
    assert yard.get().serving is None


def test_a_store_that_hangs_holds_up_neither_replicas_nor_the_gateway(yard: Yard) -> None:
    yard.executor.hangs = True
    yard.world.replicas["digit0"] = replace(yard.world.replicas["digit0"], state="exited", since_s=0)
    assert "start digit1" in yard.ticks()
    yard.router.runs = False
    yard.world.ready("digit1")
    assert yard.ticks() == ["route"]
    yard.reconciler = yard.another()  # this one never heard what is wanted
    yard.router.runs = False
    assert yard.ticks(3) == []
    assert yard.router.runs


def test_an_outcome_that_can_not_be_written_yet_is_written_once(yard: Yard) -> None:
    yard.ask(V2)
    yard.ticks()
    yard.world.ready("digit1")
    yard.ticks()
    yard.executor.hangs = True
    assert yard.ticks(3) == ["stop digit0", "route"]
    assert len(yard.executor.hanging) == 2  # the reading and the outcome
    yard.executor.go_on()
    yard.ticks()
    assert yard.get().serving == V2


def test_a_wish_that_changed_in_between_is_not_overwritten(yard: Yard) -> None:
    yard.ask(V2)
    yard.ticks()
    yard.world.ready("digit1")
    yard.ticks()
    yard.ask(V1)  # after this round's reading
    yard.world.now -= 0.9
    yard.ticks()
    now = yard.get()
    assert (now.serving, now.target, now.outcome) == (V1, V1, "running")
    yard.ticks()
    yard.world.ready("digit2")
    yard.ticks(3)
    assert yard.get().outcome == "done"
    assert [r.pin for r in yard.world.replicas.values()] == [V1]


def test_what_can_not_be_started_fails_the_rollout(yard: Yard) -> None:
    yard.world.fails["start"] = InvalidInput("no engine here serves the format pickle")
    yard.ask(V2)
    yard.ticks()
    now = yard.get()
    assert (now.serving, now.target, now.outcome) == (V1, V1, "failed")
    assert now.reason == "no engine here serves the format pickle"
    assert yard.production.history()[-1][0].why == "digit: went back: no engine here serves the format pickle"


def test_a_store_that_is_away_at_the_start_is_nobodys_fault(yard: Yard) -> None:
    yard.world.fails["start"] = StoreError("the store is away")
    yard.ask(V2)
    yard.ticks(5)
    assert yard.get().outcome == "running"
    yard.world.fails.clear()
    assert "start digit1" in yard.ticks(2)


def test_one_models_trouble_holds_up_no_other(yard: Yard) -> None:
    yard.world.fails["start apple"] = StoreError("its files can't be read")
    yard.ask(V1, "apple")
    yard.ask(V1, "zebra")
    assert "start zebra1" in yard.ticks()
    yard.world.ready("zebra1")
    yard.ticks(2)
    assert yard.get("zebra").outcome == "done"
    assert yard.get("apple").outcome == "running"


def test_what_fails_is_tried_again_only_after_a_rest(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "modelyard.reconciler")
    yard.ask(V2)
    yard.world.fails["start"] = StoreError("the store is away")
    before = yard.world.attempts
    caplog.clear()
    for _ in range(30):  # three seconds
        yard.world.now += 0.1
        yard.reconciler.tick()
    assert yard.world.attempts - before == 3
    assert [record.message for record in caplog.records] == ["digit in production: the store is away"]  # told once
    yard.world.fails.clear()
    yard.world.now += 1
    yard.reconciler.tick()
    assert [record.message for record in caplog.records][1:] == [f"start digit:{V2}@{V2.digest} in production"]


def test_replicas_that_nobody_wants_any_more_are_ended(yard: Yard) -> None:
    yard.production = Environment(Memory(), "production")  # a store made anew at the same place
    yard.ask(None, model="letter")
    yard.reconciler = yard.another()
    assert yard.ticks() == ["route"]
    assert yard.ticks() == ["stop digit0"]


def test_a_store_that_knows_nothing_ends_nothing(yard: Yard) -> None:
    yard.production = Environment(Memory(), "production")  # such as a folder whose disk is not mounted
    yard.reconciler = yard.another()
    with pytest.raises(StoreError, match="1 replicas run, but the store knows of no deployment"):
        yard.ticks()
    assert yard.world.told == []


def test_a_journal_that_lost_its_entries_changes_nothing(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    kept = {found.key: yard.store.get(found.key) for found in yard.store.objects("deployments")}
    assert yard.ticks() == []
    yard.store.delete(kept)
    assert yard.ticks(3) == []
    assert "has 0; look whether the store is where it was" in caplog.text
    for key, data in kept.items():
        yard.store.put(key, data)
    assert yard.ticks(3) == []


def test_tags_lead_to_the_version_that_they_point_at(yard: Yard) -> None:
    yard.tags = {"digit": {"best": str(V1.version), "next": str(V2.version)}}
    yard.ticks(3)
    names = yard.world.table.names
    assert "digit:best" in names
    assert "digit:next" not in names  # that version is not deployed


def test_rules_become_routes_within_a_second(yard: Yard) -> None:
    for rules in (Rules(embeddings={"search": Variants(variants={"digit": 1})}), Rules()):
        yard.rules = rules
        for _ in range(9):
            yard.world.now += 0.1
            yard.reconciler.tick()
        assert ("task:search" in yard.world.table.names) == bool(rules.embeddings)


def test_one_that_does_not_get_ready_is_given_up_with_the_reason(yard: Yard) -> None:
    yard.ask(V2)
    yard.ticks()
    for _ in range(2):
        [late] = [r for r in yard.world.replicas.values() if r.state == "starting"]
        yard.world.replicas[late.id] = replace(late, since_s=121)
        assert yard.ticks()[-1].startswith(f"give up {late.id}: it was not ready after 120 s")
        yard.ticks(2)
    assert yard.get().reason == "v1.2.0 does not stay up: it was not ready after 120 s"
    assert yard.get().serving == V1


def test_a_rollout_that_failed_is_told_once(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    yard.ask(V2)
    yard.ticks()
    for hangs in (False, True):
        [late] = [r for r in yard.world.replicas.values() if r.state == "starting"]
        yard.world.replicas[late.id] = replace(late, since_s=121)
        yard.ticks()
        yard.executor.hangs = hangs  # its record takes a while
        yard.ticks(3)
    yard.executor.go_on()
    yard.ticks(3)
    told = [record.message for record in caplog.records if "went back" in record.message]
    assert told == ["digit in production: went back: v1.2.0 does not stay up: it was not ready after 120 s"]


def test_the_loop_outlives_errors_and_tells_each_once(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    class Stop(Event):
        """Set after five rounds."""

        rounds = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.rounds += 1
            return self.rounds > 5

    yard.world.fails["apply"] = Unavailable("Envoy does not confirm")
    yard.reconciler.run(Stop())
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == ["round: Envoy does not confirm"]
