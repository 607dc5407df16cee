"""What the tests of a cluster register, and the credentials of the bucket they do it in."""

from __future__ import annotations

from pathlib import Path

from modelyard import ModelRepository, ModelVersion
from times import SIGNATURE, save_times

KEY, SECRET = "tester", "secret-of-the-tester"


def register(repository: ModelRepository, folder: Path, version: str, factor: float) -> ModelVersion:
    """`classifier` in a version that multiplies by its factor."""
    artifacts = save_times(folder / version, factor)
    return repository.register_model("classifier", version, artifacts, {"signature": SIGNATURE})
