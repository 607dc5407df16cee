"""Reads a handwritten digit from a picture: a scikit-learn model behind an image input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from PIL import Image

from modelyard.serving.images import decode


class Digits:
    def setup(self, folder: Path) -> None:
        self.model = skops.io.load(folder / "model.skops")

    def preprocess(self, inputs: dict[str, Any]) -> Any:
        pictures = [decode(value, "L").resize((8, 8), Image.Resampling.BOX) for value in inputs["image"]]
        return np.stack([np.asarray(picture, dtype=np.float64).ravel() / 16 for picture in pictures])

    def predict(self, rows: Any) -> Any:
        return self.model.predict_proba(rows)

    def postprocess(self, probabilities: Any) -> dict[str, Any]:
        return {"label": probabilities.argmax(axis=1), "score": probabilities.max(axis=1).astype(np.float32)}
