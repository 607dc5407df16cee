"""The statistics of non-regression: how often they are wrong, and how often right, over many simulated data sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from modelyard.deployment.comparison import Interval, means, proportions, verdict

CONFIDENCE = 0.95
SETS = 2000
Noise = Callable[[np.random.Generator, int], NDArray[np.float64]]


def refused(intervals: Iterable[Interval], margin: float) -> float:
    """The share of simulated data sets on which the version is called worse."""
    found = [verdict(interval, margin) == "worse" for interval in intervals]
    return sum(found) / len(found)


def pairs(lost: float, gained: float, rows: int, confidence: float = CONFIDENCE) -> Iterator[Interval]:
    """Data sets of right and wrong answers: the shares of rows that only the old, only the new version gets right."""
    known = cache(lambda a, b: proportions(a, b, rows, confidence))
    drawn = np.random.default_rng(7).multinomial(rows, [lost, gained, 1 - lost - gained], size=SETS)
    return (known(int(a), int(b)) for a, b, _ in drawn)


def errors(mean: float, noise: Noise, sets: int) -> Iterator[Interval]:
    """Data sets of 40 rows, on each of which the new version's error is larger by the mean and the noise."""
    chance = np.random.default_rng(7)
    return (means(mean + noise(chance, 40), CONFIDENCE) for _ in range(sets))


NOISE: dict[str, Noise] = {
    "normal": lambda chance, rows: chance.normal(size=rows),
    "skewed to worse": lambda chance, rows: chance.exponential(size=rows) - 1,
    "skewed to better": lambda chance, rows: 1 - chance.exponential(size=rows),
    "few rows differ": lambda chance, rows: chance.normal(size=rows) * (chance.random(rows) < 0.1),
}


# The chance of error is 5 % at most; 2,000 sets tell it to within 1.5 points (three standard deviations).
@pytest.mark.parametrize(("rows", "different"), [(30, 0.5), (100, 0.1), (400, 0.3), (2000, 0.1)])
def test_an_equal_accuracy_passes_at_the_stated_rate(rows: int, different: float) -> None:
    assert refused(pairs(different / 2, different / 2, rows), 0) <= 0.065


@pytest.mark.parametrize("margin", [0.01, 0.05])
def test_an_accuracy_worse_by_the_margin_passes_at_the_stated_rate(margin: float) -> None:
    sets = pairs(0.1 + margin / 2, 0.1 - margin / 2, 1000)
    assert 0.02 <= refused(sets, margin) <= 0.065  # were it never refused, the rule would be blunt


def test_the_rate_follows_the_confidence() -> None:
    assert 0.13 <= refused(pairs(0.2, 0.2, 400, confidence=0.8), 0) <= 0.24


def test_a_worse_accuracy_is_refused() -> None:
    assert refused(pairs(0.075, 0.025, 400), 0) >= 0.9
    assert refused(pairs(0.14, 0.02, 1000), 0.05) >= 0.99
    assert refused(pairs(0.075, 0.025, 400), 0.05) <= 0.065  # which is allowed
    assert refused(pairs(0.025, 0.075, 400), 0) == 0  # better


# 400 sets tell it to within 3.3 points.
@pytest.mark.parametrize("noise", NOISE)
def test_equal_errors_pass_at_the_stated_rate(noise: str) -> None:
    assert refused(errors(0.2, NOISE[noise], 400), 0.2) <= 0.083


@pytest.mark.parametrize("noise", NOISE)
def test_worse_errors_are_refused(noise: str) -> None:
    assert refused(errors(1.0, NOISE[noise], 100), 0.05) >= 0.9


def test_a_known_interval() -> None:
    """Worse on 12 rows of 100, better on 3: the roots of Tango's statistic, with one pair less, by search."""
    found = proportions(12, 3, 100, 0.95)
    assert found.low == pytest.approx(_root(12, 3, 100), abs=1e-4)
    assert found.high == pytest.approx(-_root(3, 12, 100), abs=1e-4)
    assert proportions(3, 12, 100, 0.95) == Interval(-found.high, -found.low)


def test_at_no_difference_it_is_the_test_of_mcnemar() -> None:
    """With a continuity correction, (lost - gained - 1)² / (lost + gained) against 1.645²."""
    for lost in range(40):
        for gained in range(lost):
            statistic = (lost - gained - 1) / math.sqrt(lost + gained)
            assert (proportions(lost, gained, 100, 0.95).low > 0) == (statistic > 1.6449), (lost, gained)


def test_the_ends() -> None:
    nothing, everything = proportions(0, 0, 50, 0.95), proportions(50, 0, 50, 0.95)
    assert nothing.low == -nothing.high and 0 < nothing.high < 0.1
    assert 0.8 < everything.low < everything.high == 1
    assert means(np.full(50, 0.25), 0.95) == Interval(0.25, 0.25)
    one = np.zeros(50)
    one[0] = 0.5
    assert means(one, 0.95).low <= 0  # one row of fifty proves nothing


def test_the_same_rows_give_the_same_interval() -> None:
    rows = np.random.default_rng(3).normal(size=200)
    assert means(rows, 0.95) == means(rows.copy(), 0.95)


def test_many_rows_need_no_resampling() -> None:
    rows = np.random.default_rng(3).normal(size=20_000)
    found = means(rows, 0.95)
    assert (found.high - found.low) / 2 == pytest.approx(1.6449 * rows.std(ddof=1) / math.sqrt(len(rows)), rel=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.02, 0.1, "worse"), (0.01, 0.1, "undecided"), (-0.1, 0.011, "undecided"), (-0.1, 0.01, "not worse")],
)
def test_verdict(low: float, high: float, expected: str) -> None:
    assert verdict(Interval(low, high), 0.01) == expected


def _root(lost: int, gained: int, rows: int) -> float:
    """Where the score statistic is 1.6449, from its definition: the likeliest shares are searched on a grid."""

    def statistic(difference: float) -> float:
        shares = np.linspace(1e-9, (1 - abs(difference)) / 2, 20_001) + max(0.0, -difference)
        likelihood = gained * np.log(shares) + lost * np.log(shares + difference)
        with np.errstate(invalid="ignore", divide="ignore"):
            likelihood = likelihood + (rows - lost - gained) * np.log(1 - 2 * shares - difference)
        share = shares[np.nanargmax(likelihood)]
        variance = rows * (2 * share + difference - difference**2)
        return float((lost - gained - rows * difference - 1) / math.sqrt(variance))

    low, high = -0.9, (lost - gained - 1) / rows
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if statistic(middle) > 1.6449 else (low, middle)
    return low
