"""What a cluster is told next. Pure: no cluster; a simulated one carries out what it is told, some time later."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployment.builders import V1, V2, V3, serving
from modelyard.deployment.canary import GOOD, Moment, Verdict
from modelyard.deployment.outcomes import Recorded, outcome
from modelyard.deployment.plan import Fail, Finish
from modelyard.deployment.targets.kubernetes.decision import (
    Apply,
    Empty,
    Found,
    Layout,
    Remove,
    Step,
    Want,
    decide,
    layout,
)
from modelyard.deployment.targets.kubernetes.progress import Progress
from modelyard.repository import Analysis, CanaryStep, Deployment, DeploymentSpec, Pause, Pin, Strategy

GOES, DONE, CRASHES = Progress(False, "1 of 2"), Progress(True, ""), Progress(False, "", "crashes")
CANARY = Strategy("canary", steps=(CanaryStep(25, 0.0), CanaryStep(50, 0.0)), analysis=Analysis())
WARM = Strategy(keep_warm_s=60)
WATCHED = Strategy(analysis=Analysis(), keep_warm_s=60)
NOW = Moment(1000.0, GOOD)


def found(pin: Pin | None = V2, wish: str = "wish", rollout: str = "now", progress: Progress = GOES) -> Found:
    return Found(pin, wish, rollout, 1, progress)


@pytest.mark.parametrize(
    ("deployment", "there", "steps"),
    [
        (serving(V1, V2), {}, [Apply("1")]),
        (serving(V1, V2), {"1": found(V1, "old")}, [Apply("1")]),
        (serving(V1, V2), {"2": found(V1, "old")}, [Apply("2")]),
        (serving(V1, V2), {"1": found(rollout="before", progress=DONE)}, [Apply("1")]),
        (serving(V1, V2), {"1": found()}, []),
        (serving(V1, V2), {"1": found(progress=DONE)}, [Finish()]),
        (serving(V1, V2), {"1": found(progress=CRASHES)}, [Fail("crashes")]),
        (serving(V1), {"1": found(V1, rollout="before")}, []),
        (serving(V1), {"1": found(V1, "somebody's", "before")}, [Apply("1")]),
        (serving(V1), {"2": found(V2, "other", "before")}, [Apply("2")]),
        (serving(V1), {"1": found(None, "", ""), "2": found(V1, rollout="before")}, [Empty("1")]),
        (Deployment(rollout="now", outcome="running", serving=V1), {"1": found()}, [Remove()]),
        (Deployment(rollout="now", outcome="running", serving=V1), {}, [Finish()]),
        (Deployment(), {}, []),
    ],
)
def test_what_to_do_next(deployment: Deployment, there: dict[str, Found], steps: list[Step]) -> None:
    wanted = layout(deployment, there, NOW.now)
    wishes = {wanted.own: "wish"} if wanted else {}
    assert decide(deployment, there, wishes, wanted, NOW) == steps


def test_a_version_beside_what_serves_gets_the_other_slot() -> None:
    rollout = replace(asked(V1, V2, CANARY, replicas=4), serving_spec=DeploymentSpec(3))
    kept = Want(V1, DeploymentSpec(3))
    assert layout(rollout, {"1": found(V1)}, 0) == Layout("2", Want(V2, rollout.spec, 1), {"1": kept})
    assert layout(rollout, {"2": found(V1)}, 0) == Layout("1", Want(V2, rollout.spec, 1), {"2": kept})
    assert layout(rollout, {}, 0) == Layout("1", Want(V2, rollout.spec, 1), {"2": kept})  # somebody deleted it


def test_going_back_takes_the_slot_that_is_kept_warm() -> None:
    kept = replace(serving(V2), switched=1000.0, replaced=V1, spec=DeploymentSpec(2, strategy=WARM))
    there = {"1": found(V1), "2": found(V2)}
    assert layout(kept, there, 1059) == Layout("2", Want(V2, kept.spec), {"1": None})
    assert layout(kept, there, 1061) == Layout("2", Want(V2, kept.spec), {})
    back = kept.ask(V1, spec=replace(kept.spec, strategy=Strategy()))
    seen = layout(back, there, 1061)
    assert seen and (seen.own, *seen.beside) == ("1", "2")


def test_beside_many_replicas_under_load_there_are_as_many_of_the_new_version() -> None:
    rollout = asked(V1, V2, replace(CANARY, steps=(CanaryStep(50),)), replicas=2, max_replicas=8)
    busy = {"1": replace(found(V1), replicas=6)}
    wanted = layout(rollout, busy, 0)
    assert wanted and wanted.want.replicas == 3
    wanted = layout(rollout.advanced(), {"1": replace(found(V1), replicas=12), "2": found(V2)}, 0)
    assert wanted and wanted.want.replicas == 8


def test_a_pause_stops_the_cluster_where_it_replaces_pods_itself() -> None:
    rollout = paused(serving(V1, V2))
    wanted = layout(rollout, {"1": found()}, 0)
    assert wanted and wanted.want.paused
    assert decide(rollout, {"1": found(progress=DONE)}, {"1": "wish"}, wanted, NOW) == []
    beside = layout(paused(asked(V1, V2, CANARY)), {"1": found(V1)}, 0)
    assert beside and not beside.want.paused


def test_what_crashes_while_the_old_version_is_kept_goes_back() -> None:
    kept = replace(serving(V2), switched=1000.0, replaced=V1, spec=DeploymentSpec(2, strategy=WARM))
    there = {"1": found(V1), "2": found(V2, rollout="before", progress=CRASHES)}
    assert decide(kept, there, {"2": "wish"}, layout(kept, there, 1059), NOW) == [Fail("crashes")]
    assert decide(kept, there, {"2": "wish"}, layout(kept, there, 1061), NOW) == [Empty("1")]


def asked(
    serves: Pin, target: Pin, strategy: Strategy, replicas: int = 2, max_replicas: int | None = None
) -> Deployment:
    """A rollout of that strategy that has just begun."""
    spec = DeploymentSpec(replicas, max_replicas=max_replicas)
    return serving(serves, target).ask(target, spec=replace(spec, strategy=strategy))


def paused(deployment: Deployment) -> Deployment:
    return deployment.paused(Pause("asked", "", "anna", 0.0))


class Cluster:
    """Two slots, each with the version that it was told to run and its ready pods; told something else, it has new pods
    a round later."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment, self.slots, self.told, self.now = deployment, dict[str, Found](), dict[str, Want](), 0.0
        self.removed: list[Pin | None] = []

    def round(self, verdict: Verdict = GOOD) -> list[Step]:
        self.now += 1
        wanted = layout(self.deployment, self.slots, self.now)
        wants = {**wanted.beside, wanted.own: wanted.want} if wanted else {}
        wishes = {slot: repr(want) for slot, want in wants.items() if want}
        steps = list(decide(self.deployment, self.slots, wishes, wanted, Moment(self.now, verdict)))
        self.slots = {slot: replace(each, progress=DONE) for slot, each in self.slots.items()}
        for step in steps:
            self._do(step, wishes, wants)
        return steps

    def until_settled(self, verdict: Verdict = GOOD) -> None:
        for _ in range(100):
            self.round(verdict)
            if self.deployment.outcome != "running":
                return
        pytest.fail(f"it did not end: {self.deployment}")

    def _do(self, step: Step, wishes: dict[str, str], wants: dict[str, Want | None]) -> None:
        match step:
            case Apply(slot):
                want = wants[slot]
                assert want
                count = want.replicas or want.spec.replicas
                self.slots[slot] = Found(want.pin, wishes[slot], self.deployment.rollout, count, GOES)
            case Empty(slot):
                self.removed.append(self.slots.pop(slot).pin)
            case Remove():
                self.slots.clear()
            case _:
                self._record(step)

    def _record(self, step: Recorded) -> None:
        self.deployment = outcome(step, self.deployment, at=self.now, by="test").new


