"""POST /v1/rerank, in the shape that Jina and Cohere share: JSON documents in and out.

Knows nothing of HTTP or of computing.
Source: https://docs.cohere.com/reference/rerank
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput
from modelyard.repository.manifest import Signature
from modelyard.serving.protocol import Arrays, require_finite


@dataclass(frozen=True, slots=True)
class RerankRequest:
    model: str
    query: str
    texts: list[str]
    top: int
    with_texts: bool

    @property
    def inputs(self) -> Arrays:
        """A row for each text."""
        texts = np.array(self.texts, dtype=object)
        return {"query": np.full(len(texts), self.query, dtype=object), "text": texts}


def parse_rerank(document: dict[str, Any], name: str, signature: Signature) -> RerankRequest:
    """A request that a model with this signature can answer. Raises InvalidInput."""
    if [tensor.name for tensor in signature.inputs] != ["query", "text"]:
        raise InvalidInput(f"{name} ranks no texts", remedy="ask a cross encoder")
    query, texts, top = document.get("query"), document.get("documents"), document.get("top_n")
    if not isinstance(query, str) or not query:
        raise InvalidInput("'query' is not a text", remedy="send what the documents are to be ranked by")
    if isinstance(texts, list):
        texts = [text.get("text") if isinstance(text, dict) else text for text in texts]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInput("'documents' is not a list of texts", remedy='send strings, or objects as {"text": …}')
    if top is not None and (type(top) is not int or top < 1):
        raise InvalidInput("'top_n' is not a number above 0", remedy="leave it out for all documents")
    return RerankRequest(
        name, query, texts, min(top or len(texts), len(texts)), document.get("return_documents") is True
    )


def rerank_document(asked: RerankRequest, computed: Arrays) -> dict[str, Any]:
    """The answer: the best documents first, by their places in the request. Raises ModelFailed."""
    scores = computed["score"]
    require_finite("score", scores)
    order = np.argsort(-scores, kind="stable")[: asked.top]
    results: list[dict[str, Any]] = [{"index": int(index), "relevance_score": float(scores[index])} for index in order]
    if asked.with_texts:
        results = [result | {"document": {"text": asked.texts[result["index"]]}} for result in results]
    tokens = int(computed["tokens"].sum()) if "tokens" in computed else 0
    return {"model": asked.model, "results": results, "usage": {"total_tokens": tokens}}
