"""Cross encoders: how well a text answers a query, a pair a row.

Sentence-transformers loads them, from folders of its own kind and of transformers'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput, MissingExtra
from modelyard.repository.manifest import ModelVersion, Signature, Tensor
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes.pretrained import count_tokens, load_with

try:
    import torch
    from sentence_transformers import CrossEncoder
except ImportError as error:
    raise MissingExtra("sentence-transformers", "serve") from error


class RerankingRuntime:
    """`score` is what `CrossEncoder.predict` gives: the model's own activation over its one logit."""

    platform = "pytorch_sentence-transformers"
    signature = Signature(
        (Tensor("query", "BYTES", (-1,)), Tensor("text", "BYTES", (-1,))), (Tensor("score", "FP32", (-1,)),)
    )

    def __init__(self, model: Any) -> None:
        self._model = model

    def infer(self, inputs: Arrays) -> Arrays:
        pairs = list(zip(inputs["query"], inputs["text"], strict=True))
        with torch.inference_mode():
            features = self._model.preprocess(pairs, prompt=None)
            scores = self._model.activation_fn(self._model(features)["scores"].float())
        return {"score": scores.reshape(len(pairs)).numpy().astype(np.float32), "tokens": count_tokens(features)}


def load(version: ModelVersion, folder: Path) -> RerankingRuntime:
    model = load_with(
        version, lambda: CrossEncoder(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
    )
    if model.num_labels != 1:
        raise InvalidInput(
            f"{version.name}:{version.version} gives {model.num_labels} numbers for a pair of texts, not one score"
        )
    return RerankingRuntime(model.eval())
