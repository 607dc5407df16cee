"""transformers models that put images into classes. The image processor saved with the model prepares them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from modelyard.repository.manifest import ModelVersion, Signature, Tensor
from modelyard.serving import images
from modelyard.serving.cores import shared_cores
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes import Row
from modelyard.serving.runtimes.pretrained import Classes, load_image_processor, load_model
from modelyard.serving.runtimes.rows import infer_rows
from modelyard.serving.runtimes.torch_threads import use_threads


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
        self.workers, self._threads = shared_cores()

    def prepare(self, inputs: Arrays) -> Sequence[Row]:
        return [Row(self._pixels(value), 1) for value in inputs["image"]]

    def infer_rows(self, items: Sequence[Any]) -> Arrays:
        use_threads(self._threads)
        with torch.inference_mode():
            return self._classes.read(self._model(pixel_values=torch.cat(list(items))).logits)

    def infer(self, inputs: Arrays) -> Arrays:
        return infer_rows(self, inputs)

    def _pixels(self, value: str | bytes) -> Any:
        picture = images.decode(value, self._mode)
        return self._processor(images=[picture], return_tensors="pt")["pixel_values"]


def load(version: ModelVersion, folder: Path) -> ImageClassificationRuntime:
    model = load_model(version, folder, "AutoModelForImageClassification")
    return ImageClassificationRuntime(model, load_image_processor(version, folder))
