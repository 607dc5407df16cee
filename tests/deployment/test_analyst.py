from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

import httpx
import pytest

from modelyard.deployment.analyst import RolloutAnalyst, golden_requests, window
from modelyard.deployment.canary import Verdict
from modelyard.deployment.client import ModelClient
from modelyard.errors import ModelyardError, Unavailable
from modelyard.gateway.statistics import Histogram, Served, Statistics
from modelyard.refs import ModelRef
from modelyard.repository import Analysis, CanaryStep, Deployment, DeploymentSpec, Expected, Strategy

from .builders import V1, V2

NEW, OLD = (Served("digit", str(pin), "production") for pin in (V2, V1))
ANALYSIS = Analysis(min_requests=100, interval_s=1)
REF = ModelRef("digit", V2.version, digest=V2.digest)


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
        self.now = 0.0
        before = Deployment().ask(V1).finished()
        self.deployment = before.ask(V2, spec=DeploymentSpec(strategy=strategy))
        self.analyst = self.another()

    def another(self) -> RolloutAnalyst:
        return RolloutAnalyst(lambda: self.counted, self.ask, Direct())

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