@pytest.mark.parametrize("strategy", [CANARY, WARM, WATCHED])
@pytest.mark.parametrize("slot", ["1", "2"])
def test_what_serves_stays_untouched_until_the_new_version_serves(strategy: Strategy, slot: str) -> None:
    cluster = Cluster(replace(serving(V1), spec=DeploymentSpec(2), serving_spec=DeploymentSpec(2)))
    cluster.slots[slot] = Found(V1, repr(Want(V1, DeploymentSpec(2))), "before", 2, DONE)
    before = cluster.slots[slot]
    cluster.deployment = cluster.deployment.ask(V2, spec=DeploymentSpec(2, strategy=strategy))

    while cluster.deployment.outcome == "running":
        cluster.round()
        assert cluster.slots[slot] == before
    other = next(each for each in cluster.slots if each != slot)
    assert (cluster.slots[other].pin, cluster.slots[other].replicas) == (V2, 2)
    cluster.now += strategy.keep_warm_s
    cluster.round()
    assert [*cluster.slots] == [other]


@pytest.mark.parametrize("strategy", [CANARY, WATCHED])
def test_what_is_worse_is_taken_away_and_what_serves_is_told_nothing_new(strategy: Strategy) -> None:
    cluster = Cluster(replace(serving(V1), spec=DeploymentSpec(2), serving_spec=DeploymentSpec(2)))
    cluster.round()
    cluster.deployment = cluster.deployment.ask(V2, spec=DeploymentSpec(2, strategy=strategy))
    cluster.until_settled(Verdict("bad", "it is slow"))
    assert (cluster.deployment.outcome, cluster.deployment.serving) == ("failed", V1)
    cluster.round()
    assert cluster.removed == [V2]
    assert {slot: each.pin for slot, each in cluster.slots.items()} == {"1": V1}


def test_one_rollout_after_the_other_and_back() -> None:
    cluster = Cluster(Deployment().ask(V1, spec=DeploymentSpec(2)))
    cluster.until_settled()
    for target, strategy in ((V2, CANARY), (V3, Strategy()), (V1, WATCHED), (V3, Strategy()), (V2, WARM), (V1, CANARY)):
        cluster.deployment = cluster.deployment.ask(target, spec=DeploymentSpec(2, strategy=strategy))
        cluster.until_settled()
        assert cluster.deployment.serving == target
        assert target in {each.pin for each in cluster.slots.values()}
    cluster.deployment = cluster.deployment.ask(None)
    cluster.until_settled()
    assert cluster.slots == {}
