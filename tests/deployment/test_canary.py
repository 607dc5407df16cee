"""A canary's steps, and the plan in each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from modelyard.deployment.canary import GOOD, UNSEEN, Advance, Hold, Moment, Reach, Verdict, replicas, steps
from modelyard.deployment.outcomes import outcome
from modelyard.deployment.plan import Fail, Finish, Limits, Plan, Replica, Start, Stop, plan
from modelyard.repository import Analysis, CanaryStep, Deployment, DeploymentSpec, Expected, Pause, Progress, Strategy

from .builders import V1, V2, replica

LIMITS = Limits(ready_s=120, drain_s=60)
STEPS = (CanaryStep(10, 60), CanaryStep(50, 60))
CANARY = Strategy("canary", steps=STEPS)
JUDGED = replace(CANARY, analysis=Analysis(max_wait_s=100))
WATCHED = Strategy(analysis=Analysis(max_wait_s=100), keep_warm_s=60)
WARM = Strategy(keep_warm_s=60)
OLD = [replica("a", V1), replica("b", V1)]
NOW = Moment(1000.0, GOOD)
BAD = Verdict("bad", "it is slow")
ERROR = Verdict("error", "quality.py:loss gave nothing")
LITTLE = Verdict("too_little", "nobody asks")


def rolling(strategy: Strategy, progress: Progress | None = None, count: int = 2) -> Deployment:
    before = Deployment().ask(V1, spec=DeploymentSpec(count)).finished()
    asked = before.ask(V2, spec=DeploymentSpec(count, strategy=strategy))
    return replace(asked, progress=progress or Progress(), rollout="now")


def since(seconds: float, step: int = 0, **options: object) -> Progress:
    return Progress(step, NOW.now - seconds, **options)  # type: ignore[arg-type]


def back(strategy: Strategy) -> Deployment:
    return rolling(strategy).failed("it is slow")


ASKED, UNJUDGED = Pause("asked", "a look", "ann", 0.0), Pause("analysis", "nobody asks", "reconciler", 0.0)
NEW, OTHER = replica("c", V2, unrouted_s=0), replica("d", V2)
OUT = [replica("a", V1, unrouted_s=5.0), replica("b", V1, unrouted_s=5.0)]

CASES: dict[str, tuple[Deployment, Sequence[Replica], Moment, Plan]] = {
    "one replica carries a small share": (rolling(CANARY), OLD, NOW, Plan(frozenset("ab"), (Start(V2),), 0)),
    "it gets the share beside all old ones, which is recorded": (
        rolling(CANARY),
        [*OLD, NEW],
        NOW,
        Plan(frozenset("abc"), (Reach(),), 10),
    ),
    "the step takes its time": (rolling(CANARY, since(59)), [*OLD, NEW], NOW, Plan(frozenset("abc"), (), 10)),
    "then it is passed": (rolling(CANARY, since(60)), [*OLD, NEW], NOW, Plan(frozenset("abc"), (Advance(),), 10)),
    "if it is good": (rolling(JUDGED, since(60)), [*OLD, NEW], NOW, Plan(frozenset("abc"), (Advance(),), 10)),
    "bad ends it at once": (
        rolling(JUDGED, since(1)),
        [*OLD, NEW],
        Moment(1000.0, BAD),
        Plan(frozenset("abc"), (Fail("v1.2.0 is worse than v1.1.0: it is slow"),), 10),
    ),
    "what can't be judged is not left there": (
        rolling(JUDGED, since(1)),
        [*OLD, NEW],
        Moment(1000.0, ERROR),
        Plan(frozenset("abc"), (Fail("v1.2.0 can't be judged: quality.py:loss gave nothing"),), 10),
    ),
    "also while it is paused": (
        rolling(JUDGED, since(1, pause=ASKED)),
        [*OLD, NEW],
        Moment(1000.0, BAD),
        Plan(frozenset("abc"), (Fail("v1.2.0 is worse than v1.1.0: it is slow"),), 10),
    ),
    "too little is waited for": (
        rolling(JUDGED, since(159)),
        [*OLD, NEW],
        Moment(1000.0, LITTLE),
        Plan(frozenset("abc"), (), 10),
    ),
    "up to a limit": (
        rolling(JUDGED, since(160)),
        [*OLD, NEW],
        Moment(1000.0, LITTLE),
        Plan(frozenset("abc"), (Hold("after 160 s nobody asks"),), 10),
    ),
    "paused, it stays": (
        rolling(JUDGED, since(999, pause=UNJUDGED)),
        [*OLD, NEW],
        NOW,
        Plan(frozenset("abc"), (), 10),
    ),
    "resumed, it goes on without a verdict": (
        rolling(JUDGED, since(160, released=True)),
        [*OLD, NEW],
        Moment(1000.0, LITTLE),
        Plan(frozenset("abc"), (Advance(),), 10),
    ),
    "a larger share needs more replicas, and rises with them": (
        rolling(CANARY, Progress(1), 4),
        [*OLD, replica("e", V1), replica("f", V1), NEW],
        NOW,
        Plan(frozenset("abefc"), (Start(V2),), 25),
    ),
    "a new one that crashed takes its part of the share with it": (
        rolling(replace(CANARY, steps=(CanaryStep(80, 60),)), since(1), 4),
        [*OLD, replica("e", V1), replica("f", V1), OTHER, replica("g", V2, "exited", since_s=1)],
        NOW,
        Plan(frozenset("abefd"), (Start(V2), Start(V2), Start(V2)), 25),
    ),
    "an old one that crashed is replaced": (
        rolling(CANARY, since(1)),
        [replica("a", V1), replica("b", V1, "exited", since_s=1), OTHER],
        NOW,
        Plan(frozenset("ad"), (Start(V1),), 10),
    ),
    "after the last step replicas are replaced": (
        rolling(CANARY, Progress(2)),
        [*OLD, OTHER],
        NOW,
        Plan(frozenset("ad"), (), 50),
    ),
    "at the end it serves": (
        rolling(CANARY, Progress(2)),
        [OUT[0], OTHER, replica("e", V2)],
        NOW,
        Plan(frozenset("de"), (Stop("a"), Finish()), 100),
    ),
    "aborted: all requests go to the old ones, in the same table": (
        back(CANARY),
        [*OLD, OTHER],
        NOW,
        Plan(frozenset("ab"), ()),
    ),
    "a share of 100 % leaves the old ones ready": (
        rolling(replace(CANARY, steps=(CanaryStep(100, 60),)), since(1)),
        [*OUT, OTHER, replica("e", V2)],
        NOW,
        Plan(frozenset("de"), (), 100, standby=frozenset("ab")),
    ),
    "kept warm while others are replaced, beyond the surge": (
        rolling(WARM),
        [replica("a", V1), OUT[1], OTHER],
        NOW,
        Plan(frozenset("ad"), (Start(V2),), standby=frozenset("b")),
    ),
    "an analysed rolling update is watched when all is switched": (
        rolling(WATCHED),
        [*OUT, OTHER, replica("e", V2)],
        NOW,
        Plan(frozenset("de"), (Reach(),), standby=frozenset("ab")),
    ),
    "found good, it serves": (
        rolling(WATCHED, since(60)),
        [*OUT, OTHER, replica("e", V2)],
        NOW,
        Plan(frozenset("de"), (Finish(),), standby=frozenset("ab")),
    ),
    "found bad, it goes back": (
        rolling(WATCHED, since(3)),
        [*OUT, OTHER, replica("e", V2)],
        Moment(1000.0, BAD),
        Plan(frozenset("de"), (Fail("v1.2.0 is worse than v1.1.0: it is slow"),), standby=frozenset("ab")),
    ),
    "to old replicas that are ready": (
        back(WATCHED),
        [*OUT, OTHER, replica("e", V2)],
        NOW,
        Plan(frozenset("ab"), ()),
    ),
    "new ones that are more than a step wants go on until old ones are ready again": (
        rolling(CANARY),
        [OTHER, replica("e", V2)],
        NOW,
        Plan(frozenset("de"), (Start(V1), Reach()), 10),
    ),
    "then they go": (
        rolling(CANARY),
        [replica("a", V1), OTHER, replica("e", V2, since_s=1)],
        NOW,
        Plan(frozenset("ad"), (Reach(),), 10),
    ),
    "one fewer may answer when there is no room": (
        rolling(Strategy(surge=0, unavailable=1)),
        OLD,
        NOW,
        Plan(frozenset("a"), ()),
    ),
    "then there is room": (
        rolling(Strategy(surge=0, unavailable=1)),
        [replica("a", V1), replica("b", V1, "stopping")],
        NOW,
        Plan(frozenset("a"), (Start(V2),)),
    ),
    "a rolling update that is paused starts nothing more": (
        rolling(Strategy(), Progress(pause=ASKED)),
        [replica("a", V1), OTHER],
        NOW,
        Plan(frozenset("ad"), ()),
    ),
    "nor does it end": (
        rolling(Strategy(), Progress(pause=ASKED), 1),
        [OUT[0], OTHER],
        NOW,
        Plan(frozenset("d"), (Stop("a"),)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str) -> None:
    deployment, seen, moment, expected = CASES[case]
    assert plan(deployment, seen, LIMITS, moment) == expected


@pytest.mark.parametrize(("weight", "count", "needed"), [(0, 3, 1), (1, 3, 1), (33, 3, 1), (34, 3, 2), (100, 3, 3)])
def test_replicas_for_a_share(weight: int, count: int, needed: int) -> None:
    assert replicas(weight, count) == needed


def test_kept_warm_after_the_switch_for_so_long() -> None:
    done = rolling(WARM).finished(940.5)
    seen = [*OUT, OTHER, replica("e", V2)]
    assert plan(done, seen, LIMITS, Moment(1000.0)) == Plan(frozenset("de"), (), standby=frozenset("ab"))
    assert plan(done, seen, LIMITS, Moment(1000.5)) == Plan(frozenset("de"), (Stop("a"), Stop("b")))
    crashed = [*OUT, OTHER, replica("e", V2, "exited", since_s=1)]  # they are no stand-ins for what serves
    assert plan(done, crashed, LIMITS, Moment(1000.0)) == Plan(frozenset("d"), (Start(V2),), standby=frozenset("ab"))


def test_what_was_kept_warm_has_its_time_to_end_what_it_has() -> None:
    """The gateway may have sent it something until now."""
    done = rolling(WARM).finished(900.0)
    standing_by = [replace(each, standby=True) for each in OUT]
    assert plan(done, [*standing_by, OTHER, replica("e", V2)], LIMITS, NOW) == Plan(frozenset("de"), ())


def test_what_does_not_stay_up_while_the_old_ones_are_warm_goes_back() -> None:
    done = rolling(WARM).finished(940.5)
    crashed = [replica(name, V2, "exited", since_s=1, rollout=done.rollout, error="no memory") for name in "de"]
    seen = [*OUT, *crashed]
    [fail] = plan(done, seen, LIMITS, Moment(1000.0)).steps
    assert fail == Fail("v1.2.0 does not stay up: no memory")
    undone = outcome(fail, done, at=1000.0, by="tester").new
    assert (undone.serving, undone.target, undone.outcome, undone.earlier) == (V1, V1, "failed", ())
    assert plan(undone, seen, LIMITS, Moment(1000.0)) == Plan(frozenset("ab"), (Stop("d"), Stop("e")))
    assert Fail not in map(type, plan(done, seen, LIMITS, Moment(1000.5)).steps)  # now there is nothing to go back to
    assert Fail not in map(type, plan(done, crashed, LIMITS, Moment(1000.0)).steps)


def test_golden_requests_come_before_all_others() -> None:
    golden = Analysis(golden=(Expected({}, {}),))
    assert steps(rolling(replace(CANARY, analysis=golden))) == (UNSEEN, *STEPS)
    unseen = rolling(Strategy(analysis=golden, keep_warm_s=60))
    assert steps(unseen) == (UNSEEN, CanaryStep(100, 60))
    assert plan(unseen, [*OLD, NEW], LIMITS, NOW) == Plan(frozenset("abc"), (Reach(),), 0)
    assert steps(rolling(Strategy(surge=0, unavailable=1, analysis=golden))) == (CanaryStep(100, 0),)


def test_what_has_nothing_to_be_compared_with_has_no_steps() -> None:
    first = Deployment().ask(V1, spec=DeploymentSpec(strategy=CANARY))
    again = first.finished().ask(V1, spec=DeploymentSpec(3, strategy=CANARY))
    pooled = rolling(CANARY).finished().ask(V1, spec=DeploymentSpec(min_replicas=0, strategy=CANARY))
    assert [steps(each) for each in (first, again, pooled, back(CANARY))] == [()] * 4


def test_each_transition_says_what_it_is() -> None:
    at_first = rolling(replace(CANARY, steps=(CanaryStep(10), CanaryStep(50, 60))))
    reached = outcome(Reach(), at_first, at=1.0, by="reconciler")
    assert reached.why == "v1.2.0 gets 10 % of the requests, until it is resumed"
    assert reached.new.progress == Progress(
        0, 1.0, Pause("step", "the step 10 % waits to be resumed", "reconciler", 1.0)
    )
    passed = outcome(Advance(), reached.new.resumed(), at=2.0, by="reconciler")
    assert (passed.why, passed.new.progress) == ("step 1 of 2 (10 %) is passed; next 50 %", Progress(1))
    held = outcome(Hold("nobody asks"), passed.new.reached(3.0), at=9.0, by="reconciler")
    assert held.why == "step 2 of 2 (50 %) is paused: nobody asks"
    assert held.new.progress.pause == Pause("analysis", "nobody asks", "reconciler", 9.0)
    assert held.new.resumed().progress.released
    last = outcome(Advance(), held.new, at=10.0, by="reconciler")
    assert last.why == "step 2 of 2 (50 %) is passed; v1.2.0 takes over"
    done = outcome(Finish(), last.new, at=11.0, by="reconciler")
    assert (done.why, done.new.switched, done.new.replaced) == ("v1.2.0 serves", 11.0, V1)
    assert done(last.new) == done.new
    assert done(held.new) is None  # it has changed in between
