"""transformers models that find entities in texts: names, places, parts of speech.

Texts longer than the model can take are read in overlapping pieces, so no entity goes missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from transformers import TokenClassificationPipeline
from transformers.pipelines.token_classification import AggregationStrategy

from modelyard.errors import InvalidInput
from modelyard.repository.manifest import ModelVersion, Tensor
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes.pretrained import Tokenizer, load_model, text_signature

_PIECES = 32  # computed at once


class TokenClassificationRuntime:
    """`entities` holds a JSON list for each text: {label, score, start, end, text}, characters counted from 0."""

    platform = "pytorch_transformers"
    signature = text_signature((Tensor("entities", "BYTES", (-1,)),))

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        # Its grouping of tokens is what callers of transformers know.
        make: Any = TokenClassificationPipeline
        self._pipeline = make(model=model, tokenizer=tokenizer.inner, device="cpu")

    def infer(self, inputs: Arrays) -> Arrays:
        texts = list(inputs["text"])
        features = self._tokenizer(
            texts,
            stride=self._tokenizer.limit // 4,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        owners = features.pop("overflow_to_sample_mapping").tolist()
        kept = {name: features.pop(name) for name in ("offset_mapping", "special_tokens_mask")}
        pieces = defaultdict(list)
        for index, logits in enumerate(self._logits(features)):
            piece = {"logits": logits[None], "input_ids": features["input_ids"][index : index + 1]}
            piece |= {name: values[index : index + 1] for name, values in kept.items()}
            pieces[owners[index]].append(piece | {"sentence": texts[owners[index]]})
        # A piece's own special tokens are paid for too, as they are computed.
        lengths = features["attention_mask"].sum(dim=1).numpy()
        return {
            "entities": np.array([self._entities(text, pieces[n]) for n, text in enumerate(texts)], dtype=object),
            "tokens": np.bincount(owners, weights=lengths, minlength=len(texts)).astype(np.int64),
        }

    def _logits(self, features: Any) -> Iterator[Any]:
        for start in range(0, len(features["input_ids"]), _PIECES):
            with torch.inference_mode():
                part = {name: values[start : start + _PIECES] for name, values in features.items()}
                yield from self._model(**part).logits

    def _entities(self, text: str, pieces: list[dict[str, Any]]) -> str:
        found = self._pipeline.postprocess(pieces, aggregation_strategy=AggregationStrategy.SIMPLE)
        entities = [
            {
                "label": entity["entity_group"],
                "score": round(float(entity["score"]), 6),
                "start": int(entity["start"]),
                "end": int(entity["end"]),
                "text": text[int(entity["start"]) : int(entity["end"])],
            }
            for entity in found
        ]
        return orjson.dumps(entities).decode()


def load(version: ModelVersion, folder: Path) -> TokenClassificationRuntime:
    model = load_model(version, folder, "AutoModelForTokenClassification")
    tokenizer = Tokenizer(version, folder, model)
    if not tokenizer.inner.is_fast:
        raise InvalidInput(
            f"{version.name}:{version.version} has a tokenizer that does not tell where its tokens lie",
            remedy="save it with a tokenizer.json",
        )
    return TokenClassificationRuntime(model, tokenizer)
