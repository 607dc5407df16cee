"""Trains the model that handler.py serves, and puts all that belongs together into a folder; a picture beside it.

python examples/handler/make.py digits
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import skops.io
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SIGNATURE = {
    "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "score", "datatype": "FP32", "shape": [-1]},
    ],
}


def main(folder: Path) -> None:
    folder.mkdir()
    rows, digits = load_digits(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(rows[10:], digits[10:])
    skops.io.dump(model, folder / "model.skops")
    shutil.copy(Path(__file__).with_name("handler.py"), folder)
    folder.with_name("metadata.json").write_text(json.dumps({"signature": SIGNATURE}, indent=1))
    pixels = (rows[7].reshape(8, 8) * 15.9).astype(np.uint8)
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(folder.with_name("seven.png"))
    print(f"{folder}, metadata.json and seven.png are ready")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
