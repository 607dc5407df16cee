"""Two models are compared on the same queries; here they look their vectors up, so every number is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from modelyard.embeddings.comparison import compare
from modelyard.embeddings.dataset import Dataset
from modelyard.embeddings.model import EmbeddingModel
from modelyard.refs import Version
from modelyard.repository import ModelVersion
from modelyard.repository.manifest import content_digest

TURN = math.pi / 12


class Angles:
    """Embeds a text as a direction in the plane, known beforehand."""

    def __init__(self, angles: Mapping[str, float], prompts: Sequence[str] = ()) -> None:
        self.angles = angles
        self.prompts = dict.fromkeys(prompts, "")
        self.asked: list[tuple[str | None, int]] = []

    def get_embedding_dimension(self) -> int:
        return 2

    def encode(self, texts: list[str], *, prompt_name: str | None = None, **options: Any) -> Any:
        self.asked.append((prompt_name, len(texts)))
        return np.array([[math.cos(self.angles[text]), math.sin(self.angles[text])] for text in texts])


def model(encoder: Angles, name: str) -> EmbeddingModel:
    version = ModelVersion("i", name, Version(1, 0, 0), content_digest(()), (), datetime.now(UTC), "tester")
    return EmbeddingModel(version, encoder)


DATASET = Dataset(("d0", "d1", "d2"), ("q0", "q1"), ({0: 1.0}, {1: 1.0, 2: 1.0}))
GOOD = {"d0": 0.0, "d1": 4 * TURN, "d2": 6 * TURN, "q0": TURN, "q1": 5.5 * TURN}  # q0: 0 1 2, q1: 2 1 0
POOR = {**GOOD, "q0": 3.5 * TURN}  # q0: 1 2 0


def test_every_number() -> None:
    told: list[int] = []
    good, poor = Angles(GOOD), Angles(POOR)

    found = compare(model(good, "good"), model(poor, "poor"), DATASET, k=1, progress=told.append)

    assert (found.k, found.queries, found.documents, sum(told)) == (1, 2, 3, 10)
    assert (found.first.recall, found.second.recall) == ((1 + 0.5) / 2, (0 + 0.5) / 2)
    assert (found.first.ndcg, found.second.ndcg) == (1.0, 0.5)
    assert found.ndcg.mean == found.recall.mean == -0.5
    assert (found.ndcg.low, found.ndcg.high) == (-1.0, 0.0)
    assert found.overlap == 0.5
    assert found.rank_correlation == pytest.approx((-0.5 + 1) / 2)  # q0: ranks 3 2 1 against 1 3 2
    assert found.first.model.startswith("good:v1.0.0@sha256:") and found.first.dimension == 2
    assert found.first.speed > 0 and found.second.speed > 0


def test_a_model_agrees_with_itself() -> None:
    found = compare(model(Angles(GOOD), "good"), model(Angles(GOOD), "good"), DATASET, k=10)
    assert (found.overlap, found.ndcg.mean, found.ndcg.low, found.ndcg.high) == (1.0, 0.0, 0.0, 0.0)
    assert found.rank_correlation == pytest.approx(1.0)


def test_models_for_retrieval_are_asked_with_their_prompts() -> None:
    plain, prompted = Angles(GOOD), Angles(GOOD, prompts=("query", "document"))
    compare(model(plain, "plain"), model(prompted, "prompted"), DATASET)
    assert plain.asked[1:] == [(None, 3), (None, 2)]
    assert prompted.asked[1:] == [("document", 3), ("query", 2)]


def test_many_texts_are_embedded_in_turns() -> None:
    documents = tuple(f"d{number}" for number in range(1000))
    queries = tuple(f"q{number}" for number in range(130))
    angles = {text: number * 0.001 for number, text in enumerate((*documents, *queries))}
    dataset = Dataset(documents, queries, tuple({number: 1.0} for number in range(130)))
    encoder = Angles(angles)

    found = compare(model(encoder, "a"), model(Angles(angles), "b"), dataset)

    assert [count for _, count in encoder.asked[1:]] == [256, 256, 256, 232, 130]
    assert found.overlap == 1.0
