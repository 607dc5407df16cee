"""Latency and throughput under a stated load: so many clients, each of which asks again as soon as it is answered.

The clients are threads of this process, so what this machine can ask is part of what is measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from threading import Event
from typing import Any

from modelyard.deployment.checks.base import Failed, Planned
from modelyard.deployment.checks.subject import Subject
from modelyard.deployment.suite import Latency, Suite


def load(suite: Suite, subject: Subject) -> Iterator[Planned]:
    for latency in suite.latency:
        yield Planned("latency", _what(latency), partial(_latency, subject, latency))


def _what(latency: Latency) -> str:
    bounds = [f"p{percentile} at most {bound:g} ms" for percentile, bound in latency.bounds.items()]
    if latency.requests_per_s is not None:
        bounds.append(f"at least {latency.requests_per_s:g} requests/s")
    much = f"{latency.duration_s:g} s" if latency.duration_s else f"{latency.requests} requests"
    return f"{much} with {latency.concurrency} at once: {', '.join(bounds)}"


def _latency(subject: Subject, latency: Latency) -> str:
    found = _measure(subject, latency, latency.request or subject.example())
    problems = [
        f"the {percentile}th percentile is {found.percentile(percentile):.1f} ms, above {bound:g} ms"
        for percentile, bound in latency.bounds.items()
        if found.percentile(percentile) > bound
    ]
    if latency.requests_per_s is not None and found.rate < latency.requests_per_s:
        problems.append(f"{found.rate:.1f} requests/s are fewer than {latency.requests_per_s:g}")
    if problems:
        raise Failed(", ".join(problems))
    figures = ", ".join(f"p{percentile} {found.percentile(percentile):.1f} ms" for percentile in (50, 95, 99))
    return f"{figures}, {found.rate:.1f} requests/s over {len(found.times)} requests, {latency.concurrency} at once"


@dataclass(frozen=True, slots=True)
class _Measured:
    """Milliseconds of each request, ascending, and what all of them took."""

    times: Sequence[float]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.times) / self.seconds

    def percentile(self, percentile: int) -> float:
        """The nearest rank: the smallest that so many of a hundred do not exceed."""
        return self.times[math.ceil(percentile / 100 * len(self.times)) - 1]


def _measure(subject: Subject, latency: Latency, request: dict[str, Any]) -> _Measured:
    """Every request must be answered. The first of each client opens its connection and does not count."""
    numbers, stopped, deadline = count(), Event(), math.inf

    def client() -> list[float]:
        times = []
        try:
            while not stopped.is_set() and time.perf_counter() < deadline:
                if latency.duration_s is None and next(numbers) >= latency.requests:
                    break
                times.append(subject.ask(request).seconds * 1000)
        except BaseException:
            stopped.set()  # nobody needs what the others would find
            raise
        return times

    with ThreadPoolExecutor(latency.concurrency) as pool:
        try:
            list(pool.map(lambda _: subject.ask(request), range(latency.concurrency)))
            began = time.perf_counter()
            deadline = began + (latency.duration_s or math.inf)
            clients = [pool.submit(client) for _ in range(latency.concurrency)]
            times = [each for done in clients for each in done.result()]
        finally:
            stopped.set()
    return _Measured(sorted(times), time.perf_counter() - began)
