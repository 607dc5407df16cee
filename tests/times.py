"""A small model whose answers tell which version gave them: each multiplies by its own factor."""

from __future__ import annotations

from pathlib import Path

import torch

from serving.support import save_torchscript

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


def save_times(folder: Path, factor: float) -> Path:
    """The folder, which is made, with the model as TorchScript."""
    return save_torchscript(Times(factor), folder / "model.pt")
