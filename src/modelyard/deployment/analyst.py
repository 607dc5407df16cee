"""The analyst: looks again and again at what the gateway has counted of a rollout's two versions, and judges.

What it remembers is the counts at the beginning of a step. When it or the gateway was restarted, the step's window
begins anew: that takes longer, and harms nothing. All looking is done in other threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from modelyard.deployment import canary
from modelyard.deployment.analysis import Window, judge
from modelyard.deployment.canary import GOOD, NOT_JUDGED, Verdict
from modelyard.deployment.client import ModelClient, message
from modelyard.deployment.golden import difference
from modelyard.deployment.measuring import Measure, Observed, compared
from modelyard.errors import ModelyardError, StoreError, Unavailable
from modelyard.gateway.statistics import Served, Statistics
from modelyard.refs import ModelRef
from modelyard.repository import Analysis, CustomMetric, Deployment, Expected

FAULTS = ("engine_error", "replica_failed", "timeout")  # of a version; others are the client's or the gateway's

ERRORS_ALLOWED = 4  # of a metric, one after the other; the default of Argo Rollouts' consecutiveErrorLimit

Ask = Callable[[ModelRef, Sequence[Expected]], str]  # what is wrong with a version's answers; empty: nothing


@dataclass(slots=True)
class _Step:
    """One step of one rollout. `begin`: both versions' counts, new and old, when it began; `start`: the old version's
    when the rollout was first seen. `errors`: of its metrics, one after the other."""

    name: tuple[str, int]
    start: Window | None = None
    begin: tuple[Window, Window] | None = None
    looks: int = 0
    errors: int = 0
    last: float = float("-inf")
    verdict: Verdict = NOT_JUDGED
    looking: Future[Verdict] | None = None


@dataclass(slots=True)
class RolloutAnalyst:
    """`statistics` gives the gateway's counts, `ask` asks a version its golden requests, `measure` takes a metric."""

    statistics: Callable[[], Statistics]
    ask: Ask
    measure: Measure
    executor: Executor = field(default_factory=lambda: ThreadPoolExecutor(4))
    _steps: dict[tuple[str, str], _Step] = field(default_factory=dict)

    def verdict(self, environment: str, model: str, deployment: Deployment, now: float) -> Verdict:
        """What the last look has come to; the next one is begun when it is time. Waits for nobody."""
        analysis, key = deployment.spec.strategy.analysis, (environment, model)
        if analysis is None or not canary.steps(deployment):
            return NOT_JUDGED
        step = self._step(key, deployment)
        if step.looking and step.looking.done():
            step.verdict, step.looking = _result(step.looking), None
        if step.looking is None and now - step.last >= analysis.interval_s:
            step.last = now
            step.looking = self.executor.submit(self._look, step, environment, model, deployment, analysis)
        return step.verdict

    def _step(self, key: tuple[str, str], deployment: Deployment) -> _Step:
        """The step as far as it is known. It begins when the new version has its share."""
        number = deployment.progress.step if deployment.progress.since else -1
        known = self._steps.get(key)
        if known is None or known.name != (deployment.rollout, number):
            same = known is not None and known.name[0] == deployment.rollout
            self._steps[key] = _Step((deployment.rollout, number), known.start if known and same else None)
        return self._steps[key]

    def _look(self, step: _Step, environment: str, model: str, deployment: Deployment, analysis: Analysis) -> Verdict:
        new, old = (
            window(self.statistics(), Served(model, str(pin), environment))
            for pin in (deployment.target, deployment.serving)
        )
        if step.start is None:
            step.start = old
        since = deployment.progress.since
        if since is None:
            return NOT_JUDGED
        unseen = canary.step(deployment) == canary.UNSEEN
        if step.begin is None:
            if wrong := self._wrong(model, deployment, analysis):
                return Verdict("bad", wrong)
            step.begin, step.looks = (new, old), 0
            return GOOD if unseen else NOT_JUDGED
        if unseen:
            return GOOD
        did = new.since(step.begin[0])
        if canary.share_step(deployment):
            other = old.since(step.begin[1])
        else:  # it has all requests; the old version is known from before
            other = old.since(step.start)
            other = old if other is None or other.requests < analysis.min_requests else other
        if did is None or other is None:
            step.begin = None
            return NOT_JUDGED
        step.looks += 1
        found = judge(did, other, analysis, look=step.looks)
        if found.kind != "bad" and min(did.requests, other.requests) >= analysis.min_requests:
            measured = self._measured(step, analysis.metrics, *observed(model, deployment, since, step.last))
            found = found if measured == GOOD else measured
        return found

    def _measured(self, step: _Step, metrics: Sequence[CustomMetric], new: Observed, old: Observed) -> Verdict:
        """What the metrics say. A value that can't be had is no verdict; too many of them in a row are an error."""
        found = GOOD
        try:
            for metric in metrics:
                verdict = compared(metric, *self.measure(metric, new, old))
                if verdict.kind == "bad":
                    return verdict
                found = verdict if found == GOOD else found
        except StoreError:
            raise  # it says nothing about the metric
        except (ModelyardError, OSError) as error:
            step.errors += 1
            reason = f"{error} (error {step.errors} of {ERRORS_ALLOWED + 1} in a row)"
            return Verdict("error" if step.errors > ERRORS_ALLOWED else "too_little", reason)
        step.errors = 0
        return found

    def _wrong(self, model: str, deployment: Deployment, analysis: Analysis) -> str:
        """What is wrong with the answers to the golden requests, which are asked in a rollout's first step."""
        target = deployment.target
        if target is None or deployment.progress.step or not analysis.golden:
            return ""
        return self.ask(ModelRef(model, target.version, digest=target.digest), analysis.golden)


def observed(model: str, deployment: Deployment, since: float, now: float) -> tuple[Observed, Observed]:
    """The new version since it has its step's share, and the old one in the same time; where it had no requests then,
    in as much time before."""
    old, new = deployment.refs(model)
    begin, end = (since, now) if canary.share_step(deployment) else (2 * since - now, since)
    return Observed(new, since, now), Observed(old, begin, end)


def window(statistics: Statistics, served: Served) -> Window:
    """What a version did since the gateway's start."""
    kinds = {kind: count for (whose, kind), count in statistics.failures.items() if whose == served}
    requests = sum(count for (whose, _), count in statistics.requests.items() if whose == served)
    durations = statistics.durations.get(served)
    latency = {float(end): count for end, count in durations.buckets.items()} if durations else {}
    failures = sum(kinds.get(kind, 0) for kind in FAULTS)
    return Window(requests - (sum(kinds.values()) - failures), failures, latency)


def golden_requests(client: Callable[[str], ModelClient]) -> Ask:
    """Asks a version through the gateway; `client` opens a client for one of its names there."""

    def ask(ref: ModelRef, requests: Sequence[Expected]) -> str:
        with client(f"{ref.name}:{ref.version}") as there:
            for number, expected in enumerate(requests, 1):
                answer = there.ask(dict(expected.request))
                if answer.status == 503 or answer.label not in ("", str(ref)):
                    raise Unavailable(f"{ref.name}:{ref.version} can't be asked yet: {message(answer)}")
                found = (
                    difference(dict(expected.answer), answer.body, expected.tolerance)
                    if answer.status == 200
                    else message(answer)
                )
                if found:
                    return f"golden request {number}: {found}"
        return ""

    return ask


def _result(looking: Future[Verdict]) -> Verdict:
    """A look that failed says nothing about the version."""
    try:
        return looking.result()
    except (ModelyardError, OSError) as error:
        return Verdict("too_little", f"it can't be judged: {error}")
