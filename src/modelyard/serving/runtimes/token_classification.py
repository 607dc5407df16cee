"""transformers models that find entities in texts: names, places, parts of speech.

Texts longer than the model can take are read in overlapping pieces, so no entity goes missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from transformers import TokenClassificationPipeline
from transformers.pipelines.token_classification import AggregationStrategy

from modelyard.errors import InvalidInput
from modelyard.repository.manifest import ModelVersion, Tensor
from modelyard.serving.cores import shared_cores
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes import Row
from modelyard.serving.runtimes.pretrained import Tokenizer, lengths, load_model, text_signature
from modelyard.serving.runtimes.rows import infer_rows
from modelyard.serving.runtimes.torch_threads import use_threads

_PIECES = 32  # computed at once


@dataclass(frozen=True, slots=True)
class _Text:
    """A text, its pieces as the model takes them, and of each what the grouping wants to know."""

    text: str
    pieces: list[dict[str, Any]]
    places: list[dict[str, Any]]


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
        self.workers, self._threads = shared_cores()

    def prepare(self, inputs: Arrays) -> Sequence[Row]:
        items = [self._text(text) for text in inputs["text"]]
        return [Row(item, int(lengths(item.pieces).sum())) for item in items]

    def infer_rows(self, items: Sequence[_Text]) -> Arrays:
        use_threads(self._threads)
        logits = self._logits([piece for item in items for piece in item.pieces])
        entities = [self._entities(item, list(islice(logits, len(item.pieces)))) for item in items]
        tokens = [int(lengths(item.pieces).sum()) for item in items]
        return {"entities": np.array(entities, dtype=object), "tokens": np.array(tokens, dtype=np.int64)}

    def infer(self, inputs: Arrays) -> Arrays:
        return infer_rows(self, inputs)

    def _text(self, text: str) -> _Text:
        pieces = self._tokenizer.features(
            [text],
            stride=self._tokenizer.limit // 4,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        places = []
        for piece in pieces:
            del piece["overflow_to_sample_mapping"]
            place = {name: torch.tensor([piece.pop(name)]) for name in ("offset_mapping", "special_tokens_mask")}
            places.append(place | {"input_ids": torch.tensor([piece["input_ids"]]), "sentence": text})
        return _Text(text, pieces, places)

    def _logits(self, pieces: Sequence[dict[str, Any]]) -> Iterator[Any]:
        """Those of each piece, without those of its padding."""
        for start in range(0, len(pieces), _PIECES):
            part = pieces[start : start + _PIECES]
            with torch.inference_mode():
                features = self._tokenizer.join(part)
                logits = self._model(**features).logits
            for row, mask in zip(logits, features["attention_mask"].bool(), strict=True):
                yield row[mask]

    def _entities(self, item: _Text, logits: Sequence[Any]) -> str:
        pieces = [place | {"logits": each[None]} for place, each in zip(item.places, logits, strict=True)]
        found = self._pipeline.postprocess(pieces, aggregation_strategy=AggregationStrategy.SIMPLE)
        spans = [(entity, int(entity["start"]), int(entity["end"])) for entity in found]
        entities = [
            {
                "label": entity["entity_group"],
                "score": round(float(entity["score"]), 6),
                "start": start,
                "end": end,
                "text": item.text[start:end],
            }
            for entity, start, end in spans
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
