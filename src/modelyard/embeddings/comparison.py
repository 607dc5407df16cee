"""Two embedding models on the same queries and documents: which finds more, how far they agree, which is faster.

Knows models and data sets, not where either comes from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelyard.embeddings import metrics
from modelyard.embeddings.dataset import Dataset
from modelyard.embeddings.model import EmbeddingModel

_SLICE = 256  # texts; the models take turns, so that both meet the same machine
_QUERIES = 64  # scored at a time

Vectors = NDArray[np.float32]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Side:
    """One model: `recall` and `ndcg` are means over the queries, `speed` is in texts a second."""

    model: str
    dimension: int
    recall: float
    ndcg: float
    speed: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The second model's mean minus the first's, and the 95 % confidence interval of that."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """`overlap`: what the models' first k have in common; `rank_correlation`: Spearman's ρ over all documents."""

    k: int
    queries: int
    documents: int
    first: Side
    second: Side
    recall: Difference
    ndcg: Difference
    overlap: float
    rank_correlation: float


@dataclass(slots=True)
class _Encoded:
    model: EmbeddingModel
    documents: Vectors
    queries: Vectors
    speed: float


def compare(
    first: EmbeddingModel,
    second: EmbeddingModel,
    dataset: Dataset,
    *,
    k: int = 10,
    batch_size: int = 32,
    progress: Progress = lambda _: None,
) -> Comparison:
    """Embed everything with both models, rank by cosine, and compare. `progress` is told how many texts were embedded.

    Models that have prompts called `query` and `document` are asked with them.
    """
    one, other = _encode((first, second), dataset, batch_size, progress)
    quality, agreement = _score(one, other, dataset, k)
    sides = [
        Side(each.model.stamp, each.model.dimension, float(recall.mean()), float(ndcg.mean()), each.speed)
        for each, recall, ndcg in zip((one, other), quality[0], quality[1], strict=True)
    ]
    recall, ndcg = (_difference(values[1] - values[0]) for values in quality)
    overlap, correlation = agreement.mean(axis=1).tolist()
    counts = len(dataset.queries), len(dataset.documents)
    return Comparison(k, *counts, sides[0], sides[1], recall, ndcg, overlap, correlation)


def _encode(models: Sequence[EmbeddingModel], dataset: Dataset, batch_size: int, progress: Progress) -> list[_Encoded]:
    kinds = (("document", dataset.documents), ("query", dataset.queries))
    taken = [0.0 for _ in models]
    vectors: list[list[Vectors]] = [[] for _ in models]
    for model in models:
        model.encode(list(dataset.documents[:batch_size]), batch_size=batch_size)  # the first call is slower
    for kind, texts in kinds:
        for start in range(0, len(texts), _SLICE):
            part = texts[start : start + _SLICE]
            for number, model in enumerate(models):
                prompt = kind if kind in model.prompts else None
                began = time.perf_counter()
                found = model.encode(part, batch_size=batch_size, prompt_name=prompt, normalize_embeddings=True)
                taken[number] += time.perf_counter() - began
                vectors[number].append(found)
                progress(len(part))
    border, total = len(dataset.documents), len(dataset.documents) + len(dataset.queries)
    joined = [np.concatenate(parts) for parts in vectors]
    return [
        _Encoded(model, all_[:border], all_[border:], total / seconds)
        for model, all_, seconds in zip(models, joined, taken, strict=True)
    ]


def _score(one: _Encoded, other: _Encoded, dataset: Dataset, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(recall and nDCG, model, query) and (overlap and correlation, query)."""
    quality = np.zeros((2, 2, len(dataset.queries)))
    agreement = np.zeros((2, len(dataset.queries)))
    for start in range(0, len(dataset.queries), _QUERIES):
        scores = [each.queries[start : start + _QUERIES] @ each.documents.T for each in (one, other)]
        rankings = [np.argsort(-each, axis=1, kind="stable")[:, :k] for each in scores]
        for row, gains in enumerate(dataset.relevant[start : start + _QUERIES]):
            query = start + row
            for model, ranking in enumerate(rankings):
                quality[0, model, query] = metrics.recall_at(ranking[row], gains, k)
                quality[1, model, query] = metrics.ndcg_at(ranking[row], gains, k)
            agreement[0, query] = metrics.overlap_at(rankings[0][row], rankings[1][row], k)
            agreement[1, query] = metrics.rank_correlation(scores[0][row], scores[1][row])
    return quality, agreement


def _difference(values: NDArray[np.float64]) -> Difference:
    return Difference(float(values.mean()), *metrics.bootstrap_interval(values))
