"""What tests of validation work on: one version that is asked through a gateway."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.deployment.checks.base import Check
from modelyard.deployment.checks.subject import Known, Production
from modelyard.deployment.client import ModelClient
from modelyard.deployment.suite import Metric, Named, Suite
from modelyard.deployment.validation import Validation
from modelyard.repository import ModelInfo, ModelVersion
from modelyard.repository.manifest import Signature, Tensor

from .builders import V1
from .model_server import FakeModel

SIGNATURE = Signature((Tensor("x", "FP32", (-1, 2)),), (Tensor("y", "FP32", (-1, 2)),))
VERSION = ModelVersion(
    id="test",
    name="digit",
    version=V1.version,
    digest=V1.digest,
    files=(),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    created_by="tester",
    model=ModelInfo(format="onnx", signature=SIGNATURE),
)
OLD = "digit:v1.0.0@sha256:0"
ASK = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 3]}]}
ROWS = np.array([[0, 1], [1, 0], [0, 1], [0, 1]], dtype=np.float32)
LABELS = np.array([1, 0, 1, 0])  # three of four


class Bench:
    """A version in staging and one in production, behind a gateway; tests change how they answer."""

    def __init__(self, url: str, folder: Path, models: dict[str, FakeModel]) -> None:
        self.version = VERSION
        self._url = url
        self._folder = folder
        self.staged, self.production = models["digit:staging"], models["digit:production"]

    def run(self, suite: Suite, *, compare: bool = False, known: Known | None = None) -> dict[str, Check]:
        """What came out, by the checks' names; `compare`: with what is in production."""
        with self._validation(suite, compare=compare, known=known) as validation:
            return {check.name: check for check in validation.run()}

    def plan(self, suite: Suite, *, compare: bool = False, known: Known | None = None) -> dict[str, str]:
        """What would be looked at, by the checks' names."""
        with self._validation(suite, compare=compare, known=known) as validation:
            return {planned.name: planned.what for planned in validation.plan()}

    @contextmanager
    def _validation(self, suite: Suite, *, compare: bool, known: Known | None) -> Iterator[Validation]:
        with (
            ModelClient(self._url, "digit:staging") as staged,
            ModelClient(self._url, "digit:production") as production,
        ):
            yield Validation(self.version, suite, staged, Production(production, OLD) if compare else None, known)

    def metric(self, *, x: Any = ROWS, y: Any = LABELS, **options: Any) -> Suite:
        """A suite with one metric; without options the staged version is right on three of four rows."""
        path = self._folder / "data.npz"
        np.savez(path, x=x, y=y)
        values: dict[str, Any] = {
            "dataset": str(path),
            "digest": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
            "input": Named(name="x", array="x"),
            "output": Named(name="y", array="y"),
            "threshold": 0.7,
        }
        return Suite(metric=(Metric(**(values | options)),))
