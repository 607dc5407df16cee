from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.deployment.analysis import Window, judge, lower, quantile, upper
from modelyard.deployment.canary import GOOD
from modelyard.gateway.telemetry import BUCKETS_S
from modelyard.repository import Analysis

ENDS = (*BUCKETS_S, math.inf)
ANALYSIS = Analysis(min_requests=100, failure_margin=0.01, percentile=0.95, latency_factor=1.5, confidence=0.95)


def window(requests: int, failures: int = 0, *, seconds: float = 0.004, slow: int = 0, slow_s: float = 0.4) -> Window:
    """All take `seconds`, but for `slow` ones."""
    times = [seconds] * (requests - slow) + [slow_s] * slow
    return Window(requests, failures, {end: sum(t <= end for t in times) for end in ENDS})


CASES = {
    "equal": (window(1000), window(1000), "good"),
    "equal, and both fail": (window(1000, 50), window(1000, 50), "good"),
    "a little worse, within the margin": (window(2000, 30), window(2000, 20), "good"),
    "better": (window(500, 0), window(500, 40), "good"),
    "the first requests all fail": (window(12, 12), window(300), "bad"),
    "two of the first three fail": (window(3, 2), window(300), "too_little"),
    "a tenth fails": (window(400, 40), window(4000), "bad"),
    "a tenth fails of a few": (window(40, 4), window(4000), "bad"),
    "one fails of very few": (window(10, 1), window(4000), "too_little"),
    "it seems worse, which may be chance": (window(100, 3), window(100, 0), "too_little"),
    "nobody asks the new one": (window(0), window(1000), "too_little"),
    "nobody asks either": (window(0), window(0), "too_little"),
    "the old one has too few": (window(1000), window(99), "too_little"),
    "ten times slower": (window(200, seconds=0.04), window(2000), "bad"),
    "ten times slower, a single request": (window(1, seconds=0.04), window(2000), "too_little"),
    "the slowest twentieth is not compared": (window(1000, slow=10), window(1000), "good"),
    "every tenth is slow": (window(1000, slow=100), window(1000), "bad"),
    "every tenth is slow in both": (window(1000, slow=100), window(1000, slow=100), "good"),
    "faster": (window(200, seconds=0.0005), window(2000), "good"),
}


@pytest.mark.parametrize("case", CASES)
def test_verdicts(case: str) -> None:
    new, old, expected = CASES[case]
    assert judge(new, old, ANALYSIS).kind == expected


def test_reasons_tell_both_versions_figures() -> None:
    failing = judge(window(400, 40), window(4000, 4), ANALYSIS)
    assert failing.reason == "10.0 % of its 400 requests failed, of the old version 0.1 % of its 4000 requests"
    slow = judge(window(400, seconds=0.04), window(4000), ANALYSIS)
    assert slow.reason == "its 95th percentile of latency is above 25 ms, the old version's at most 5 ms"
    few = judge(window(40), window(4000), ANALYSIS)
    assert few.reason == "the new version has had 40 of the 100 requests that it takes"


@given(count=st.integers(0, 2000), more=st.integers(0, 2000), error=st.floats(1e-9, 0.5))
def test_bounds_enclose_what_was_seen(count: int, more: int, error: float) -> None:
    of = count + more
    low, high = lower(count, of, error), upper(count, of, error)
    assert 0 <= low <= high <= 1
    if of:
        assert low <= count / of + 1e-9
        assert high >= count / of - 1e-9


def test_bounds_known_in_closed_form() -> None:
    """Of n in n, KL(1 ‖ p) = -ln p, so the bound is the n-th root of the error."""
    assert lower(10, 10, 0.01) == pytest.approx(0.01**0.1)
    assert upper(0, 10, 0.01) == pytest.approx(1 - 0.01**0.1)
    assert lower(0, 10, 0.01) == lower(0, 0, 0.01) == 0
    assert upper(0, 0, 0.01) == 1


def test_an_equal_version_is_hardly_ever_called_worse_however_often_one_looks() -> None:
    """At most 5 in 100 by the confidence, over all 40 looks together; both versions fail in 5 % of the requests."""
    chance = random.Random(7)

    def aborted() -> bool:
        analysis = Analysis(min_requests=1, failure_margin=0.0, confidence=0.95)
        new = old = 0
        for look in range(1, 41):
            new += sum(chance.random() < 0.05 for _ in range(25))
            old += sum(chance.random() < 0.05 for _ in range(25))
            if judge(Window(25 * look, new), Window(25 * look, old), analysis, look=look).kind == "bad":
                return True
        return False

    assert sum(aborted() for _ in range(200)) <= 10


def test_a_worse_version_is_found() -> None:
    """It fails in 15 % of the requests, the old one in 1 %: found within 400 requests, every time."""
    chance = random.Random(7)

    def found() -> bool:
        new = sum(chance.random() < 0.15 for _ in range(400))
        old = sum(chance.random() < 0.01 for _ in range(4000))
        return judge(Window(400, new), Window(4000, old), ANALYSIS, look=10).kind == "bad"

    assert all(found() for _ in range(100))


def test_the_quantile_is_estimated_within_its_bucket() -> None:
    assert quantile(Window(), 0.95) == 0
    assert quantile(window(100, seconds=0.004), 0.5) == pytest.approx(0.00375)  # the middle of 2.5 to 5 ms
    assert quantile(window(100, seconds=1000.0), 0.5) == 300.0  # beyond the last end


def test_what_came_after() -> None:
    before, now = window(100, 3), window(150, 5)
    assert now.since(before) == Window(50, 2, {end: now.latency[end] - before.latency[end] for end in ENDS})
    assert before.since(now) is None  # the counts were begun anew


def test_good_is_one_value() -> None:
    assert judge(window(1000), window(1000), ANALYSIS) == GOOD
