"""The formulas, against cases done by hand and against scikit-learn and scipy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, spearmanr
from sklearn.metrics import ndcg_score

from modelyard.embeddings.metrics import bootstrap_interval, ndcg_at, overlap_at, rank_correlation, recall_at

RANKING = np.array([4, 1, 3, 0, 2])


@pytest.mark.parametrize(
    ("gains", "k", "expected"),
    [
        ({4: 1.0}, 1, 1.0),
        ({1: 1.0}, 1, 0.0),
        ({4: 1.0, 3: 2.0, 2: 1.0}, 3, 2 / 3),
        ({4: 1.0, 3: 2.0, 2: 1.0}, 9, 1.0),
        ({4: 1.0, 3: 0.0}, 1, 1.0),
        ({7: 1.0, 4: 1.0}, 5, 0.5),
    ],
)
def test_recall(gains: dict[int, float], k: int, expected: float) -> None:
    assert recall_at(RANKING, gains, k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gains", "k", "expected"),
    [
        ({4: 1.0}, 5, 1.0),
        ({1: 1.0}, 5, 1 / math.log2(3)),
        ({1: 1.0}, 1, 0.0),
        # found: 3 at the first rank, 2 at the third; best: 3, then 2
        ({4: 3.0, 3: 2.0}, 5, (3 + 2 / 2) / (3 + 2 / math.log2(3))),
        # three relevant ones, of which two fit above the cut
        ({4: 1.0, 1: 1.0, 3: 1.0}, 2, 1.0),
        ({0: 1.0, 1: 1.0, 9: 1.0}, 4, (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2)),
    ],
)
def test_ndcg(gains: dict[int, float], k: int, expected: float) -> None:
    assert ndcg_at(RANKING, gains, k) == pytest.approx(expected)


@given(st.integers(2, 30), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_ndcg_is_that_of_scikit_learn(documents: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, truth = random.permutation(documents).astype(float), random.integers(0, 4, documents)
    truth[0] = 1
    ranking = np.argsort(-scores, kind="stable")
    gains = {number: float(gain) for number, gain in enumerate(truth) if gain}
    assert ndcg_at(ranking, gains, k) == pytest.approx(ndcg_score([truth], [scores], k=k))


@pytest.mark.parametrize(
    ("one", "other", "k", "expected"),
    [([0, 1, 2], [2, 1, 0], 3, 1.0), ([0, 1, 2], [2, 1, 0], 1, 0.0), ([0, 1, 2, 3], [1, 9, 0, 8], 2, 0.5)],
)
def test_overlap(one: list[int], other: list[int], k: int, expected: float) -> None:
    assert overlap_at(np.array(one), np.array(other), k) == expected
    assert overlap_at(np.array(one), np.array(one), 10) == 1.0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1.0, 2.0, 3.0], [10.0, 20.0, 900.0], 1.0),
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], -1.0),
        ([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0], 0.6),  # 1 - 6·Σd²/(n(n²-1)) = 1 - 6·4/60
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], 0.0),
    ],
)
def test_rank_correlation(one: list[float], other: list[float], expected: float) -> None:
    assert rank_correlation(np.array(one), np.array(other)) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3))
def test_rank_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    one, other = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    if len(set(one)) > 1 and len(set(other)) > 1:
        assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)


def test_the_bootstrap_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).normal(0.1, 1, 400)
    low, high = bootstrap_interval(values)
    reference: Any = bootstrap((values,), np.mean, method="percentile", random_state=2).confidence_interval
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.01)
    assert bootstrap_interval(values) == (low, high)


def test_no_spread_no_interval() -> None:
    assert bootstrap_interval(np.full(10, 0.25)) == (0.25, 0.25)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        low, high = bootstrap_interval(random.normal(0.0, 1.0, 100), resamples=200)
        held += low <= 0 <= high
    assert 0.88 < held / 200 < 0.99
