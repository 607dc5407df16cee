"""Answers that JSON can't carry are failures of the model, under OpenAI's protocol too."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.serving.openai import EmbeddingsRequest, embeddings_document
from modelyard.serving.protocol import ModelFailed
from modelyard.serving.rerank import RerankRequest, rerank_document


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vectors_and_scores_are_finite(value: float) -> None:
    embedding = EmbeddingsRequest("m", np.array(["a"], dtype=object), base64=False)
    with pytest.raises(ModelFailed, match="output 'embedding' holds NaN or infinity"):
        embeddings_document(embedding, {"embedding": np.array([[value, 1]])})
    with pytest.raises(ModelFailed, match="output 'score' holds NaN or infinity"):
        rerank_document(RerankRequest("m", "q", ["a"], 1, with_texts=False), {"score": np.array([value])})
