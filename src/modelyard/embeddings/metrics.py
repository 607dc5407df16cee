"""How good a ranking is, how alike two are, and how sure one may be of a difference. Pure maths on arrays.

A ranking is the documents' numbers, best first; gains are the documents that matter for a query and how much.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Ranking = NDArray[np.intp]
Floats = NDArray[np.floating]
Gains = Mapping[int, float]


def recall_at(ranking: Ranking, gains: Gains, k: int) -> float:
    """The share of the relevant documents that are among the first k: |relevant ∩ top k| / |relevant|, in [0, 1]."""
    relevant = {document for document, gain in gains.items() if gain > 0}
    return len(relevant.intersection(ranking[:k].tolist())) / len(relevant)


def ndcg_at(ranking: Ranking, gains: Gains, k: int) -> float:
    """Normalised discounted cumulative gain of the first k, in [0, 1].

    DCG@k = Σ gain_i / log2(i + 1) over the ranks i = 1 … k; nDCG@k divides it by the DCG@k of the best possible order.
    K. Järvelin, J. Kekäläinen: Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002; with the
    discount log2(i + 1), which also counts at the first ranks, as trec_eval has it.
    """
    found = np.array([gains.get(document, 0.0) for document in ranking[:k].tolist()])
    best = np.array(sorted(gains.values(), reverse=True)[:k])
    return _dcg(found) / _dcg(best)


def overlap_at(one: Ranking, other: Ranking, k: int) -> float:
    """The share of the first k that two rankings have in common, in [0, 1]; of fewer documents, of all."""
    return len(set(one[:k].tolist()) & set(other[:k].tolist())) / min(k, len(one))


def rank_correlation(one: Floats, other: Floats) -> float:
    """Spearman's ρ in [-1, 1] of two scorings of the same documents; 0 where one of them tells none apart.

    Pearson's correlation of the ranks, equal scores sharing their mean rank. C. Spearman: The proof and measurement of
    association between two things, American Journal of Psychology 15(1), 1904.
    """
    first, second = (ranks - ranks.mean() for ranks in (_ranks(one), _ranks(other)))
    norm = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / norm if norm else 0.0


def bootstrap_interval(
    values: Floats, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """A confidence interval of the values' mean: the percentile bootstrap.

    The mean is taken of `resamples` samples drawn from the values with replacement, each as large as they are; the
    interval holds the middle of these means. For paired differences of queries it says whether a difference would show
    on other such queries. B. Efron, R. Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13.
    """
    random, count = np.random.default_rng(seed), len(values)
    means = [values[random.integers(0, count, count)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _dcg(gains: Floats) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def _ranks(scores: Floats) -> NDArray[np.float64]:
    """The rank of each score, from 1 for the lowest; equal ones share the mean of their ranks."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks: NDArray[np.float64] = counts.cumsum() - (counts - 1) / 2
    return mean_ranks[place]
