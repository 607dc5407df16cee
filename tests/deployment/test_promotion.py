"""Options, configuration and strategy; and what may be done with a rollout under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from modelyard.configuration.sections import Rollout, RolloutAnalysis
from modelyard.deployment import promotion
from modelyard.deployment.promotion import RolloutOptions, parse_metric, parse_steps, plain
from modelyard.deployment.suite import Golden, Suite
from modelyard.errors import Conflict, InvalidInput
from modelyard.repository import Analysis, CanaryStep, CustomMetric, Deployment, DeploymentSpec, Strategy

from .builders import V1, V2, serving

CONFIGURED = {
    "*": Rollout(keep_warm_s=30, surge=2),
    "digit": Rollout(strategy="canary", steps="10,50:resume", bounds=RolloutAnalysis(min_requests=20)),
    "word": Rollout(metrics=("quality.py:loss:lower",)),
}
ANALYSIS = Analysis(min_requests=20)
STEPS = (CanaryStep(10, 60), CanaryStep(50))

CASES: dict[str, tuple[dict[str, Any], str, Strategy]] = {
    "nothing said, nothing configured": ({}, "none", Strategy()),
    "configured for all": ({}, "letter", Strategy(surge=2, keep_warm_s=30)),
    "configured for the model": ({}, "digit", Strategy("canary", steps=STEPS, analysis=ANALYSIS)),
    "said": ({"strategy": "rolling", "surge": 3}, "digit", Strategy(surge=3)),
    "steps make a canary": (
        {"steps": "5,20:30", "step_pause_s": 1.5, "analysis": False},
        "none",
        Strategy("canary", steps=(CanaryStep(5, 1.5), CanaryStep(20, 30))),
    ),
    "no analysis": ({"analysis": False}, "digit", Strategy("canary", steps=STEPS)),
    "an analysed rolling update keeps the old ones": (
        {"analysis": True},
        "none",
        Strategy(analysis=Analysis(), keep_warm_s=60),
    ),
    "a metric makes an analysis": (
        {"metrics": ("quality.py:loss:lower:0.02", "quality.py:accuracy:higher")},
        "none",
        Strategy(
            analysis=Analysis(
                metrics=(
                    CustomMetric("quality.py:loss", "lower", 0.02),
                    CustomMetric("quality.py:accuracy", "higher"),
                )
            ),
            keep_warm_s=60,
        ),
    ),
    "a configured metric counts where there is an analysis": ({"analysis": False}, "word", Strategy()),
    "a configured metric": (
        {"steps": "10"},
        "word",
        Strategy("canary", steps=STEPS[:1], analysis=Analysis(metrics=(CustomMetric("quality.py:loss", "lower"),))),
    ),
    "without room": ({"surge": 0, "unavailable": 1}, "none", Strategy(surge=0, unavailable=1)),
}


@pytest.mark.parametrize("case", CASES)
def test_strategy(case: str) -> None:
    options, model, expected = CASES[case]
    configured = {} if model == "none" else CONFIGURED
    assert promotion.strategy(RolloutOptions(**options), configured, model) == expected


BAD: list[tuple[dict[str, Any], str]] = [
    ({"surge": 0}, "nothing can be replaced; give --surge 1 or --unavailable 1"),
    ({"strategy": "rolling", "steps": "5"}, "a rolling update has no steps"),
    ({"steps": "5,x"}, "'x' is no step; write 5, 5:60"),
    ({"steps": "5:later"}, "'5:later' is no step"),
    ({"steps": "50,5"}, "give growing percentages from 1 to 100"),
    ({"steps": "5,5"}, "give growing percentages"),
    ({"steps": "0,5"}, "give growing percentages"),
    ({"steps": "5,101"}, "give growing percentages"),
    (
        {"metrics": ("quality.py:loss:lower",), "analysis": False},
        "nothing is measured; leave --no-analysis or --metric",
    ),
    *(
        ({"metrics": (text,)}, "is no metric; write FILE.py:FUNCTION:lower or :higher, and how much worse")
        for text in ("", "quality:loss:lower", "quality.py:loss", "quality.py:loss:less", "quality.py:loss:lower:-1")
    ),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        promotion.strategy(RolloutOptions(**options), {}, "digit")


def test_steps_with_and_without_times_of_their_own() -> None:
    assert parse_steps("1, 5:0.5,100:resume", 60) == (CanaryStep(1, 60), CanaryStep(5, 0.5), CanaryStep(100))


def test_metrics_with_and_without_a_tolerance() -> None:
    assert parse_metric("teams/ads/quality.py:loss:lower:1e-3") == CustomMetric(
        "teams/ads/quality.py:loss", "lower", 1e-3
    )
    assert parse_metric("quality.py:f1:higher:2.").tolerance == 2.0


def test_a_suites_golden_requests_are_part_of_the_analysis() -> None:
    suite = Suite(golden=(Golden(request={"inputs": []}, expect={"outputs": []}, tolerance=0.5),))
    found = promotion.strategy(RolloutOptions(steps="5"), {}, "digit", suite)
    assert found.analysis
    assert [(dict(g.request), dict(g.answer), g.tolerance) for g in found.analysis.golden] == [
        ({"inputs": []}, {"outputs": []}, 0.5)
    ]
    large = Suite(golden=(Golden(request={"inputs": ["x" * 300_000]}, expect={}),))
    with pytest.raises(InvalidInput, match="too large to be asked during a rollout"):
        promotion.strategy(RolloutOptions(steps="5"), {}, "digit", large)


def test_a_rollout_with_nothing_to_compare_says_so() -> None:
    canary, watched = (
        DeploymentSpec(strategy=Strategy("canary", steps=STEPS)),
        DeploymentSpec(strategy=Strategy(analysis=ANALYSIS)),
    )
    pooled = DeploymentSpec(min_replicas=0, strategy=canary.strategy)
    so = "so this is a plain rollout, without steps or analysis"
    for spec in (canary, watched):
        assert plain(Deployment().ask(V1, spec=spec)) == f"nothing serves yet to compare v1.1.0 with, {so}"
        assert plain(serving(V1).ask(V1, spec=spec)) == f"v1.1.0 serves already, {so}"
        assert plain(serving(V1).ask(V2, spec=spec)) == ""
    assert plain(serving(V1).ask(V2, spec=pooled)) == f"what runs on demand is not compared, {so}"
    from_pool = Deployment().ask(V1, spec=DeploymentSpec(min_replicas=0)).finished()
    assert plain(from_pool.ask(V2, spec=canary)) == f"what runs on demand is not compared, {so}"
    assert plain(Deployment().ask(V1, spec=DeploymentSpec())) == ""
    assert plain(Deployment().ask(V1, spec=canary).finished()) == ""  # another system carries it out


def test_back_is_at_once_within_the_same_room() -> None:
    spec = DeploymentSpec(2, strategy=Strategy("canary", 0, 1, STEPS, ANALYSIS, 60))
    assert promotion.back(spec) == Strategy(surge=0, unavailable=1)


def rolling() -> Deployment:
    spec = DeploymentSpec(strategy=Strategy("canary", steps=STEPS))
    return Deployment().ask(V1).finished().ask(V2, spec=spec)


def test_pause_and_resume() -> None:
    paused = promotion.pause(rolling(), "digit", by="ann", why="", at=5.0)
    assert paused.progress.pause
    assert (paused.progress.pause.why, paused.progress.pause.at) == ("ann asked for it", 5.0)
    with pytest.raises(Conflict, match="is paused already: ann asked for it"):
        promotion.pause(paused, "digit", by="bob", why="", at=6.0)
    resumed = promotion.resume(paused, "digit")
    assert resumed == rolling_like(resumed)  # where it was; its step still takes its time
    with pytest.raises(Conflict, match="is not paused"):
        promotion.resume(resumed, "digit")


def rolling_like(now: Deployment) -> Deployment:
    return Deployment(**{name: getattr(now, name) for name in Deployment.__dataclass_fields__ if name != "progress"})


def test_abort_goes_back_to_what_serves() -> None:
    aborted = promotion.abort(rolling(), "digit", by="ann", why="enough")
    assert (aborted.serving, aborted.target, aborted.outcome) == (V1, V1, "failed")
    assert aborted.reason == "ann aborted it: enough"


def test_where_nothing_is_under_way_there_is_nothing_to_do() -> None:
    changes: list[Callable[[Deployment], Deployment]] = [
        lambda now: promotion.pause(now, "digit", by="ann", why="", at=0.0),
        lambda now: promotion.resume(now, "digit"),
        lambda now: promotion.abort(now, "digit", by="ann", why=""),
    ]
    for change in changes:
        with pytest.raises(Conflict, match="no rollout of digit is under way"):
            change(serving(V1))
