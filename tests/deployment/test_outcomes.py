"""What is written into the journal of a rollout's steps, and what `status` says of them."""

from __future__ import annotations

import pytest

from modelyard.deployment.canary import Advance, Hold, Reach
from modelyard.deployment.outcomes import Recorded, outcome
from modelyard.deployment.rollout import describe
from modelyard.repository import Analysis, CanaryStep, Deployment, DeploymentSpec, Expected, Strategy

from .builders import V1, V2

GOLDEN = Analysis(golden=(Expected({}, {}),))


def told(strategy: Strategy, *moves: Recorded) -> list[str]:
    """What is said of a rollout before its first move, then why each was made and what is said after it."""
    now = Deployment().ask(V1).finished().ask(V2, spec=DeploymentSpec(strategy=strategy))
    words = [describe(now)]
    for move in moves:
        found = outcome(move, now, at=5.0, by="reconciler")
        now = found.new
        words += [found.why, describe(now)]
    return words


@pytest.mark.parametrize("analysis", [None, GOLDEN])
def test_steps_are_counted_as_they_were_asked_for(analysis: Analysis | None) -> None:
    canary = Strategy("canary", steps=(CanaryStep(5, 60), CanaryStep(50, 30)), analysis=analysis)
    golden = [
        "v1.2.0 is to be asked the golden requests",
        "v1.2.0 is asked the golden requests",
        "v1.2.0 is asked the golden requests",
        "the step of the golden requests is passed; next 5 %",
    ]
    moves: list[Recorded] = [Reach(), Advance()] * (3 if analysis else 2)
    assert told(canary, *moves) == [
        *(golden if analysis else ()),
        "step 1 of 2: v1.2.0 is to get 5 % of the requests",
        "v1.2.0 gets 5 % of the requests, for 60 s",
        "step 1 of 2: v1.2.0 gets 5 % of the requests",
        "step 1 of 2 (5 %) is passed; next 50 %",
        "step 2 of 2: v1.2.0 is to get 50 % of the requests",
        "v1.2.0 gets 50 % of the requests, for 30 s",
        "step 2 of 2: v1.2.0 gets 50 % of the requests",
        "step 2 of 2 (50 %) is passed; v1.2.0 takes over",
        "v1.2.0 takes over",
    ]


def test_a_rolling_update_is_asked_the_golden_requests_before_it_is_watched() -> None:
    rolling = Strategy(analysis=GOLDEN, keep_warm_s=60)
    assert told(rolling, Reach(), Advance(), Reach())[::2] == [
        "v1.2.0 is to be asked the golden requests",
        "v1.2.0 is asked the golden requests",
        "v1.2.0 takes over",
        "v1.2.0 is watched",
    ]


def test_a_rollout_that_waits_says_where() -> None:
    canary = Strategy("canary", steps=(CanaryStep(5, 60),), analysis=GOLDEN)
    assert told(canary, Reach(), Hold("nobody answers"))[-2:] == [
        "the step of the golden requests is paused: nobody answers",
        "v1.2.0 is asked the golden requests; paused: nobody answers",
    ]
    assert told(canary, Reach(), Advance(), Reach(), Hold("nobody asks"))[-2] == (
        "step 1 of 1 (5 %) is paused: nobody asks"
    )
