"""Judging a new version by what both versions did in the same time. Pure.

All bounds are Chernoff's, which hold for every number of requests: the chance that a version no worse than allowed is
called worse, at whichever look, is at most one minus the confidence. Knows counts, not where they come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.deployment.canary import GOOD, Verdict
from modelyard.repository import Analysis

_FEWEST = 10  # requests; failures come in bursts, so that a handful says nothing
_HALVINGS = 60  # of an interval, down to what a float can tell apart


@dataclass(frozen=True, slots=True)
class Window:
    """What a version did. `failures`: those of its `requests` that failed by its fault. `latency`: upper end of a
    bucket in seconds → how many requests took no longer."""

    requests: int = 0
    failures: int = 0
    latency: Mapping[float, int] = field(default_factory=dict)

    def since(self, before: Window) -> Window | None:
        """What came after; None if the counts were begun anew in between."""
        latency = {end: count - before.latency.get(end, 0) for end, count in self.latency.items()}
        found = Window(self.requests - before.requests, self.failures - before.failures, latency)
        return None if min(found.requests, found.failures, *latency.values()) < 0 else found

    @property
    def timed(self) -> int:
        return max(self.latency.values(), default=0)


def judge(new: Window, old: Window, analysis: Analysis, *, look: int = 1) -> Verdict:
    """`look` counts the judgements of one step. Each spends 1 / (look · (look + 1)) of the chance of error; these parts
    add up to all of it.

    Bad is what certainly exceeds the bounds. Good takes enough requests, and measured values within the bounds;
    otherwise there is too little to tell.
    """
    error = (1 - analysis.confidence) / (look * (look + 1)) / 4  # two comparisons with two bounds each
    reason = _fails_more(new, old, analysis, error) or _slower(new, old, analysis, error)
    if reason and new.requests >= _FEWEST:
        return Verdict("bad", reason)
    for whose, window in (("the new version", new), ("the old version", old)):
        if window.requests < analysis.min_requests:
            return Verdict(
                "too_little", f"{whose} has had {window.requests} of the {analysis.min_requests} requests that it takes"
            )
    reason = _seems_to_fail_more(new, old, analysis) or _seems_slower(new, old, analysis)
    return Verdict("too_little", reason) if reason else GOOD


def lower(count: int, of: int, error: float) -> float:
    """What a probability certainly is at least, when something happened `count` times `of` so many.

    The p below count/of with of · KL(count/of ‖ p) = ln(1/error): H. Chernoff, A Measure of Asymptotic Efficiency for
    Tests of a Hypothesis Based on the Sum of Observations, Ann. Math. Statist. 23 (1952).
    """
    if count <= 0 or of <= 0:
        return 0.0
    seen = min(1.0, count / of)
    low, high = 0.0, seen
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if of * _divergence(seen, middle) > -math.log(error):
            low = middle
        else:
            high = middle
    return low


def upper(count: int, of: int, error: float) -> float:
    """What it certainly is at most."""
    return 1.0 - lower(of - count, of, error)


def _divergence(p: float, q: float) -> float:
    """KL(p ‖ q) of two coins."""
    if q <= 0.0:
        return math.inf
    heads = p * math.log(p / q) if p > 0 else 0.0
    return heads + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


def _fails_more(new: Window, old: Window, analysis: Analysis, error: float) -> str:
    least, most = lower(new.failures, new.requests, error), upper(old.failures, old.requests, error)
    return _failing(new, old) if least - most > analysis.failure_margin else ""


def _seems_to_fail_more(new: Window, old: Window, analysis: Analysis) -> str:
    worse = new.failures / new.requests - old.failures / old.requests > analysis.failure_margin
    return f"{_failing(new, old)}, which may be chance" if worse else ""


def _failing(new: Window, old: Window) -> str:
    rates = [f"{100 * w.failures / w.requests:.1f} % of its {w.requests} requests" for w in (new, old)]
    return f"{rates[0]} failed, of the old version {rates[1]}"


def _slower(new: Window, old: Window, analysis: Analysis, error: float) -> str:
    above, below = _above(new, analysis.percentile, error), _below(old, analysis.percentile, error)
    if above <= 0 or above < analysis.latency_factor * below:
        return ""
    what = f"its {100 * analysis.percentile:g}th percentile"
    return f"{what} of latency is above {_ms(above)}, the old version's at most {_ms(below)}"


def _seems_slower(new: Window, old: Window, analysis: Analysis) -> str:
    now, before = quantile(new, analysis.percentile), quantile(old, analysis.percentile)
    if now <= analysis.latency_factor * before:
        return ""
    what = f"its {100 * analysis.percentile:g}th percentile"
    return f"{what} of latency is about {_ms(now)}, the old version's {_ms(before)}, which may be chance"


def _above(window: Window, percentile: float, error: float) -> float:
    """The largest end of a bucket that the percentile certainly exceeds; 0 if none."""
    total = window.timed
    ends = (end for end, count in window.latency.items() if total and upper(count, total, error) < percentile)
    return max(ends, default=0.0)


def _below(window: Window, percentile: float, error: float) -> float:
    """The smallest end that it certainly does not exceed; infinite if none."""
    total = window.timed
    ends = (end for end, count in window.latency.items() if total and lower(count, total, error) >= percentile)
    return min(ends, default=math.inf)


def quantile(window: Window, percentile: float) -> float:
    """Estimated in seconds, as if a bucket's requests were spread evenly over it; 0 without any."""
    start, counted, rank = 0.0, 0, percentile * window.timed
    for end, count in sorted(window.latency.items()):
        if count >= rank and count > counted:
            return start if math.isinf(end) else start + (end - start) * (rank - counted) / (count - counted)
        start, counted = end, count
    return start


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:g} ms"
