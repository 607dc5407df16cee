"""Is one version worse than another? Statistics of paired rows. Pure; knows no model.

Both versions answer the same rows, and each row says by how much the new version was worse on it: an accuracy's row 1,
0 or -1, an error's row any number. The question is about the mean over all rows there could ever be, of which the data
set is a sample; so the answer is an interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_ROWS = 30  # fewer tell so little that an interval would let nearly everything pass
_RESAMPLES = 2000
_BLOCK = 100  # resamples in memory at once
_BOOTSTRAP_ROWS = 10_000  # beyond, the mean is as good as normal and resampling adds nothing
_SEED = 20_260_101


@dataclass(frozen=True, slots=True)
class Interval:
    """By how much the new version is worse on average. Each of the two bounds holds with the confidence."""

    low: float
    high: float


Verdict = Literal["worse", "undecided", "not worse"]


def verdict(interval: Interval, margin: float) -> Verdict:
    """`worse` if even the lower bound is beyond the margin, `not worse` if even the upper one is within it.

    A version that is worse by exactly the margin is called worse with a probability of 1 - confidence at most; one
    that is better, more rarely. An equal version is often `undecided` where the margin is 0 or the rows are few.
    """
    if interval.low > margin:
        return "worse"
    return "not worse" if interval.high <= margin else "undecided"


def proportions(lost: int, gained: int, rows: int, confidence: float) -> Interval:
    """The interval for right and wrong answers: `lost` rows only the old version answers rightly, `gained` rows only
    the new one."""
    return Interval(_score_bound(lost, gained, rows, confidence), -_score_bound(gained, lost, rows, confidence))


def means(worse: NDArray[np.float64], confidence: float) -> Interval:
    """The interval for the mean of `worse`, any number for each row: the studentized bootstrap, with a fixed seed so
    that the same rows give the same verdict.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 12.5. It follows skewed differences, which an
    interval by the normal distribution does not; where only a few rows differ it is too narrow, so the wider of the two
    counts. No bound lies beyond what some row shows.
    """
    import numpy as np

    rows = len(worse)
    mean, error = float(worse.mean()), float(worse.std(ddof=1)) / math.sqrt(rows)
    if error == 0:
        return Interval(mean, mean)
    reach = NormalDist().inv_cdf(confidence) * error
    normal = Interval(mean - reach, mean + reach)
    if rows > _BOOTSTRAP_ROWS:
        return normal
    chance = np.random.default_rng(_SEED)
    found = []
    for _ in range(_RESAMPLES // _BLOCK):
        drawn = worse[chance.integers(rows, size=(_BLOCK, rows))]
        deviation, spread = drawn.mean(axis=1) - mean, drawn.std(axis=1, ddof=1) / math.sqrt(rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.where(deviation == 0, 0.0, deviation / spread))
    statistic = np.sort(np.concatenate(found))
    tail = max(1, math.floor((1 - confidence) * (_RESAMPLES + 1)))
    low, high = (mean - error * float(statistic[index]) for index in (-tail, tail - 1))
    return Interval(max(min(low, normal.low), float(worse.min())), min(max(high, normal.high), float(worse.max())))


def _score_bound(lost: int, gained: int, rows: int, confidence: float) -> float:
    """A lower bound for the difference of two paired proportions.

    The score interval of T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998), 891-908. At a difference of 0 its statistic is McNemar's.
    It is taken with a continuity correction of one pair, as Edwards proposed for McNemar's test (Psychometrika 13
    (1948), 185-187), since few pairs that differ would otherwise be called significant too often.
    """
    z = NormalDist().inv_cdf(confidence)

    def significant(difference: float) -> bool:
        """Whether the rows speak against a true difference as small as this one."""
        excess = lost - gained - rows * difference - 1
        if excess <= 0:
            return False
        linear = -lost - gained + (2 * rows - lost + gained) * difference
        constant = -gained * difference * (1 - difference)
        root = math.sqrt(max(0.0, linear * linear - 8 * rows * constant))
        gains = max(0.0, (root - linear) / (4 * rows), -difference)  # likeliest share of gained rows, given it
        variance = rows * (2 * gains + difference * (1 - difference))
        return variance <= 0 or excess > z * math.sqrt(variance)

    low, high = -1.0, 1.0
    if not significant(low):
        return low
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if significant(middle) else (low, middle)
    return low
