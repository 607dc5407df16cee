"""What is told before a rollout, and what is refused then."""

from __future__ import annotations

import pytest

from modelyard.deployment.preflight import Memory, Room, check
from modelyard.deployment.preview import preview
from modelyard.errors import Refused
from modelyard.repository import Analysis, CanaryStep, CustomMetric, Deployment, DeploymentSpec, Expected, Strategy
from modelyard.repository.environments import Resources

from .builders import V1, V2

GIB = 2**30
BASIS = "as a running replica does"


def asked(strategy: Strategy, replicas: int = 2) -> Deployment:
    before = Deployment().ask(V1, spec=DeploymentSpec(replicas)).finished()
    return before.ask(V2, spec=DeploymentSpec(replicas, strategy=strategy))


def test_a_rolling_update_in_words() -> None:
    seen = preview(asked(Strategy()))
    assert seen.steps == (
        "2 of v1.1.0 get all requests",
        "start a replica of v1.2.0",
        "requests go to 1 of v1.1.0 and 1 of v1.2.0",
        "stop a replica of v1.1.0, when it has finished its requests",
        "start a replica of v1.2.0",
        "2 of v1.2.0 get all requests",
        "stop a replica of v1.1.0, when it has finished its requests",
        "v1.2.0 serves",
    )
    assert (seen.before, seen.processes, seen.least) == (2, 3, 2)


def test_a_canary_in_words() -> None:
    analysis = Analysis(golden=(Expected({}, {}),))
    seen = preview(asked(Strategy("canary", steps=(CanaryStep(5, 60), CanaryStep(50)), analysis=analysis), 1))
    assert seen.steps == (
        "1 of v1.1.0 gets all requests",
        "start a replica of v1.2.0",
        "ask v1.2.0 the golden requests; go back if an answer is wrong",
        "v1.2.0 gets 5 % of the requests",
        "wait 60 s; go on if v1.2.0 is no worse than v1.1.0, else go back",
        "v1.2.0 gets 50 % of the requests",
        "wait until somebody resumes; go back before if v1.2.0 is found to be worse than v1.1.0",
        "1 of v1.2.0 gets all requests",
        "stop a replica of v1.1.0, when it has finished its requests",
        "v1.2.0 serves",
    )


def test_a_share_is_said_once_though_replicas_are_replaced_under_it() -> None:
    seen = preview(asked(Strategy("canary", steps=(CanaryStep(50, 60),))))
    assert seen.steps == (
        "2 of v1.1.0 get all requests",
        "start a replica of v1.2.0",
        "v1.2.0 gets 50 % of the requests",
        "wait 60 s",
        "stop a replica of v1.1.0, when it has finished its requests",
        "start a replica of v1.2.0",
        "2 of v1.2.0 get all requests",
        "stop a replica of v1.1.0, when it has finished its requests",
        "v1.2.0 serves",
    )


def test_metrics_are_named() -> None:
    analysis = Analysis(metrics=(CustomMetric("quality.py:loss", "lower"),))
    seen = preview(asked(Strategy("canary", steps=(CanaryStep(5, 60),), analysis=analysis)))
    assert "wait 60 s; go on if v1.2.0 is no worse than v1.1.0, also by quality.py:loss, else go back" in seen.steps


def test_replicas_kept_warm_count() -> None:
    seen = preview(asked(Strategy(keep_warm_s=30)))
    assert (seen.processes, seen.least) == (4, 2)
    assert seen.steps[-3:] == (
        "v1.2.0 serves",
        "keep the replicas of v1.1.0 ready for 30 s",
        "stop a replica of v1.1.0, when it has finished its requests (2 times)",
    )


def test_without_a_surge_fewer_answer() -> None:
    assert preview(asked(Strategy(surge=0, unavailable=1))).least == 1
    assert preview(asked(Strategy(surge=0, unavailable=1), 1)).least == 0


def test_a_first_deployment_and_one_on_demand() -> None:
    first = preview(Deployment().ask(V1, spec=DeploymentSpec(2)))
    assert first.steps == ("start a replica of v1.1.0 (2 times)", "2 of v1.1.0 get all requests", "v1.1.0 serves")
    pooled = DeploymentSpec(min_replicas=0)
    assert "load v1.2.0 in the process for models on demand" in preview(asked(Strategy()).ask(V2, spec=pooled)).steps


def room(available: float, ports: int = 100, gpu: float | None = None) -> Room:
    """GiB of which a replica takes one, and of the GPU's."""
    memory, there = (Memory(int(each * GIB), GIB, BASIS) for each in (available, gpu or 0))
    return Room(memory, ports, None if gpu is None else there)


def test_what_there_is_room_for() -> None:
    assert check("digit", asked(Strategy()), room(1.0)).processes == 3
    assert check("digit", asked(Strategy(surge=0, unavailable=1)), room(0, gpu=0)).processes == 2
    assert check("digit", asked(Strategy()), room(1.0, gpu=1.0)).processes == 3


@pytest.mark.parametrize(
    ("strategy", "replicas", "there", "message"),
    [
        (
            Strategy(),
            1,
            room(0.5),
            r"digit needs one more replica for a while, which takes 1.0 GiB \(as a running replica does\), and 512 MiB "
            r"of memory are free; .* use --strategy rolling --surge 0 --unavailable 1 --keep-warm 0 \(then nobody",
        ),
        (Strategy(), 3, room(0.5), r"2 of 3 replicas answer meanwhile\)"),
        (Strategy(keep_warm_s=60), 2, room(1.5), "digit needs 2 more replicas for a while, which takes 2.0 GiB"),
        (Strategy("canary", steps=(CanaryStep(100, 1),)), 2, room(1.5), "needs 2 more replicas"),
        (Strategy(), 2, room(9, ports=0), "there are ports for 0"),
        (
            Strategy(),
            1,
            room(9, gpu=0.25),
            r"which takes 1.0 GiB \(as a running replica does\), and 256 MiB of GPU memory are free; "
            r"stop something, .* --surge 0 .* \(then nobody answers until the new version is ready\)$",
        ),
    ],
)
def test_what_there_is_no_room_for(strategy: Strategy, replicas: int, there: Room, message: str) -> None:
    with pytest.raises(Refused, match=message):
        check("digit", asked(strategy, replicas), there)


def test_replicas_that_would_be_ended_at_once_are_not_begun() -> None:
    tight, enough = (DeploymentSpec(resources=Resources(memory=limit)) for limit in ("900Mi", "1Gi"))
    with pytest.raises(Refused, match=r"a replica of digit takes 1.0 GiB of memory, and .* would be 900Mi"):
        check("digit", Deployment().ask(V1, spec=tight), room(9))
    assert check("digit", Deployment().ask(V1, spec=enough), room(9)).processes == 1
    estimated = Room(Memory(9 * GIB, GIB, "by the size of its files"), 100)
    assert check("digit", Deployment().ask(V1, spec=tight), estimated).processes == 1


def test_a_first_deployment_has_no_way_around() -> None:
    with pytest.raises(Refused, match=r"; stop something, or take fewer --replicas$"):
        check("digit", Deployment().ask(V1, spec=DeploymentSpec(2)), room(1))
