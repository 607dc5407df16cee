"""transformers models that put texts into classes: sentiment, topic, language, toxicity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from modelyard.repository.manifest import ModelVersion
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes.pretrained import Classes, Tokenizer, count_tokens, load_model, text_signature


class TextClassificationRuntime:
    platform = "pytorch_transformers"

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._classes = Classes(model.config)
        self.labels = self._classes.names
        self.signature = text_signature(self._classes.outputs)

    def infer(self, inputs: Arrays) -> Arrays:
        features = self._tokenizer(inputs["text"])
        with torch.inference_mode():
            logits = self._model(**features).logits
        return self._classes.read(logits) | {"tokens": count_tokens(features)}


def load(version: ModelVersion, folder: Path) -> TextClassificationRuntime:
    model = load_model(version, folder, "AutoModelForSequenceClassification")
    return TextClassificationRuntime(model, Tokenizer(version, folder, model))
