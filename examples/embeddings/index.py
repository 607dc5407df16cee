"""A vector index as small as can be: in memory, and every vector with the stamp of the model that made it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modelyard.embeddings import EmbeddingModel

Vector = NDArray[np.float32]


class Index:
    """Documents, and for each model's stamp the vectors it made of them."""

    def __init__(self) -> None:
        self.documents: list[str] = []
        self._vectors: dict[str, dict[str, Vector]] = {}

    def write(self, document: str, *models: EmbeddingModel) -> None:
        """Add a document with a vector of each model; one model twice makes one vector."""
        self.documents.append(document)
        for model in models:
            self.fill([document], model)

    def fill(self, documents: list[str], model: EmbeddingModel) -> None:
        """Add what one model makes of documents that are there."""
        vectors = model.encode(documents, normalize_embeddings=True)
        self._vectors.setdefault(model.stamp, {}).update(zip(documents, vectors, strict=True))

    def missing(self, model: EmbeddingModel) -> list[str]:
        """The documents without a vector of this very model: what a backfill has left to do."""
        there = self._vectors.get(model.stamp, {})
        return [document for document in self.documents if document not in there]

    def search(self, query: str, model: EmbeddingModel) -> str:
        """The document nearest to the query, among the vectors of the model that embeds the query."""
        there = self._vectors.get(model.stamp)
        if not there:
            raise LookupError(f"no document was embedded with {model.stamp}")
        scores = np.stack(list(there.values())) @ model.encode(query, normalize_embeddings=True)
        return list(there)[int(scores.argmax())]

    def drop(self, stamp: str) -> None:
        """Forget all vectors of one model."""
        del self._vectors[stamp]

    @property
    def stamps(self) -> dict[str, int]:
        """How many vectors there are of each model."""
        return {stamp: len(vectors) for stamp, vectors in self._vectors.items()}
