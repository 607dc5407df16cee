"""transformers models that put texts into classes: sentiment, topic, language, toxicity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from modelyard.repository.manifest import ModelVersion
from modelyard.serving.cores import shared_cores
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes import Row
from modelyard.serving.runtimes.pretrained import Classes, Tokenizer, lengths, load_model, text_signature
from modelyard.serving.runtimes.rows import infer_rows
from modelyard.serving.runtimes.torch_threads import use_threads


class TextClassificationRuntime:
    platform = "pytorch_transformers"

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._classes = Classes(model.config)
        self.labels = self._classes.names
        self.signature = text_signature(self._classes.outputs)
        self.workers, self._threads = shared_cores()

    def prepare(self, inputs: Arrays) -> Sequence[Row]:
        return [Row(item, len(item["input_ids"])) for item in self._tokenizer.features(inputs["text"])]

    def infer_rows(self, items: Sequence[dict[str, Any]]) -> Arrays:
        use_threads(self._threads)
        with torch.inference_mode():
            logits = self._model(**self._tokenizer.join(items)).logits
        return self._classes.read(logits) | {"tokens": lengths(items)}

    def infer(self, inputs: Arrays) -> Arrays:
        return infer_rows(self, inputs)


def load(version: ModelVersion, folder: Path) -> TextClassificationRuntime:
    model = load_model(version, folder, "AutoModelForSequenceClassification")
    return TextClassificationRuntime(model, Tokenizer(version, folder, model))
