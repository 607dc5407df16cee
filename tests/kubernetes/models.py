"""Small models whose answers tell which version gave them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from modelyard import ModelRepository, ModelVersion

KEY, SECRET = "tester", "secret-of-the-tester"
ONE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
SIGNATURE = {
    side: [{"name": name, "datatype": "FP32", "shape": [-1, 2]}] for side, name in (("inputs", "x"), ("outputs", "y"))
}


class Times(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def register(repository: ModelRepository, folder: Path, version: str, factor: float) -> ModelVersion:
    """`classifier` in a version that multiplies by its factor."""
    place = folder / version
    place.mkdir(parents=True)
    script: Callable[..., Any] = torch.jit.script
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script(Times(factor)).save(str(place / "model.pt"))
    return repository.register_model("classifier", version, place, {"signature": SIGNATURE})
