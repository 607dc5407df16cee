from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from modelyard.deployment.analyst import RolloutAnalyst, golden_requests, window
from modelyard.deployment.canary import NOT_JUDGED, Verdict
from modelyard.deployment.client import ModelClient
from modelyard.deployment.measuring import Observed
from modelyard.errors import InvalidInput, ModelyardError, StoreError, Unavailable
from modelyard.gateway.statistics import Histogram, Served, Statistics
from modelyard.refs import ModelRef
from modelyard.repository import Analysis, CanaryStep, CustomMetric, Deployment, DeploymentSpec, Expected, Strategy

from .builders import V1, V2

NEW, OLD = (Served("digit", str(pin), "production") for pin in (V2, V1))
ANALYSIS = Analysis(min_requests=100, interval_s=1)
REF, OLD_REF = (ModelRef("digit", pin.version, digest=pin.digest) for pin in (V2, V1))
LOSS, RECALL = CustomMetric("quality.py:loss", "lower", 0.1), CustomMetric("quality.py:recall", "higher")


class Direct(Executor):
    """Works at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **options))
        except ModelyardError as error:
            future.set_exception(error)
        return future


class Scene:
    """A rollout from V1 to V2, and what the gateway has counted; time goes in seconds."""

    def __init__(self, strategy: Strategy) -> None:
        self.counted = Statistics()
        self.wrong = ""
        self.asked = 0
        self.values: dict[CustomMetric, tuple[float, float] | ModelyardError] = {}
        self.measured: list[tuple[CustomMetric, Observed, Observed]] = []
        self.now = 0.0
        before = Deployment().ask(V1).finished()
        self.deployment = before.ask(V2, spec=DeploymentSpec(strategy=strategy))
        self.analyst = self.another()

    def another(self) -> RolloutAnalyst:
        return RolloutAnalyst(lambda: self.counted, self.ask, self.measure, Direct())

    def measure(self, metric: CustomMetric, new: Observed, old: Observed) -> tuple[float, float]:
        self.measured.append((metric, new, old))
        found = self.values[metric]
        if isinstance(found, ModelyardError):
            raise found
        return found

    def ask(self, ref: ModelRef, requests: Sequence[Expected]) -> str:
        assert (ref, len(requests)) == (REF, 1)
        self.asked += 1
        if self.wrong == "away":
            raise Unavailable("the gateway does not answer")
        return self.wrong

    def serve(self, whose: Served, requests: int, *, failures: int = 0, seconds: float = 0.004) -> None:
        self.counted.requests[whose, 200] += requests - failures
        self.counted.requests[whose, 500] += failures
        self.counted.failures[whose, "engine_error"] += failures
        histogram = self.counted.durations.setdefault(whose, Histogram())
        for end in (0.001, 0.005, 0.05, 0.5, math.inf):
            histogram.buckets[str(end)] += requests if seconds <= end else 0

    def look(self) -> Verdict:
        """The verdict after another look: one call begins it, the next one has it."""
        self.now += 1.5
        self.analyst.verdict("production", "digit", self.deployment, self.now)
        return self.analyst.verdict("production", "digit", self.deployment, self.now)

    def reach(self) -> None:
        self.deployment = self.deployment.reached(self.now)
        assert self.look().kind == "too_little"


def canary(**options: Any) -> Strategy:
    return Strategy("canary", steps=(CanaryStep(10, 60), CanaryStep(50, 60)), analysis=replace(ANALYSIS, **options))


def test_a_step_is_judged_by_what_came_since_it_began() -> None:
    scene = Scene(canary())
    scene.serve(NEW, 500, failures=500)  # of an earlier rollout
    scene.serve(OLD, 5000)
    scene.reach()
    assert scene.look() == Verdict("too_little", "the new version has had 0 of the 100 requests that it takes")
    scene.serve(NEW, 120)
    scene.serve(OLD, 1000)
    assert scene.look().kind == "good"
    scene.deployment = scene.deployment.advanced()
    scene.reach()
    assert scene.look().kind == "too_little"
    scene.serve(OLD, 120)
    scene.serve(NEW, 120, failures=60)
    verdict = scene.look()
    assert verdict.kind == "bad"
    assert verdict.reason.startswith("50.0 % of its 120 requests failed")


def test_a_slow_version_is_bad() -> None:
    scene = Scene(canary())
    scene.reach()
    scene.serve(OLD, 1000)
    scene.serve(NEW, 100, seconds=0.3)
    assert "percentile of latency is above 50 ms" in scene.look().reason


@pytest.mark.parametrize("restarted", ["gateway", "reconciler"])
def test_after_a_restart_the_window_begins_anew(restarted: str) -> None:
    scene = Scene(canary())
    scene.serve(NEW, 80)
    scene.reach()
    scene.serve(OLD, 90)
    scene.serve(NEW, 90)
    scene.look()
    if restarted == "gateway":
        scene.counted = Statistics()
    else:
        scene.analyst = scene.another()
    assert scene.look().kind == "too_little"
    scene.look()
    for whose in (OLD, NEW):
        scene.serve(whose, 100)
    assert scene.look().kind == "good"


def test_a_rolling_update_is_held_against_what_the_old_version_did_before() -> None:
    scene = Scene(Strategy(analysis=ANALYSIS, keep_warm_s=60))
    scene.serve(OLD, 1000, failures=1000)  # long ago
    scene.look()  # the rollout is seen
    scene.serve(OLD, 200)
    scene.reach()
    scene.serve(NEW, 200, failures=40)
    assert scene.look().kind == "bad"


def measured(**values: tuple[float, float] | ModelyardError) -> Scene:
    """A canary with the two metrics, whose versions have had enough requests."""
    scene = Scene(canary(metrics=(LOSS, RECALL)))
    scene.values = {LOSS: (0.3, 0.25), RECALL: (0.9, 0.9)}
    scene.values |= {{"loss": LOSS, "recall": RECALL}[name]: value for name, value in values.items()}
    scene.now = 1000.0
    scene.reach()
    for whose in (NEW, OLD):
        scene.serve(whose, 200)
    return scene


def test_a_metric_is_taken_of_both_versions_in_the_same_time() -> None:
    scene = measured()
    assert scene.look().kind == "good"
    new, old = Observed(REF, 1000.0, scene.now), Observed(OLD_REF, 1000.0, scene.now)
    assert scene.measured == [(LOSS, new, old), (RECALL, new, old)]


def test_a_version_that_is_worse_by_a_metric_is_bad() -> None:
    verdict = measured(recall=(0.85, 0.9)).look()
    assert verdict == Verdict(
        "bad", "its quality.py:recall is 0.85, the old version's 0.9; higher is better, and 0 worse is allowed"
    )
    assert measured(loss=(0.36, 0.25)).look().kind == "bad"
    assert measured(loss=(math.nan, 0.25), recall=(0.85, 0.9)).look().kind == "bad"
    assert measured(loss=(0.1, 0.25), recall=(1.0, 0.9)).look().kind == "good"


def test_a_metric_passes_nothing_that_the_counts_do_not() -> None:
    scene = Scene(canary(metrics=(LOSS,)))
    scene.values[LOSS] = (9.0, 0.0)
    scene.reach()
    scene.serve(OLD, 1000)
    scene.serve(NEW, 50)
    assert scene.look().reason == "the new version has had 50 of the 100 requests that it takes"
    assert scene.measured == []  # of so few requests it would say nothing
    scene.serve(NEW, 50, failures=3)
    scene.values[LOSS] = (0.0, 0.0)
    assert scene.look().reason.endswith("which may be chance")
    assert len(scene.measured) == 1


def test_a_metric_without_a_value_is_no_verdict() -> None:
    verdict = measured(loss=(math.nan, 0.25)).look()
    assert verdict == Verdict("too_little", "quality.py:loss has no value yet: it is nan, of the old version 0.25")
    assert measured(loss=(0.1, math.inf)).look().kind == "too_little"


def test_too_many_errors_in_a_row_end_it() -> None:
    scene = measured(loss=InvalidInput("the metric quality.py:loss failed: KeyError: 'x'"))
    for number in range(1, 5):
        assert scene.look() == Verdict(
            "too_little", f"the metric quality.py:loss failed: KeyError: 'x' (error {number} of 5 in a row)"
        )
    scene.values[LOSS] = (0.3, 0.25)
    assert scene.look().kind == "good"
    scene.values[LOSS] = Unavailable("the metric quality.py:loss gave nothing within 30 s")
    assert [scene.look().kind for _ in range(5)] == [*["too_little"] * 4, "error"]


def test_a_slow_metric_holds_up_nobody() -> None:
    scene, over = measured(), threading.Event()
    scene.analyst.measure = lambda *_: (0.0, 0.0) if over.wait(60) else (9.0, 0.0)
    with ThreadPoolExecutor(1) as executor:
        scene.analyst.executor = executor
        assert scene.look() == NOT_JUDGED
        over.set()
    assert scene.analyst.verdict("production", "digit", scene.deployment, scene.now).kind == "good"


def test_a_store_that_is_away_is_no_error_of_a_metric() -> None:
    scene = measured(loss=StoreError("the store does not answer"))
    assert {scene.look().kind for _ in range(9)} == {"too_little"}


def test_a_rolling_updates_metric_is_that_of_as_much_time_before() -> None:
    scene = Scene(Strategy(analysis=replace(ANALYSIS, metrics=(LOSS,)), keep_warm_s=60))
    scene.values[LOSS] = (0.0, 0.0)
    scene.look()
    scene.serve(OLD, 200)
    scene.now = 1000.0
    scene.reach()
    scene.serve(NEW, 200)
    assert scene.look().kind == "good"
    took = scene.now - 1000.0
    assert scene.measured == [(LOSS, Observed(REF, 1000.0, scene.now), Observed(OLD_REF, 1000.0 - took, 1000.0))]


def test_golden_requests_are_asked_before_anything_else() -> None:
    scene = Scene(canary(golden=(Expected({"inputs": []}, {"outputs": []}),)))
    scene.look()
    assert scene.asked == 0  # no replica is there yet
    scene.deployment = scene.deployment.reached(scene.now)
    assert scene.look().kind == "good"  # without any other request
    scene.deployment = scene.deployment.advanced()
    scene.reach()
    assert scene.asked == 1
    other = Scene(canary(golden=(Expected({"inputs": []}, {"outputs": []}),)))
    other.deployment, other.wrong = other.deployment.reached(0.0), "golden request 1: it is 4"
    assert other.look() == Verdict("bad", other.wrong)


def test_what_can_not_be_judged_is_no_verdict() -> None:
    scene = Scene(canary(golden=(Expected({}, {}),)))
    scene.wrong = "away"
    scene.deployment = scene.deployment.reached(0.0)
    assert scene.look() == Verdict("too_little", "it can't be judged: the gateway does not answer")
    scene.wrong = ""
    scene.look()
    assert scene.look().kind == "good"


def test_between_two_looks_the_verdict_stands() -> None:
    scene = Scene(canary())
    scene.reach()
    scene.serve(OLD, 50)
    scene.serve(NEW, 50, failures=50)
    assert scene.analyst.verdict("production", "digit", scene.deployment, scene.now + 0.5).kind == "too_little"
    assert scene.look().kind == "bad"


def test_only_the_versions_own_failures_count() -> None:
    counted = Statistics(requests=Counter({(NEW, 200): 90, (NEW, 0): 4, (NEW, 503): 3, (NEW, 500): 2, (OLD, 200): 7}))
    counted.failures = Counter({(NEW, "client_gone"): 4, (NEW, "overloaded"): 3, (NEW, "engine_error"): 2})
    assert window(counted, NEW) == window(counted, NEW).since(window(Statistics(), NEW))
    found = window(counted, NEW)
    assert (found.requests, found.failures) == (92, 2)


class Gateway:
    """Answers one request as it is told."""

    def __init__(self, status: int, body: Any, label: str) -> None:
        self.answer = (status, body, label)

    def client(self, name: str) -> ModelClient:
        assert name == "digit:v1.2.0"
        client = ModelClient("http://gateway", name)
        client._http = httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(self._handle))
        return client

    def _handle(self, _: httpx.Request) -> httpx.Response:
        status, body, label = self.answer
        return httpx.Response(status, json=body, headers={"x-modelyard-model": label})


@pytest.fixture
def asked() -> Iterator[Callable[..., str]]:
    expected = Expected({"inputs": []}, {"outputs": [{"data": [3.0]}]}, 0.1)

    def ask(status: int, body: Any, label: str = str(REF)) -> str:
        return golden_requests(Gateway(status, body, label).client)(REF, [expected])

    yield ask


def test_golden_requests_through_the_gateway(asked: Callable[..., str]) -> None:
    assert asked(200, {"outputs": [{"data": [3.05]}]}) == ""
    assert asked(200, {"outputs": [{"data": [4.0]}]}) == (
        "golden request 1: the answer.outputs[0].data[0] is 4.0, expected 3.0"
    )
    assert asked(500, {"error": "no weights"}) == "golden request 1: 500: no weights"


def test_an_answer_of_somebody_else_says_nothing(asked: Callable[..., str]) -> None:
    with pytest.raises(Unavailable, match="can't be asked yet"):
        asked(503, {"error": "no replica is ready"})
    with pytest.raises(Unavailable, match="can't be asked yet"):
        asked(200, {}, label=f"digit:v1.1.0@{V1.digest}")
