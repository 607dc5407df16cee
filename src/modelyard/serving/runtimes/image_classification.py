"""transformers models that put images into classes. The image processor saved with the model prepares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from modelyard.repository.manifest import ModelVersion, Signature, Tensor
from modelyard.serving import images
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes.pretrained import Classes, load_image_processor, load_model


class ImageClassificationRuntime:
    platform = "pytorch_transformers"
    takes_bytes = True

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor
        self._mode = "L" if getattr(model.config, "num_channels", 3) == 1 else "RGB"
        self._classes = Classes(model.config)
        self.labels = self._classes.names
        self.signature = Signature((Tensor("image", "BYTES", (-1,)),), self._classes.outputs)

    def infer(self, inputs: Arrays) -> Arrays:
        pictures = [images.decode(value, self._mode) for value in inputs["image"]]
        features = self._processor(images=pictures, return_tensors="pt")
        with torch.inference_mode():
            return self._classes.read(self._model(pixel_values=features["pixel_values"]).logits)


def load(version: ModelVersion, folder: Path) -> ImageClassificationRuntime:
    model = load_model(version, folder, "AutoModelForImageClassification")
    return ImageClassificationRuntime(model, load_image_processor(version, folder))
