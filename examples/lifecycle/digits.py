"""Training data and training of the demo: scikit-learn's handwritten digits and a small PyTorch classifier.

1,797 real images of 8 × 8 pixels (E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998).
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIGNATURE = {
    "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}],
    "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
}


@dataclass(frozen=True, slots=True)
class Data:
    """Pixels in 0…1 as (n, 64) float32, labels as (n,) int64, split once and for all."""

    train_pixels: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_pixels: NDArray[np.float32]
    test_labels: NDArray[np.int64]

    @property
    def fingerprint(self) -> str:
        """sha256 over the training part: what a model's lineage names."""
        return "sha256:" + hashlib.sha256(self.train_pixels.tobytes() + self.train_labels.tobytes()).hexdigest()

    def save_test(self, path: Path) -> str:
        """Write the held-out part as .npz and return its sha256: what a validation suite names."""
        buffer = io.BytesIO()
        np.savez(buffer, pixels=self.test_pixels, labels=self.test_labels)
        path.write_bytes(buffer.getvalue())
        return "sha256:" + hashlib.sha256(buffer.getvalue()).hexdigest()


def load() -> Data:
    pixels, labels = load_digits(return_X_y=True)
    split = train_test_split((pixels / 16).astype("float32"), labels, test_size=0.3, random_state=0, stratify=labels)
    return Data(split[0], split[2], split[1], split[3])


def train(data: Data, folder: Path, *, hidden: int, epochs: int) -> float:
    """Train, save as TorchScript into `folder`, and return the accuracy on the held-out part."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(hidden, 10)
    )
    pixels, labels = torch.from_numpy(data.train_pixels), torch.from_numpy(data.train_labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(pixels)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(pixels[batch]), labels[batch]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        found = model(torch.from_numpy(data.test_pixels)).argmax(dim=1).numpy()
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*torch.jit.*")
        torch.jit.script(model).save(folder / "model.pt")
    return float((found == data.test_labels).mean())
