"""What a skops file says of its model without being loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelyard.errors import InvalidInput
from modelyard.importer.inspect import inspect
from modelyard.repository.manifest import ModelInfo

from . import builders
from .builders import zipped

ROWS, TARGETS = [[0.0], [1.0]], [0, 1]


@pytest.mark.parametrize(
    ("model", "task", "architecture"),
    [
        (RandomForestClassifier(2), "tabular-classification", "RandomForestClassifier"),
        (RandomForestRegressor(2), "tabular-regression", "RandomForestRegressor"),
        (
            make_pipeline(StandardScaler(), RandomForestClassifier(2)),
            "tabular-classification",
            "RandomForestClassifier",
        ),
        (LogisticRegression(), None, "LogisticRegression"),
    ],
)
def test_the_estimator_is_named(tmp_path: Path, model: Any, task: str | None, architecture: str) -> None:
    skops.io.dump(model.fit(ROWS, TARGETS), tmp_path / "model.skops")
    found = inspect(tmp_path)
    assert found.model == ModelInfo(task=task, format="skops", framework="scikit-learn", architecture=architecture)
    assert (found.pickles, found.refused) == ({}, {})


@pytest.mark.parametrize(
    "data", [b"no zip", zipped({"other.json": b"{}"}), zipped({"schema.json": b"[]"}), zipped({"schema.json": b"{"})]
)
def test_a_broken_file_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"model\.skops can't be read: .*; get the file again"):
        inspect(builders.folder(tmp_path, {"model.skops": data}))
