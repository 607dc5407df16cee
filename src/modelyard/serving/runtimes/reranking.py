"""Cross encoders: how well a text answers a query, a pair a row.

Sentence-transformers loads them, from folders of its own kind and of transformers'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelyard.errors import InvalidInput, MissingExtra
from modelyard.repository.manifest import ModelVersion, Signature, Tensor
from modelyard.serving.cores import usable_cores
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes.pretrained import load_with
from modelyard.serving.runtimes.rows import nothing

try:
    import torch
    from sentence_transformers import CrossEncoder
except ImportError as error:
    raise MissingExtra("sentence-transformers", "serve") from error

from modelyard.serving.runtimes.torch_threads import use_threads


class RerankingRuntime:
    """`score` is what `CrossEncoder.predict` gives: the model's own activation over its one logit."""

    platform = "pytorch_sentence-transformers"
    signature = Signature(
        (Tensor("query", "BYTES", (-1,)), Tensor("text", "BYTES", (-1,))), (Tensor("score", "FP32", (-1,)),)
    )

    def __init__(self, model: Any) -> None:
        self._model = model

    def infer(self, inputs: Arrays) -> Arrays:
        queries, texts = len(inputs["query"]), len(inputs["text"])
        if queries != texts:
            raise InvalidInput(f"{queries} queries can't be paired with {texts} texts", remedy="send a query for each")
        pairs = list(zip(inputs["query"], inputs["text"], strict=True))
        if not pairs:
            return nothing(self.signature)
        use_threads(usable_cores())
        with torch.inference_mode():
            features = self._model.preprocess(pairs, prompt=None)
            scores = self._model.activation_fn(self._model(features)["scores"].float())
        tokens = features["attention_mask"].sum(dim=1).numpy().astype(np.int64)
        return {"score": scores.reshape(len(pairs)).numpy().astype(np.float32), "tokens": tokens}


def load(version: ModelVersion, folder: Path) -> RerankingRuntime:
    model = load_with(
        version, lambda: CrossEncoder(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
    )
    if model.num_labels != 1:
        raise InvalidInput(
            f"{version.name}:{version.version} gives {model.num_labels} numbers for a pair of texts, not one score"
        )
    return RerankingRuntime(model.eval())
